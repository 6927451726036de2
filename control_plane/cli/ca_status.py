"""`hauberk ca status`: the authorities in plain words, and what happens next."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from control_plane.cli.options import output_option, reaches_control_plane
from control_plane.cli.verb import Verb

if TYPE_CHECKING:
    from protos.hauberk.v1 import admin_pb2

ID_SHOWN = 8
NAMED_MAX = 5
HOW_INSTALLED = ": `hauberk ca prepare intermediate --csr FILE`, have it signed, `hauberk ca install FILE`"
_LEVELS = ("root", "intermediate", "jwt")
_PHASES = ("active", "prepared", "requested", "old", "tainted", "revoked")
_MEANS = {
    "requested": "waits for its certificate from the offline root",
    "prepared": "published, signs nothing yet",
    "active": "signs",
    "old": "signed once, is still trusted",
    "tainted": "is being left: whoever holds something under it renews at once",
    "revoked": "trusted by nobody",
}


@click.command(
    "status",
    cls=Verb,
    short_help="Show the authorities and what happens next.",
    examples=("hauberk ca status", "hauberk ca status --all", "hauberk ca status -o json | jq '.next_steps'"),
)
@click.option("--all", "show_all", is_flag=True, help="Those that are trusted no more, too.")
@output_option()
@reaches_control_plane
def status(*, show_all: bool, output: str, socket: Path) -> None:
    """Show every authority: its level and phase, until when it is good, and how many live certificates stand under it.

    Below that: what the control plane will do by itself, when, and what it waits for. What somebody should look at
    goes to standard error. Other verbs take an ID or any unique beginning of one.
    """
    from control_plane.cli.client import Client
    from control_plane.cli.output import plain, print_data
    from protos.hauberk.v1 import admin_pb2

    with Client(socket) as control_plane:
        answer = control_plane.call("Admin/CaStatus", admin_pb2.CaStatusRequest(), admin_pb2.CaStatusResponse)
    if output == "table":
        show(answer, show_all=show_all)
    else:
        print_data(plain(answer), output)


def show(answer: admin_pb2.CaStatusResponse, *, show_all: bool) -> None:
    """The table, the next steps, the alarms."""
    from control_plane.cli.output import clock, print_table, printable, until

    shown = [one for one in answer.authorities if show_all or one.phase != "revoked"]
    shown.sort(key=lambda one: (_place(_LEVELS, one.level), _place(_PHASES, one.phase), -one.prepared_at))
    length = id_length([one.authority_id for one in answer.authorities])
    rows = [
        [
            one.level,
            one.phase,
            one.authority_id[:length],
            f"{clock(one.not_after)} ({until(one.not_after, answer.server_time)})" if one.not_after else "-",
            str(one.live_certificates) if one.level != "jwt" else "-",
            _MEANS.get(one.phase, "")
            + ("" if one.has_key or one.phase == "revoked" else "; its key is kept elsewhere"),
        ]
        for one in shown
    ]
    if rows:
        print_table(["LEVEL", "PHASE", "ID", "GOOD UNTIL", "LIVE", "MEANING"], rows)
    else:
        click.echo("there is no authority yet")
    hidden = len(answer.authorities) - len(shown)
    if hidden:
        click.echo(f"and {hidden} that nobody trusts any more; --all shows them")
    click.echo()
    for step in sorted(answer.next_steps, key=lambda one: one.not_before):
        click.echo(printable(sentence(step, answer.server_time, length)))
    for line in answer.alarms:
        click.secho(printable(line).replace("\n", " "), fg="yellow", err=True)


def sentence(step: admin_pb2.CaNextStep, now: float, length: int) -> str:
    """What will be done, when, and what it waits for, and how long."""
    from control_plane.cli.output import clock, until

    which = f"the {step.level} {step.authority_id[:length]}" if step.authority_id else f"a new {step.level}"
    verbs = {
        "prepare": f"{which} is made",
        "install": f"{which} is installed",
        "activate": f"{which} is activated",
        "retire": f"{which} is dropped",
    }
    what = verbs.get(step.step, f"{step.step} {which}")
    when = f"at {clock(step.not_before)} ({until(step.not_before, now)})" if step.not_before > now else "now"
    if not step.waits_for:
        return f"next: {what} {when}"
    names = ", ".join(step.waits_for[:NAMED_MAX])
    more = f" and {len(step.waits_for) - NAMED_MAX} more" if len(step.waits_for) > NAMED_MAX else ""
    how = HOW_INSTALLED if step.step == "install" else ""
    no_longer = f", until {clock(step.waits_until)} ({until(step.waits_until, now)})" if step.waits_until else ""
    when = when if step.not_before > now else "as soon as it can be"
    return f"next: {what} {when}; it waits for {names}{more}{no_longer}{how}"


def id_length(ids: list[str]) -> int:
    """As many digits as make every id another."""
    for length in range(ID_SHOWN, 32):
        if len({one[:length] for one in ids}) == len(set(ids)):
            return length
    return 32


def _place(order: tuple[str, ...], word: str) -> int:
    return order.index(word) if word in order else len(order)
