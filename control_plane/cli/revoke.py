"""`hauberk revoke`, `hauberk reinstate`, `hauberk revocations`: rights taken away at once, given back, and listed."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from typing import TYPE_CHECKING

import click

from control_plane.cli.options import output_option, reaches_control_plane, wait_options
from control_plane.cli.verb import CliError, RefusedRequest, Verb

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from protos.hauberk.v1 import admin_pb2

KINDS = ("identity", "serial", "token")
ALARM = "alarm"
SCHEME = "spiffe://"
SHOWN_MAX = 5

_TOKEN_ID = re.compile(r"[0-9a-f]{16}")
_AS_IN_POLICIES = re.compile(r"[^/:]+/ns/[^/]+/sa/[^/]+")


@click.command(
    "revoke",
    cls=Verb,
    short_help="Take a workload's right to be in the mesh away, at once.",
    examples=(
        "hauberk revoke identity spiffe://mesh.local/ns/shop/sa/orders --reason stolen --wait",
        "hauberk revoke identity shop/orders",
        "hauberk revoke serial 7a3f0c2d51 --reason 'key found in a log'",
        "hauberk revoke token 00112233445566aa",
    ),
)
@click.argument("kind", type=click.Choice(KINDS))
@click.argument("value")
@click.option("--reason", default="", metavar="TEXT", help="Why; for `hauberk revocations` and the audit file.")
@wait_options
@output_option()
@reaches_control_plane
def revoke(*, kind: str, value: str, reason: str, wait: bool, timeout_s: float, output: str, socket: Path) -> None:
    """Take away what an identity, one certificate or a join token gave. It holds until it is reinstated.

    identity: every certificate of that SPIFFE ID (or NAMESPACE/SERVICE-ACCOUNT), those it has and those it would get.

    serial: one certificate, by its serial number in hexadecimal.

    token: what joined with it, by the id that `hauberk token create` told; a token that was not used yet is void.

    Open connections of whoever is hit end within seconds, everywhere in the mesh. An authority is revoked with
    `hauberk ca revoke`.
    """
    from control_plane.cli.client import CHANGE_TIMEOUT_S, Client
    from control_plane.cli.output import plain, print_data, printable
    from protos.hauberk.v1 import admin_pb2

    wait_s = max(timeout_s, 0.001) if wait else 0.0
    request = admin_pb2.RevokeRequest(kind=kind, value=_value(kind, value), reason=reason, wait_s=wait_s)
    with Client(socket) as control_plane, _as_typed():
        answer = control_plane.call(
            "Admin/Revoke", request, admin_pb2.RevokeResponse, timeout_s=CHANGE_TIMEOUT_S + wait_s
        )
    if output == "table":
        click.echo(printable(f"{kind} {request.value} {_done(kind, answer)}"))
    else:
        print_data(plain(answer), output)
    if wait:
        _report(answer, timeout_s)


@click.command(
    "reinstate",
    cls=Verb,
    short_help="Give back what was revoked.",
    examples=(
        "hauberk reinstate identity spiffe://mesh.local/ns/shop/sa/orders",
        "hauberk reinstate token 00112233445566aa",
        "hauberk reinstate alarm 5f0c6f9c7a4d4f6e9b1c2d3e4f506172",
    ),
)
@click.argument("kind", type=click.Choice((*KINDS, ALARM)))
@click.argument("value")
@output_option()
@reaches_control_plane
def reinstate(*, kind: str, value: str, output: str, socket: Path) -> None:
    """Take a revocation back. What it ended stays ended: sidecars come back by themselves.

    alarm: the alarm of a node, by its id, has been looked at; `hauberk status` does not show it any more.
    """
    from control_plane.cli.client import Client
    from control_plane.cli.output import plain, print_data, printable
    from protos.hauberk.v1 import admin_pb2

    request = admin_pb2.ReinstateRequest(kind=kind, value=_value(kind, value))
    with Client(socket) as control_plane, _as_typed():
        answer = control_plane.call("Admin/Reinstate", request, admin_pb2.ReinstateResponse)
    if output != "table":
        print_data(plain(answer), output)
        return
    was, done = (": there was none", " is cleared") if kind == ALARM else (" was not revoked", " is reinstated")
    click.echo(printable(f"{kind} {request.value}{done if answer.changed else was}"))


@click.command(
    "revocations",
    cls=Verb,
    short_help="List what is revoked.",
    examples=("hauberk revocations", "hauberk revocations -o json"),
)
@output_option()
@reaches_control_plane
def revocations(*, output: str, socket: Path) -> None:
    """List what operators revoked, oldest first: who did it, when, and why.

    The serial numbers that came of a revoked join token are in the list too, each with its reason.
    """
    from control_plane.cli.client import Client
    from control_plane.cli.output import plain, print_data
    from protos.hauberk.v1 import admin_pb2

    with Client(socket) as control_plane:
        found = control_plane.call(
            "Admin/ListRevocations", admin_pb2.ListRevocationsRequest(), admin_pb2.ListRevocationsResponse
        ).revocations
    if output == "table":
        show(found)
    else:
        print_data([plain(one) for one in found], output)


def show(found: Sequence[admin_pb2.Revocation]) -> None:
    """One line each."""
    from control_plane.cli.output import clock, note, print_table

    if not found:
        note("nothing is revoked")
        return
    rows = [[one.kind, one.value, clock(one.at), one.by or "-", one.reason or "-"] for one in found]
    print_table(["KIND", "VALUE", "AT", "BY", "REASON"], rows)


def _value(kind: str, value: str) -> str:
    """A SPIFFE ID may be written as policies have it, without its scheme; NAMESPACE/SERVICE-ACCOUNT is left to the
    control plane, which knows the trust domain. Raises UsageError, which says nothing of the
    value, for a join token in place of its id."""
    if kind == "token" and not _TOKEN_ID.fullmatch(value):
        raise click.UsageError(
            "VALUE is no id of a join token: it is the 16 hexadecimal digits that `hauberk token create` told, never"
            " the token itself",
            click.get_current_context(),
        )
    return SCHEME + value if kind == "identity" and _AS_IN_POLICIES.fullmatch(value) else value


@contextlib.contextmanager
def _as_typed() -> Iterator[None]:
    """What the control plane says of a field of the request is said of what was typed. Raises UsageError."""
    try:
        yield
    except RefusedRequest as refusal:
        field, _, what = refusal.message.partition(": ")
        said = {"value": what, "reason": f"--reason: {what}"}.get(field, refusal.message)
        raise click.UsageError(said, click.get_current_context()) from None


def _done(kind: str, answer: admin_pb2.RevokeResponse) -> str:
    if not answer.changed:
        return "was revoked already"
    count = len(answer.serials)
    if not count and kind == "serial":
        return "is revoked, but no certificate that is still good has that number: is it typed right?"
    if not count:
        return "is revoked, and with it no certificate: nobody holds one now"
    return f"is revoked, and with it {'1 certificate' if count == 1 else f'{count} certificates'}"


def _report(answer: admin_pb2.RevokeResponse, timeout_s: float) -> None:
    """How far it got, on standard error. Raises CliError unless every sidecar knows."""
    from control_plane.cli.output import note, printable

    if answer.pending:
        count = len(answer.pending)
        names = ", ".join(answer.pending[:SHOWN_MAX]) + (" ..." if count > SHOWN_MAX else "")
        raise CliError(
            printable(f"it is stored, but {_sidecars(count)} had not confirmed it after {timeout_s:g} s: {names};")
            + " see `hauberk status`"
        )
    note(f"{_sidecars(len(answer.acknowledged))} confirmed it")


def _sidecars(count: int) -> str:
    return "1 sidecar" if count == 1 else f"{count} sidecars"
