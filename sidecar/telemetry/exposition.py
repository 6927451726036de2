"""The Prometheus text format, version 0.0.4: families of samples in, text out.

Twenty lines of format instead of `prometheus_client`, which brings HTTP servers, `email` and `html` along: 3 MB of
resident memory in every sidecar. That library is the judge in the tests: its parser must read what is written here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

Kind = Literal["counter", "gauge", "histogram"]

_IN_HELP = str.maketrans({"\\": r"\\", "\n": r"\n"})
_IN_LABEL = str.maketrans({"\\": r"\\", "\n": r"\n", '"': r"\""})


class Family:
    """One metric: its name, what it is for, and its samples. A counter's name lacks `_total`, which is added here."""

    __slots__ = ("_head", "_labels", "_lines", "_name")

    def __init__(self, kind: Kind, name: str, help_text: str, labels: Sequence[str] = ()) -> None:
        self._name = f"{name}_total" if kind == "counter" else name
        self._labels = tuple(labels)
        self._head = f"# HELP {self._name} {help_text.translate(_IN_HELP)}\n# TYPE {self._name} {kind}\n"
        self._lines: list[str] = []

    def add(self, values: Sequence[str], number: float) -> Family:
        """One sample of a counter or a gauge; `values` are those of the labels, in their order."""
        self._line("", zip(self._labels, values, strict=True), number)
        return self

    def add_histogram(self, values: Sequence[str], buckets: Iterable[tuple[str, int]], total: float) -> Family:
        """`buckets`: upper bound, and how many were at most that; the last bound is "+Inf"."""
        named = list(zip(self._labels, values, strict=True))
        count = 0
        for bound, count in buckets:
            self._line("_bucket", [*named, ("le", bound)], count)
        self._line("_count", named, count)
        self._line("_sum", named, total)
        return self

    def text(self) -> str:
        """Comment lines first, then one line for each sample."""
        return self._head + "".join(self._lines)

    def _line(self, suffix: str, labels: Iterable[tuple[str, str]], number: float) -> None:
        inside = ",".join(f'{name}="{value.translate(_IN_LABEL)}"' for name, value in labels)
        self._lines.append(f"{self._name}{suffix}{{{inside}}} {number!r}\n" if inside else f"{self._name} {number!r}\n")


def exposition(families: Iterable[Family]) -> bytes:
    """All of them in UTF-8. A label's value that UTF-8 cannot write is written with "?" in its place."""
    return "".join(family.text() for family in families).encode("utf-8", "replace")
