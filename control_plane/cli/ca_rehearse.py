"""`hauberk ca rehearse`: a rotation played on a copy of the mesh, before it is done."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from control_plane.cli.options import Duration, output_option, reaches_control_plane
from control_plane.cli.verb import CliError, Verb

if TYPE_CHECKING:
    from protos.hauberk.v1 import admin_pb2

TIMEOUT_S = 300.0


@click.command(
    "rehearse",
    cls=Verb,
    short_help="Play a rotation on a copy of the mesh, and say who would fail.",
    examples=(
        "hauberk ca rehearse root",
        "hauberk ca rehearse root --force",
        "hauberk ca rehearse intermediate --for 30d -o json",
    ),
)
@click.argument("level", type=click.Choice(["root", "intermediate"]))
@click.option("--force", is_flag=True, help="As if activated with --force: without waiting for anybody.")
@click.option(
    "--for", "horizon_s", type=Duration(), default=None, metavar="DURATION",
    help="Go on that long, with all that is due by itself.  [default: until the rotation is through]",
)  # fmt: skip
@output_option()
@reaches_control_plane
def rehearse(*, level: str, force: bool, horizon_s: float | None, output: str, socket: Path) -> None:
    """Play the rotation of LEVEL on a copy of the mesh as it is now, under a simulated clock. Nothing is changed.

    The copy has the same sidecars: connected or away since when, with their certificates, clocks and node keys.
    Whoever is away is assumed to stay away until all is over. The exit code is 1 if anybody would fail.
    """
    from control_plane.cli.client import Client
    from control_plane.cli.output import note, plain, print_data
    from protos.hauberk.v1 import admin_pb2

    request = admin_pb2.CaRehearseRequest(level=level, force=force, horizon_s=horizon_s or 0.0)
    note("playing the rotation ...")
    with Client(socket) as control_plane:
        answer = control_plane.call("Admin/CaRehearse", request, admin_pb2.CaRehearseResponse, timeout_s=TIMEOUT_S)
    if output == "table":
        show(answer)
    else:
        print_data(plain(answer), output)
    if answer.failures:
        count = len({one.who for one in answer.failures})
        raise CliError(f"{'1 sidecar' if count == 1 else f'{count} sidecars'} would fail; nothing was changed")


def show(answer: admin_pb2.CaRehearseResponse) -> None:
    """The steps with their times from now; then who would fail."""
    from control_plane.cli.output import clock, print_table, printable, span

    begins = answer.steps[0].at if answer.steps else 0.0
    print_table(["AFTER", "TIME", "WHAT"], [[span(one.at - begins), clock(one.at), one.what] for one in answer.steps])
    click.echo()
    if not answer.failures:
        click.echo("nobody would fail")
        return
    for one in answer.failures:
        start = getattr(one, "from")
        end = f"for {span(one.until - start)}" if one.until else "until somebody does something"
        click.echo(printable(f"{one.who} would fail from {clock(start)} on, {end}: {one.why}"))
