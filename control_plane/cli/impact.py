"""Who gains and who loses what, told before it happens; and the question whether it shall.

A change is made in two calls: a dry run, whose answer is shown, and the change itself, which the control plane refuses
if somebody changed resources in between: what was shown would no longer be what happens.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

import click

from control_plane.cli.output import note, printable
from control_plane.cli.verb import CliError
from protos.hauberk.v1 import config_pb2

NOBODY = "nobody gains or loses anything"
CALLERS_MAX = 10
"""Named in one line."""


def check_options(*, dry_run: bool, confirm: bool, wait: bool) -> None:
    """Raises UsageError for what makes no sense together."""
    for given, name in ((wait, "--wait for"), (confirm, "--confirm")):
        if dry_run and given:
            raise click.UsageError(f"--dry-run changes nothing, so there is nothing to {name}; leave one of them out")


def report(found: config_pb2.Impact) -> None:
    """On standard error, one line for each change of rights, losses first and, on a terminal, in red."""
    red = None if os.environ.get("NO_COLOR") else "red"
    for gains, line in lines(found):
        click.secho(printable(line), fg=None if gains else red, err=True)
    if found.left_off_count:
        count = found.left_off_count
        more = "1 more change of rights was" if count == 1 else f"{count} more changes of rights were"
        note(f"{more} left off, or not looked into for lack of time")
    elif not found.lines:
        note(NOBODY)


def lines(found: config_pb2.Impact) -> Iterable[tuple[bool, str]]:
    """(whether they gain, "web, admin of shop lose ..."): callers to whom the same happens are in one line."""
    callers: dict[tuple[bool, bool, str, str, str, str], list[str]] = {}
    for one in found.lines:
        key = (one.gains, one.shadow, one.to_service, one.what, one.before, one.after)
        callers.setdefault(key, []).append(one.from_identity)
    for (gains, shadow, service, what, before, after), identities in callers.items():
        verb = "gains" if gains else "loses"
        names = [_short(one) for one in sorted(identities, key=_workloads_first)]
        told = ", ".join(names[:CALLERS_MAX]) + (f" and {len(names) - CALLERS_MAX} more" if names[CALLERS_MAX:] else "")
        line = f"{verb}: {told} -> {service}: {what} ({before} -> {after})"
        yield gains, f"in shadow, {line}" if shadow else line


def ask(confirm: bool) -> None:
    """Raises CliError unless the answer is yes."""
    if confirm and not click.confirm("Do it?", default=False, err=True):
        raise CliError("nothing was changed")


def make_real(
    request: config_pb2.ApplyRequest | config_pb2.DeleteRequest | config_pb2.RollbackRequest,
    base_version: int,
    wait: bool,
    timeout_s: float,
) -> None:
    """The dry run's request, for the change that was shown."""
    request.dry_run = False
    request.skip_impact = True
    request.base_version = base_version
    request.wait = wait
    request.wait_timeout_s = timeout_s if wait else 0.0


def _workloads_first(identity: str) -> tuple[bool, str]:
    return not identity.startswith("spiffe://"), identity


def _short(identity: str) -> str:
    """`shop/web` for spiffe://mesh.local/ns/shop/sa/web: all callers are of one mesh."""
    parts = identity.split("/")
    if identity.startswith("spiffe://") and len(parts) == 7 and (parts[3], parts[5]) == ("ns", "sa"):
        return f"{parts[4]}/{parts[6]}"
    return identity
