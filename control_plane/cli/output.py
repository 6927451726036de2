"""Tables for people, JSON and YAML for programs.

What is shown may come from a sidecar that is not friendly (the reason of a NACK, say), so no control character reaches
a terminal: `printable` shows them as escapes. Colours only on a terminal and without NO_COLOR.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from google.protobuf.message import Message
    from rich.console import Console
    from rich.table import Table

WIDE = 10_000
"""Columns when it is not a terminal: programs that read lines want them whole."""

GAP = "  "
LAST_MIN = 24
"""Columns to which the last cell of a line is folded at most."""

Plain = dict[str, Any]
"""What JSON and YAML can hold."""


def printable(text: str) -> str:
    """`text` with everything a terminal would act on shown as an escape. Newlines stay."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() or char == "\n" else ascii(char)[1:-1] for char in text)


def note(text: str) -> None:
    """For people, on standard error, so that standard output holds the answer and nothing else."""
    click.echo(text, err=True)


def console() -> Console:
    from rich.console import Console

    plain = Console(highlight=False, markup=False, emoji=False)
    return plain if plain.is_terminal else Console(highlight=False, markup=False, emoji=False, width=WIDE)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Left-aligned columns without lines, as `ls` and `ps` do it.

    On a terminal that is too narrow the last column is folded; where that does not help lines are left to the terminal,
    since cells of a few characters can neither be read nor copied."""
    from rich.table import Table
    from rich.text import Text

    out, rows = console(), [list(map(printable, row)) for row in rows]
    widths = [max(map(len, column), default=0) + len(GAP) for column in zip(columns, *rows, strict=True)]
    if out.is_terminal and sum(widths[:-1]) + min(widths[-1], LAST_MIN) > out.width:
        out.width = WIDE
    table = Table(box=None, pad_edge=False, padding=(0, len(GAP), 0, 0), header_style="bold", show_edge=False)
    for place, column in enumerate(columns, 1):
        table.add_column(Text(column), overflow="fold", no_wrap=place < len(columns) or not out.is_terminal)
    for row in rows:
        table.add_row(*map(Text, row))
    _print(out, table)


def print_pairs(pairs: Iterable[tuple[str, str]]) -> None:
    """One `name  value` a line."""
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2, 0, 0))
    for name, value in pairs:
        table.add_row(Text(name, style="bold"), Text(printable(value)))
    _print(console(), table)


def _print(out: Console, table: Table) -> None:
    """Without the spaces that rich pads lines with."""
    with out.capture() as captured:
        out.print(table)
    click.echo("\n".join(line.rstrip() for line in captured.get().splitlines()))


def print_data(data: Any, output: str) -> None:
    """`data` as JSON or YAML; in ASCII if it holds what a terminal would act on, which neither escapes all of."""
    is_printable = json.dumps(data, ensure_ascii=False).isprintable()
    if output == "json":
        click.echo(json.dumps(data, indent=2, ensure_ascii=not is_printable, allow_nan=False))
    else:
        import yaml

        click.echo(yaml.safe_dump(data, sort_keys=False, allow_unicode=is_printable), nl=False)


def plain(message: Message) -> Plain:
    """A protobuf message as plain data: every field by its name in the .proto, numbers as numbers."""
    return {field.name: _plain_field(getattr(message, field.name)) for field in message.DESCRIPTOR.fields}


def _plain_field(value: Any) -> Any:
    from google.protobuf.message import Message

    if isinstance(value, Message):
        return plain(value)
    if isinstance(value, Mapping):
        return {str(key): _plain_field(item) for key, item in sorted(value.items())}
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str | bool | int):
        return value
    return [_plain_field(item) for item in value]


def clock(unix_s: float) -> str:
    """A point in time, to the second, in UTC; "-" for none."""
    if not unix_s or not math.isfinite(unix_s):
        return "-"
    try:
        return datetime.fromtimestamp(unix_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (OverflowError, ValueError, OSError):
        return "-"


def span(seconds: float) -> str:
    """How long, to two units: "58m", "1h 30m", "2d 4h", "-3s"."""
    if not math.isfinite(seconds):
        return "-"
    sign, rest = ("-" if seconds <= -0.5 else ""), round(abs(seconds))
    parts = []
    for unit, size in (("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)):
        count, rest = divmod(rest, size)
        if count:
            parts.append(f"{count}{unit}")
    return sign + (" ".join(parts[:2]) or "0s")


def until(unix_s: float, now: float) -> str:
    """When, seen from now: "in 58m", "3s ago"; "-" for never set."""
    if not unix_s:
        return "-"
    return f"in {span(unix_s - now)}" if unix_s >= now else f"{span(now - unix_s)} ago"
