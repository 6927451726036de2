"""`hauberk policy rollback`: the resources as they were at an earlier version."""

from __future__ import annotations

from pathlib import Path

import click

from control_plane.cli.options import Version, output_option, reaches_control_plane, wait_options
from control_plane.cli.verb import Verb


@click.command(
    "rollback",
    cls=Verb,
    short_help="Go back to an earlier version.",
    examples=(
        "hauberk policy rollback 57 --dry-run",
        "hauberk policy rollback 57 --wait",
        "hauberk policy rollback 57 --confirm",
    ),
)
@click.argument("version", type=Version())
@click.option("--dry-run", is_flag=True, help="Say what would change, but change nothing.")
@click.option("--confirm", is_flag=True, help="Ask before anything is changed.")
@wait_options
@output_option()
@reaches_control_plane
def rollback(
    version: int, *, dry_run: bool, confirm: bool, wait: bool, timeout_s: float, output: str, socket: Path
) -> None:
    """Make the resources exactly what they were at VERSION: what came since goes, what went comes back.

    That is a new version with its own entry in the history, so it can be undone in the same way. It is refused as a
    whole if not everything is valid under today's rules. Who gains and who loses what is said before.
    """
    from control_plane.cli import client, impact, propagation
    from control_plane.cli.apply import describe
    from control_plane.cli.output import note, plain, print_data, printable
    from protos.hauberk.v1 import config_pb2

    impact.check_options(dry_run=dry_run, confirm=confirm, wait=wait)
    request = config_pb2.RollbackRequest(to_version=version, dry_run=True)
    with client.Client(socket) as control_plane:

        def call(timeout_s: float) -> config_pb2.RollbackResponse:
            return control_plane.call("Config/Rollback", request, config_pb2.RollbackResponse, timeout_s=timeout_s)

        answer = call(client.CHANGE_TIMEOUT_S)
        for warning in answer.warnings:
            note(printable(f"warning: {warning}"))
        impact.report(answer.impact)
        if not dry_run:
            impact.ask(confirm)
            seen = answer.impact
            impact.make_real(request, answer.version, wait, timeout_s)
            answer = call(client.CHANGE_TIMEOUT_S + request.wait_timeout_s)
            answer.impact.CopyFrom(seen)
    if output != "table":
        print_data(plain(answer), output)
    elif not answer.changes:
        click.echo(f"everything is as it was at version {version}; nothing to do")
    for change in answer.changes if output == "table" else ():
        click.echo(describe(change, dry_run=dry_run))
    if wait:
        propagation.report(answer.propagation, answer.version, timeout_s)
