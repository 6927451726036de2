"""`hauberk policy diff`: which calls of an access log would be decided otherwise?"""

from __future__ import annotations

import sys
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from control_plane.cli.options import Duration, reaches_control_plane
from control_plane.cli.verb import CliError, Verb

if TYPE_CHECKING:
    from control_plane.cli.policy_sources import Side
    from control_plane.policy.rehearse.mesh import PaperMesh
    from control_plane.policy.rehearse.records import LogReader
    from control_plane.policy.rehearse.replay import Group, Replay, Verdict

STDIN = "-"
LIVE = "@live"
QUIET_S = 1.0
"""How long it may take without a word."""
PROGRESS_LINES = 20_000
TABLE_GROUPS_MAX = 200


class Since(click.ParamType[float]):
    """`24h`: so long ago. `2026-11-01T00:00:00Z`: then. Unix seconds."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        text = str(value)
        if "T" in text:
            try:
                found = datetime.fromisoformat(text)
            except ValueError:
                found = None
            if found is None or found.tzinfo is None:
                self.fail(f"{text!r} is not a time; write 2026-11-01T00:00:00Z, or how long ago: 24h", param, ctx)
            return found.timestamp()
        return time.time() - Duration().convert(text, param, ctx)


@click.command(
    "diff",
    cls=Verb,
    short_help="Judge recorded calls by other policies.",
    examples=(
        "hauberk policy diff @live policies/ --replay access.log",
        "hauberk policy diff old/ new/ --replay access.log.gz --since 24h --check",
        "zcat access.log.*.gz | hauberk policy diff @41 @42 --replay -",
    ),
)
@click.argument("old")
@click.argument("new")
@click.option(
    "--replay",
    "logs",
    multiple=True,
    required=True,
    metavar="LOG",
    help="Access log of sidecars, plain or gzip, or - for standard input. May be given more than once.",
)
@click.option("--since", type=Since(), metavar="TIME", help="Leave out what ended before: 24h, 2026-11-01T00:00:00Z.")
@click.option(
    "--workloads",
    "workload_files",
    multiple=True,
    metavar="FILE",
    help="A PolicyTest that names the workloads with their labels, if no control plane is asked.",
)
@click.option("--check", is_flag=True, help="Exit with 1 if any call changes, or if it cannot be told of any.")
@click.option(
    "-o",
    "--output",
    type=click.Choice(["table", "json"]),
    default="table",
    show_default=True,
    help="How to print what changes.",
)
@reaches_control_plane
def diff(
    old: str, new: str, *, logs: tuple[str, ...], since: float | None, workload_files: tuple[str, ...], check: bool,
    output: str, socket: Path,
) -> int:  # fmt: skip
    """Say which recorded calls are decided otherwise by NEW than by OLD, and by which rules.

    OLD and NEW are a file or directory of policies, @live for what is applied now, or @VERSION for what was applied at
    a version. The log is the sidecars' access log (`access_log: all`). It holds neither headers nor tokens: a call
    whose verdict depends on them is told as one that cannot be told, and is never guessed.
    """
    from control_plane.policy.rehearse.records import LogReader

    sides = _sides(old, new, workload_files, socket)
    reader = LogReader(since=since)
    replay = _replay(sides, logs, reader)
    if output == "json":
        from control_plane.cli.output import print_data

        print_data(_plain(replay, reader), "json")
    else:
        _show(replay, reader)
    _notes(replay, reader)
    return 1 if check and (replay.changed_count or replay.untold_count) else 0


def _sides(old: str, new: str, workload_files: Sequence[str], socket: Path) -> tuple[Side, Side]:
    from dataclasses import replace

    from control_plane.cli import policy_sources as sources

    for named in (old, new):
        if named.startswith("@") and named != LIVE and not _is_number(named[1:]):
            raise click.UsageError(f"{named!r} is neither @live nor @VERSION; a file of that name is ./{named}")
    inventory = sources.inventory(socket) if any(one.startswith("@") for one in (old, new)) else None
    found = sources.live(inventory) if inventory is not None else None
    inhabitants = sources.workloads(workload_files) or (found.inhabitants if found is not None else ())
    trust_domain = found.trust_domain if found is not None else None

    def side(named: str) -> Side:
        if named == LIVE:
            assert found is not None
            return replace(found, inhabitants=inhabitants)
        if named.startswith("@"):
            resources = sources.version(int(named[1:]), socket)
        else:
            resources = tuple(sources.resources_of_sources(sources.read([named])))
        return sources.Side(resources=resources, inhabitants=inhabitants, trust_domain=trust_domain)

    return side(old), side(new)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and 0 < int(text[:20]) < 2**63


def _replay(sides: tuple[Side, Side], logs: Sequence[str], reader: LogReader) -> Replay:
    """The trust domain is known with the first record at the latest."""
    from control_plane.policy.rehearse.replay import Replay

    now = time.time()
    replay: Replay | None = None
    progress = _Progress()
    for name in logs:
        with _opened(name) as file:
            for record in reader.read(file, "<stdin>" if name == STDIN else name):
                if replay is None:
                    replay = Replay(*_meshes(sides, record.asked.destination, now))
                replay.add(record)
                if reader.lines % PROGRESS_LINES == 0:
                    progress.tell(lambda found=replay: f"{reader.lines} lines, {found.changed_count} calls change")  # type: ignore[misc]
    progress.end()
    return replay or Replay(*_meshes(sides, "", now))


def _meshes(sides: tuple[Side, Side], destination: str, now: float) -> tuple[PaperMesh, PaperMesh]:
    from certs.errors import CertsError
    from certs.spiffe_id import SpiffeId, TrustDomain
    from control_plane.policy.model import MeshConfigSpec
    from control_plane.policy.rehearse.expectations import TRUST_DOMAIN
    from control_plane.policy.rehearse.mesh import PaperMesh

    named = [one.trust_domain for one in sides if one.trust_domain is not None]
    for side in sides:
        specs = [one.spec for one in side.resources]
        named += [
            TrustDomain(name=one.trust_domain) for one in specs if isinstance(one, MeshConfigSpec) and one.trust_domain
        ]
    named += [one.spec.spiffe_id.trust_domain for one in sides[0].inhabitants]
    try:
        named.append(SpiffeId.parse(destination).trust_domain)
    except CertsError:
        named.append(TrustDomain(name=TRUST_DOMAIN))
    before, after = (PaperMesh(side.resources, side.inhabitants, named[0], now) for side in sides)
    return before, after


@contextmanager
def _opened(name: str) -> Iterator[BinaryIO]:
    """Raises CliError, also for what goes wrong while it is read."""
    try:
        if name == STDIN:
            yield sys.stdin.buffer
        else:
            with open(name, "rb") as file:
                yield file
    except EOFError:
        raise CliError(f"{name}: the gzip file is cut off; take a whole one") from None
    except zlib.error as error:
        raise CliError(f"{name}: is no sound gzip file ({error}); unpack it yourself to see how far it goes") from None
    except OSError as error:
        raise CliError(f"{name}: cannot be read ({error.strerror or error}); check the path and its mode") from None


class _Progress:
    """One line on standard error that is written over, if that is a terminal and it takes longer than QUIET_S."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._is_on = sys.stderr.isatty()
        self._next = clock() + QUIET_S
        self._has_told = False

    def tell(self, text: Callable[[], str]) -> None:
        if self._is_on and self._clock() >= self._next:
            self._has_told = True
            self._next = self._clock() + QUIET_S / 2
            click.echo(f"\r{text()}\x1b[K", err=True, nl=False)

    def end(self) -> None:
        if self._has_told:
            click.echo("\r\x1b[K", err=True, nl=False)


def _show(replay: Replay, reader: LogReader) -> None:
    from control_plane.cli.output import print_table
    from control_plane.policy.rehearse.replay import ordered

    click.echo(
        f"{replay.calls} calls: {replay.changed_count} change, {replay.untold_count} cannot be told,"
        f" {replay.calls - replay.changed_count - replay.untold_count} stay as they are"
    )
    changed, untold = ordered(replay.changed.values()), ordered(replay.untold.values())
    if changed:
        click.echo()
        print_table(
            ["CHANGE", "CALLS", "FROM", "TO", "REQUEST", "BEFORE", "AFTER", "FIRST", "LAST"],
            [
                [_change(one), str(one.count), one.caller, one.service, f"{one.method} {one.path}".strip(),
                 one.before.rule if one.before else "", one.after.rule if one.after else "",
                 one.first_seen, one.last_seen]
                for one in changed[:TABLE_GROUPS_MAX]
            ],
        )  # fmt: skip
    if untold:
        click.echo("\ncannot be told, because the log does not hold what policies ask for:")
        print_table(
            ["CALLS", "FROM", "TO", "REQUEST", "MISSING", "LINES"],
            [
                [str(one.count), one.caller, one.service, f"{one.method} {one.path}".strip(), ", ".join(one.missing),
                 ", ".join(map(str, one.lines))]
                for one in untold[:TABLE_GROUPS_MAX]
            ],
        )  # fmt: skip
    left = max(len(changed) - TABLE_GROUPS_MAX, 0) + max(len(untold) - TABLE_GROUPS_MAX, 0)
    if left:
        click.echo(f"\n{left} more rows; -o json has them all")


def _change(group: Group) -> str:
    if group.after is None:
        return "?"
    return "now allowed" if group.after.allowed else "now denied"


def _notes(replay: Replay, reader: LogReader) -> None:
    """What to know when reading it, on standard error."""
    from control_plane.cli.output import note, printable

    for line in reader.malformed_shown:
        note(printable(f"warning: {line}"))
    if reader.malformed > len(reader.malformed_shown):
        note(f"warning: {reader.malformed} lines were no lines of a log; the first are above")
    if not reader.calls:
        note("warning: no call was found; the log must hold `inbound` lines, which access_log: all writes")
    if replay.recorded_otherwise:
        note(
            f"note: OLD decides {replay.recorded_otherwise} calls otherwise than was recorded: it was not in force then"
        )
    if replay.guessed:
        names = ", ".join(sorted(replay.guessed)[:5]) + (", ..." if len(replay.guessed) > 5 else "")
        note(f"note: labels of {names} taken as those of a token without --label; name them with --workloads")
    if replay.left_off:
        note(f"warning: {replay.left_off} calls are counted but not listed: too many different ones")


def _plain(replay: Replay, reader: LogReader) -> dict[str, object]:
    from control_plane.policy.rehearse.replay import ordered

    return {
        "calls": replay.calls,
        "changed": replay.changed_count,
        "untold": replay.untold_count,
        "lines": reader.lines,
        "malformed": reader.malformed,
        "older": reader.older,
        "not_judged": reader.not_judged,
        "recorded_otherwise": replay.recorded_otherwise,
        "changes": [_plain_group(one) for one in ordered(replay.changed.values())],
        "cannot_be_told": [_plain_group(one) for one in ordered(replay.untold.values())],
    }


def _plain_group(one: Group) -> dict[str, object]:
    return {
        "from": one.caller,
        "to": one.service,
        "method": one.method,
        "path": one.path,
        "count": one.count,
        "before": _plain_verdict(one.before),
        "after": _plain_verdict(one.after),
        "missing": list(one.missing),
        "first_seen": one.first_seen,
        "last_seen": one.last_seen,
        "lines": one.lines,
    }


def _plain_verdict(verdict: Verdict | None) -> dict[str, str] | None:
    return None if verdict is None else {"verdict": "allow" if verdict.allowed else "deny", "rule": verdict.rule}
