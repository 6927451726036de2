"""`hauberk sidecar`: run a sidecar for an app that somebody else starts."""

from __future__ import annotations

import click

from control_plane.cli.verb import CliError, Verb


@click.command(
    "sidecar",
    cls=Verb,
    short_help="Run a sidecar for an app started elsewhere.",
    examples=("hauberk sidecar --config sidecar.yaml",),
)
@click.option(
    "--config", "config_file", required=True, metavar="FILE", help="The sidecar's configuration; - for stdin."
)
def sidecar(config_file: str) -> int:
    """Run a sidecar in the foreground until it is told to stop.

    It joins with the token that the configuration names, relays what policy allows, and renews its certificate by
    itself. With state_dir in the configuration it needs the token at its first start only. On SIGTERM it deregisters,
    lets open requests finish, and ends.
    """
    from sidecar.config_load import load
    from sidecar.errors import SidecarError
    from sidecar.handover import become_sidecar

    try:
        become_sidecar(load(config_file))
    except SidecarError as error:
        raise CliError(str(error)) from None
