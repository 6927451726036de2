"""`hauberk apply`: make the mesh's policy what the files say. All of them, or nothing."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from control_plane.cli.options import output_option, reaches_control_plane, wait_options
from control_plane.cli.verb import Verb

if TYPE_CHECKING:
    from protos.hauberk.v1 import config_pb2


def _not_here(_ctx: click.Context, _param: click.Parameter, value: str | None) -> None:
    """kubectl fills the namespace in. Here a file means the same whoever applies it."""
    if value is not None:
        raise click.UsageError("documents say themselves where they belong; write metadata.namespace into them")


@click.command(
    "apply",
    cls=Verb,
    short_help="Create or update resources from YAML files.",
    examples=(
        "hauberk apply -f policies/",
        "hauberk apply -f orders.yaml --wait --timeout 5s",
        "hauberk apply -f orders.yaml --dry-run",
        "hauberk apply -f orders.yaml --confirm",
        "generate-policy | hauberk apply -f -",
    ),
)
@click.option(
    "-f", "--file", "names", multiple=True, required=True, metavar="FILE|DIR",
    help="A YAML file, a directory of them, or - for standard input. May be given more than once.",
)  # fmt: skip
@click.option(
    "-n", "--namespace", hidden=True, expose_value=False, callback=_not_here, help="Refused with the way out."
)
@click.option("--dry-run", is_flag=True, help="Check everything and say what would change, but change nothing.")
@click.option("--confirm", is_flag=True, help="Ask before anything is changed.")
@wait_options
@output_option()
@reaches_control_plane
def apply(
    names: tuple[str, ...], *, dry_run: bool, confirm: bool, wait: bool, timeout_s: float, output: str, socket: Path
) -> None:
    """Create or update resources from YAML files.

    Every document is checked before any is stored: one that is wrong (an unknown field, a key given twice, an identity
    that cannot be) refuses them all and is named with its file, line and field. Before anything is stored it is said
    who gains and who loses what.
    """
    from control_plane.cli import client, files, impact, propagation
    from control_plane.cli.output import note, plain, print_data, printable
    from protos.hauberk.v1 import config_pb2

    impact.check_options(dry_run=dry_run, confirm=confirm, wait=wait)
    request = config_pb2.ApplyRequest(files=files.read_sources(names), dry_run=True)
    with client.Client(socket) as control_plane:

        def call(asked: config_pb2.ApplyRequest, timeout_s: float) -> config_pb2.ApplyResponse:
            return control_plane.call("Config/Apply", asked, config_pb2.ApplyResponse, timeout_s=timeout_s)

        answer = call(request, client.CHANGE_TIMEOUT_S)
        for warning in answer.warnings:
            note(printable(f"warning: {warning}"))
        impact.report(answer.impact)
        if not dry_run:
            impact.ask(confirm)
            seen = answer.impact
            impact.make_real(request, answer.version, wait, timeout_s)
            answer = call(request, client.CHANGE_TIMEOUT_S + request.wait_timeout_s)
            answer.impact.CopyFrom(seen)
    if output == "table":
        for change in answer.changes:
            click.echo(describe(change, dry_run=dry_run))
    else:
        print_data(plain(answer), output)
    if wait:
        propagation.report(answer.propagation, answer.version, timeout_s)


def describe(change: config_pb2.Change, *, dry_run: bool = False) -> str:
    """`AuthorizationPolicy shop/orders created`."""
    from control_plane.cli.output import printable

    name = f"{change.namespace}/{change.name}" if change.namespace else change.name
    return printable(f"{change.kind} {name} {change.what}") + (" (dry run)" if dry_run else "")
