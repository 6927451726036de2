"""`hauberk policy history`: every change of resources, and what was in force at a version."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from control_plane.cli.options import Version, output_option, reaches_control_plane
from control_plane.cli.verb import Verb

if TYPE_CHECKING:
    from protos.hauberk.v1 import config_pb2

CHANGES_SHOWN_MAX = 3


@click.command(
    "history",
    cls=Verb,
    short_help="Who changed what, and when.",
    examples=(
        "hauberk policy history",
        "hauberk policy history 57",
        "hauberk policy history 57 -o yaml > as-it-was.yaml",
        "hauberk policy history --count 500 -o json",
    ),
)
@click.argument("version", type=Version(), required=False)
@click.option(
    "--count", type=click.IntRange(1, 1_000), default=20, show_default=True, help="How many changes, newest first."
)
@click.option("--before", type=Version(), metavar="VERSION", help="Only changes older than this one.")
@output_option()
@reaches_control_plane
def history(version: int | None, *, count: int, before: int | None, output: str, socket: Path) -> None:
    """List changes of resources, or show all that was in force at a VERSION.

    A VERSION between two changes shows what the earlier one left. With -o yaml the documents of a version are printed
    as they were applied, so that they can be applied again.
    """
    from control_plane.cli import get
    from control_plane.cli.client import Client
    from control_plane.cli.output import plain, print_data
    from protos.hauberk.v1 import config_pb2

    if version is not None and before is not None:
        raise click.UsageError("--before is for the list of changes; leave it or VERSION out")
    request = config_pb2.HistoryRequest(count_max=count, version=version or 0, before=before or 0)
    with Client(socket) as control_plane:
        entries = control_plane.call("Config/History", request, config_pb2.HistoryResponse).entries
    if version is None and output != "table":
        print_data([_listed(plain(entry)) for entry in entries], output)
    elif version is None:
        show(entries)
    elif output == "json":
        print_data([plain(entry) for entry in entries], output)
    elif output == "yaml":
        get.show([one for entry in entries for one in entry.resources], "yaml")
    else:
        show(entries)
        click.echo()
        get.show([one for entry in entries for one in entry.resources], "table")


def _listed(entry: dict[str, object]) -> dict[str, object]:
    """Without the documents, which a list does not have."""
    entry.pop("resources")
    return entry


def show(entries: Sequence[config_pb2.HistoryEntry]) -> None:
    """One line each."""
    from control_plane.cli.output import clock, note, print_table

    if not entries:
        note("nothing was ever applied; `hauberk apply -f FILE` adds resources")
        return
    rows = [[str(one.version), clock(one.at), one.by or "-", one.what or "-", _changes(one)] for one in entries]
    print_table(["VERSION", "AT", "BY", "WHAT", "CHANGES"], rows)


def _changes(entry: config_pb2.HistoryEntry) -> str:
    told = [
        f"{one.what} {one.kind} {one.namespace}/{one.name}" if one.namespace else f"{one.what} {one.kind} {one.name}"
        for one in entry.changes[:CHANGES_SHOWN_MAX]
    ]
    more = len(entry.changes) - CHANGES_SHOWN_MAX
    return ", ".join(told) + (f" and {more} more" if more > 0 else "") or "-"
