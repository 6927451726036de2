"""`hauberk ca recover|rotate-kek`: what is done to a data directory while no control plane runs on it."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from control_plane.cli.ca_steps import STEP_TIMEOUT_S, yes_option
from control_plane.cli.options import data_dir_option, output_option
from control_plane.cli.verb import CliError, Verb

if TYPE_CHECKING:
    from control_plane.ca.authority import CertificateAuthority
    from control_plane.config import ControlPlaneConfig

AFTERWARDS = (
    "Sidecars with a state_dir come back by themselves, for as long as their node keys are good"
    " (ca.node_lifetime_s); the others need a new join token"
)


def config_option(command: click.decorators.FC) -> click.decorators.FC:
    return click.option(
        "--config", "config_file", type=click.Path(path_type=Path), metavar="FILE",
        help="The control plane's settings, if it has any: where its KEK is, how long a root lives.",
    )(command)  # fmt: skip


@click.command(
    "recover",
    cls=Verb,
    short_help="Make a new root after the old one has expired.",
    examples=(
        "hauberk ca recover --data-dir /var/lib/hauberk",
        "hauberk ca recover --config /etc/hauberk/control-plane.yaml",
    ),
)
@data_dir_option
@config_option
@click.option(
    "--force", is_flag=True, help="Although the root has not expired: every sidecar is cut off until it is back."
)
@yes_option
@output_option()
@click.pass_context
def recover(
    ctx: click.Context, *, data_dir: Path, config_file: Path | None, force: bool, yes: bool, output: str
) -> None:  # fmt: skip
    """Make a new root and intermediate after everything has expired. Works whether the control plane runs or not.

    The old root's key vouches for the new one, so sidecars with a node key find their way from the one to the other;
    start the control plane, and they come back. An intermediate or a sidecar's certificate that has expired under a
    root that is good needs none of this: starting the control plane is enough.
    """
    from control_plane import offline
    from control_plane.cli.output import note
    from control_plane.errors import ControlPlaneError, StoreLocked

    config = settings_of(ctx, data_dir, config_file)
    if force and not yes:
        note("this cuts off every sidecar until it has come back with its node key or a new join token")
        if not click.confirm("Make a new root?", default=False, err=True):
            raise CliError("nothing was changed")
    try:
        with offline.authority(config, time.time()) as authority:
            _recover(authority, output, force=force)
            note(f"now start the control plane: hauberk control-plane --data-dir {config.data_dir}")
    except StoreLocked:
        _recover_running(config, output, force=force)
    except ControlPlaneError as error:
        raise CliError(str(error)) from None
    note(AFTERWARDS)


def _recover(authority: CertificateAuthority, output: str, *, force: bool) -> None:
    from control_plane.ca.errors import CaError
    from control_plane.offline import OPERATOR

    try:
        root = authority.recover(time.time(), OPERATOR, force=force)
    except CaError as refusal:
        raise CliError(str(refusal)) from None
    _show(root.authority_id, root.not_after, output)


def _recover_running(config: ControlPlaneConfig, output: str, *, force: bool) -> None:
    from control_plane.cli.client import Client
    from protos.hauberk.v1 import admin_pb2

    request = admin_pb2.CaStepRequest(step="recover", force=force)
    with Client(config.operator_socket_path) as control_plane:
        answer = control_plane.call("Admin/CaStep", request, admin_pb2.CaStepResponse, timeout_s=STEP_TIMEOUT_S)
    _show(answer.authority.authority_id, answer.authority.not_after, output)


def _show(authority_id: str, not_after: float, output: str) -> None:
    from control_plane.cli.output import clock, print_data, printable

    if output == "table":
        click.echo(printable(f"root {authority_id} is active, good until {clock(not_after)}"))
    else:
        print_data({"authority_id": authority_id, "level": "root", "phase": "active", "not_after": not_after}, output)


@click.command(
    "rotate-kek",
    cls=Verb,
    short_help="Exchange the key that the CA's keys are encrypted with.",
    examples=("hauberk ca rotate-kek --data-dir /var/lib/hauberk",),
)
@data_dir_option
@config_option
@output_option()
@click.pass_context
def rotate_kek(ctx: click.Context, *, data_dir: Path, config_file: Path | None, output: str) -> None:
    """Make a new key-encryption key and seal the CA's keys with it. The control plane must be stopped meanwhile.

    Interrupted, it is completed or taken back at the next start. Backups made before need the key of before: keep the
    two together.
    """
    from control_plane import offline
    from control_plane.cli.output import note, print_data
    from control_plane.errors import ControlPlaneError, StoreLocked

    config = settings_of(ctx, data_dir, config_file)
    try:
        name, path = offline.new_kek(config, time.time())
    except StoreLocked as error:
        raise CliError(f"{error}; this is done while no control plane runs") from None
    except ControlPlaneError as error:
        raise CliError(str(error)) from None
    if output == "table":
        click.echo(f"the CA's keys are encrypted with {path} now (KEK {name})")
    else:
        print_data({"kek_id": name, "kek_file": str(path)}, output)
    note("make a new backup: those of before need the key of before")


def settings_of(ctx: click.Context, data_dir: Path, config_file: Path | None) -> ControlPlaneConfig:
    """As `hauberk control-plane` reads them. Raises CliError."""
    from control_plane.cli.serve_control_plane import settings
    from control_plane.errors import StartError

    # What is done is said in words; the log is the control plane's.
    logging.getLogger("control_plane").addHandler(logging.NullHandler())
    given = ctx.get_parameter_source("data_dir") is not ParameterSource.DEFAULT
    try:
        return settings(
            data_dir=data_dir.expanduser().absolute() if given or config_file is None else None,
            config_file=config_file,
            listen=None,
            join_listen=None,
            trust_domain=None,
        )
    except StartError as error:
        raise CliError(str(error)) from None
