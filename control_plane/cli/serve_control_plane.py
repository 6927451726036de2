"""`hauberk control-plane`: run the control plane in the foreground until it is told to stop."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from control_plane.cli.options import data_dir_option
from control_plane.cli.verb import CliError, Verb

if TYPE_CHECKING:
    from control_plane.config import ControlPlaneConfig


@click.command(
    "control-plane",
    cls=Verb,
    short_help="Run the control plane.",
    examples=(
        "hauberk control-plane --data-dir ./mesh",
        "hauberk control-plane --data-dir /var/lib/hauberk --config control-plane.yaml",
        "hauberk control-plane --data-dir ./mesh --listen 10.0.0.5:15012 --join-listen 10.0.0.5:15011",
    ),
)
@data_dir_option
@click.option(
    "--config", "config_file", type=click.Path(path_type=Path), metavar="FILE", help="More settings, as YAML."
)
@click.option("--listen", metavar="IP:PORT", help="For sidecars, mutual TLS.  [default: 127.0.0.1:15012]")
@click.option("--join-listen", metavar="IP:PORT", help="For sidecars that join.  [default: 127.0.0.1:15011]")
@click.option("--trust-domain", metavar="NAME", help="Of every identity; fixed at first start.  [default: mesh.local]")
@click.pass_context
def control_plane(
    ctx: click.Context, *, data_dir: Path, config_file: Path | None, listen: str | None, join_listen: str | None,
    trust_domain: str | None,
) -> int:  # fmt: skip
    """Run the control plane: certificate authority, policy, and who is where.

    The data directory is made at first start, with a new certificate authority in it. Operators reach the control plane
    through the socket in it: whoever may open that is an operator. Stops on SIGTERM and SIGINT.
    """
    from control_plane.app import run
    from control_plane.errors import StartError

    given = ctx.get_parameter_source("data_dir") is not ParameterSource.DEFAULT
    try:
        config = settings(
            data_dir=data_dir.expanduser().absolute() if given or config_file is None else None,
            config_file=config_file,
            listen=listen,
            join_listen=join_listen,
            trust_domain=trust_domain,
        )
        return run(config)
    except StartError as error:
        raise CliError(str(error)) from None


def settings(
    *, data_dir: Path | None, config_file: Path | None, listen: str | None, join_listen: str | None,
    trust_domain: str | None,
) -> ControlPlaneConfig:  # fmt: skip
    """The file's settings with what the command line says instead. `data_dir` may be None only if there is a file.

    Raises ConfigError."""
    from control_plane.config import ControlPlaneConfig, ListenAddress, check, load
    from control_plane.errors import ConfigError

    if config_file is not None:
        config = load(config_file, data_dir=data_dir)
    else:
        assert data_dir is not None, "either a file or a directory"
        config = ControlPlaneConfig(data_dir=data_dir, source="command line")
    if trust_domain is not None:
        config = replace(config, trust_domain=trust_domain)
    for flag, name, text in (("--listen", "listen", listen), ("--join-listen", "join_listen", join_listen)):
        if text is not None:
            try:
                config = replace(config, **{name: ListenAddress.parse(text)})  # type: ignore[arg-type]  # its own type
            except ValueError as error:
                raise ConfigError(f"{flag}: {error}") from None
    return check(config)
