"""`hauberk audit`: is the record of what was done whole, hand it to other systems, go on after it was lost."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

from control_plane.cli.options import data_dir_option, output_option
from control_plane.cli.verb import CliError, Verb, Verbs

if TYPE_CHECKING:
    from control_plane.audit.verify import Report


FORMS = ("jsonl", "rfc5424", "ocsf")
_OTHERS = ("json", "yaml", "table", "syslog")
"""What -o takes elsewhere."""


class Moment(click.ParamType[float]):
    """`2026-11-23`, `2026-11-23T07:30:00Z` or Unix seconds: as Unix seconds. Without a zone it is UTC."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        try:
            return float(value)
        except ValueError:
            pass
        try:
            at = datetime.fromisoformat(str(value))
        except ValueError:
            self.fail(f"{value!r} is not a time; write it as 2026-11-23T07:30:00Z", param, ctx)
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()


@click.group(
    "audit",
    cls=Verbs,
    short_help="Look at the record of what was done.",
    examples=("hauberk audit verify", "hauberk audit export --format ocsf --since 2026-11-23 -o audit.ocsf.jsonl"),
)
def audit() -> None:
    """Look at the record of every change, issuance and refused call."""


@audit.command(
    "verify",
    cls=Verb,
    short_help="Is the audit file as it was written?",
    examples=(
        "hauberk audit verify --data-dir /var/lib/hauberk",
        "hauberk audit verify audit-000000000001-000000054321.jsonl audit.jsonl --key-file audit-key.txt",
    ),
)
@click.argument("files", nargs=-1, type=click.Path(path_type=Path), metavar="[FILE]...")
@click.option(
    "--key-file", type=click.Path(path_type=Path), metavar="FILE",
    help="The public key that signed, as --show-key prints it.  [default: the store's]",
)  # fmt: skip
@click.option("--show-key", is_flag=True, help="Print the store's public key and stop; keep it somewhere else.")
@output_option()
@data_dir_option
def verify(*, files: tuple[Path, ...], key_file: Path | None, show_key: bool, output: str, data_dir: Path) -> int:
    """Follow the chain of hashes, check the signed checkpoints, and compare with what the store holds.

    Without FILE: the whole chain of the data directory, while the control plane runs or not. FILEs, oldest first, are
    checked by themselves, against the key given or the one they name. Ends with 1 and the first broken line if there
    is one.
    """
    from control_plane.audit import verify as checking
    from control_plane.errors import ControlPlaneError

    data_dir = data_dir.expanduser().absolute()
    try:
        facts = None if files else checking.store_facts(data_dir)
        if show_key:
            click.echo(_public_text(facts or checking.store_facts(data_dir)))
            return 0
        key = facts.public_key if facts is not None else None
        if key_file is not None:
            key = checking.read_public(key_file.read_text("ascii").strip())
            if key is None:
                raise CliError(f"{key_file}: is no public key; write what `hauberk audit verify --show-key` prints")
        paths = files or tuple(checking.files_of(data_dir))
        stored = facts.head if facts is not None else None
        report = checking.verify(paths, key=key, stored=stored, must_be_signed=key_file is not None)
    except ControlPlaneError as error:
        raise CliError(str(error)) from None
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text"
        path = getattr(error, "filename", None) or key_file
        raise CliError(f"{path}: cannot be read ({why}); give the audit files, oldest first, or --data-dir") from None
    _tell(report, output, way_out=str(data_dir) if not files else None)
    return 1 if report.problem else 0


def _public_text(facts: Any) -> str:
    from control_plane.audit.checkpoint import public_text

    if facts.public_key is None:
        raise CliError("the store has no audit key yet; it is made when the control plane starts")
    return public_text(facts.public_key)


def _tell(report: Report, output: str, *, way_out: str | None) -> None:
    from control_plane.cli.output import clock, note, print_data, print_pairs, printable

    first, last, signed = report.first, report.last, report.checkpoint
    if output != "table":
        told = {
            "whole": report.problem is None,
            "records": report.records,
            "first": first.seq if first else 0,
            "last": last.seq if last else 0,
            "last_sha256": last.sha256 if last else "",
            "checkpoint": signed.seq if signed else 0,
            "keys": report.key_ids,
            "problem": str(report.problem or ""),
            "notes": report.notes,
        }
        print_data(told, output)
        return
    pairs = [("records", f"{report.records}")]
    if first is not None and last is not None:
        pairs.append(("from", f"{first.seq}, {clock(first.at)}"))
        pairs.append(("to", f"{last.seq}, {clock(last.at)}, sha256 {last.sha256}"))
    pairs.append(("signed up to", f"{signed.seq}, {clock(signed.at)}" if signed else "nothing is"))
    pairs += [("key", one) for one in report.key_ids]
    print_pairs(pairs)
    for one in report.notes:
        note(f"note: {printable(one)}")
    if report.problem is None:
        click.echo("the chain is whole")
        return
    note(f"hauberk: the chain is broken: {printable(str(report.problem))}")
    if way_out is not None:
        note(
            f"put the file back from where it is kept, or go on without what is lost, on record: hauberk audit restart"
            f" --data-dir {way_out} --reason TEXT"
        )


@audit.command(
    "export",
    cls=Verb,
    short_help="Records as JSON lines, syslog or OCSF.",
    examples=(
        "hauberk audit export --format rfc5424 --since 2026-11-23 | nc -U /run/syslog.sock",
        "hauberk audit export --format ocsf -o audit.ocsf.jsonl",
    ),
)
@click.option("--format", "form", type=click.Choice(FORMS), default="jsonl", show_default=True,
              help="jsonl: the lines as they are; rfc5424: syslog; ocsf: events of OCSF 1.2.0.")  # fmt: skip
@click.option("--since", type=Moment(), metavar="TIME", help="Not what is older.")
@click.option("--until", type=Moment(), metavar="TIME", help="Not what is newer.")
@click.option("-o", "--output", "out", type=click.Path(path_type=Path), metavar="FILE",
              help="A new file, mode 0600.  [default: standard output]")  # fmt: skip
@data_dir_option
def export(*, form: str, since: float | None, until: float | None, out: Path | None, data_dir: Path) -> int:
    """Write the records of a data directory, oldest first, one a line.

    Stops with 1 at the first line that is broken; what is before it is written.
    """
    from control_plane.audit.verify import files_of

    data_dir = data_dir.expanduser().absolute()
    if out is not None and out.name in (*FORMS, *_OTHERS):
        raise click.UsageError(f"-o names the file to write; what is written is said by --format {'|'.join(FORMS)}")
    stream: IO[str] = sys.stdout
    try:
        if out is not None:
            stream = _new_file(out)
    except FileExistsError:
        raise CliError(f"{out}: exists already and is left as it is; remove it or choose another -o") from None
    except OSError as error:
        raise CliError(f"{out}: cannot be written ({error.strerror})") from None
    try:
        for line in _lines(files_of(data_dir), form, since, until):
            stream.write(line + "\n")
        stream.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise CliError(f"{error.filename or out}: {error.strerror}; check --data-dir") from None
    finally:
        if out is not None:
            stream.close()
    return 0


def _new_file(path: Path) -> IO[str]:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.fdopen(os.open(path, flags, 0o600), "w", encoding="ascii")


def _lines(paths: Sequence[Path], form: str, since: float | None, until: float | None) -> Iterator[str]:
    """Raises CliError at a broken line, OSError."""
    from control_plane.audit.chain import walk
    from control_plane.audit.export import FORMATS

    write, release = FORMATS[form], metadata.version("hauberk")
    for path in paths:
        octets = path.read_bytes()
        found = walk(octets)
        lines = {one.sha256: one for one in found.records}
        for line in octets[: found.end].split(b"\n"):  # at nothing else: a carriage return may be within a record
            line += b"\n"
            record = lines.get(_sha256(line))
            if record is None:  # octets that a crash left, and a record says so
                continue
            if (since is None or record.at >= since) and (until is None or record.at <= until):
                yield write(record, line, release)
        if found.fault is not None:
            raise CliError(f"{path}:{found.fault.line}: {found.fault.why}; see: hauberk audit verify")


def _sha256(line: bytes) -> str:
    import hashlib

    return hashlib.sha256(line).hexdigest()


@audit.command(
    "restart",
    cls=Verb,
    short_help="Go on without what is lost.",
    examples=('hauberk audit restart --data-dir /var/lib/hauberk --reason "disk of the old machine is gone"',),
)
@click.option("--reason", required=True, metavar="TEXT", help="Goes into the first record of the new file.")
@data_dir_option
def restart(*, reason: str, data_dir: Path) -> int:
    """Begin a new audit file after the old one was cut, edited or lost; the control plane must be stopped.

    The damaged file is kept beside it. The new one continues from what the store knows, and says why.
    """
    from control_plane.app import STORE_NAME
    from control_plane.audit.restart import restart as begin_again
    from control_plane.errors import ControlPlaneError

    data_dir = data_dir.expanduser().absolute()
    try:
        aside = begin_again(data_dir, STORE_NAME, reason=reason, by="local operator", now=time.time())
    except ControlPlaneError as error:
        raise CliError(str(error)) from None
    except OSError as error:
        raise CliError(f"{error.filename}: {error.strerror}") from None
    click.echo(f"a new audit file goes on; the one before is kept as {aside}" if aside else "a new audit file goes on")
    return 0
