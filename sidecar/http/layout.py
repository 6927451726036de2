"""Where in a field section is what: judged once for each sequence of names, and remembered.

A client sends the same names in the same order again and again; only values change. So everything that names alone
decide (are they legal, are pseudo-header fields first and there once, what is refused, what is dropped, where is what
means something to us) is decided once, and written down as positions: a `Layout`. Values are judged each time, and no
value is ever kept here. What is remembered is bounded in number and size and thrown away when full, so a flood of
different names costs what judging them costs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import itemgetter
from typing import Final

from sidecar.config import Limits
from sidecar.errors import RequestError
from sidecar.http.fields import FIELD_OVERHEAD_OCTETS, Fault, check_names, check_values, is_identity, too_large
from sidecar.http.session import Field, Fields

LAYOUTS_MAX = 256
"""Of each kind of message."""
NAMES_OCTETS_MAX = 1_024
NAMES_MAX = 48
"""What is longer is judged anew each time."""

Names = tuple[bytes, ...]

# What a name means to us.
DROP: Final = 1
REFUSE: Final = 2
HOST: Final = 3
LENGTH: Final = 4
COOKIE: Final = 5
TE: Final = 6
TYPE: Final = 7
TRACEPARENT: Final = 8


_NOT_SPECIAL = (DROP, TRACEPARENT)


class Layout:
    """Positions in a field section of certain names. -1: not there."""

    # fmt: off
    __slots__ = (
        "authority", "fields_count", "kept", "method", "octets", "path", "pseudo_count", "scheme", "special",
        "traceparent",
    )
    # fmt: on

    def __init__(
        self, names: Names, pseudo_count: int, rules: Mapping[bytes, int], is_ours: Callable[[bytes], bool]
    ) -> None:
        """`names` are legal and the first `pseudo_count` are different pseudo-header fields."""
        at = {name: position for position, name in enumerate(names[:pseudo_count])}
        self.method, self.scheme = at.get(b":method", -1), at.get(b":scheme", -1)
        self.authority, self.path = at.get(b":authority", -1), at.get(b":path", -1)
        self.pseudo_count = pseudo_count
        self.fields_count = len(names) - pseudo_count
        self.octets = sum(map(len, names)) + FIELD_OVERHEAD_OCTETS * len(names)
        """Of the whole section but for the values."""
        regular = range(pseudo_count, len(names))
        traces = [p for p in regular if rules.get(names[p]) == TRACEPARENT]
        self.traceparent = traces[0] if len(traces) == 1 else -1  # W3C Trace Context section 3.2.1: two are none
        self.special = tuple((rules[names[p]], p) for p in regular if rules.get(names[p], DROP) not in _NOT_SPECIAL)
        """(meaning, position) of what else has a meaning to us and is not just dropped."""
        self.kept = _taker([p for p in regular if names[p] not in rules and not is_ours(names[p])])
        """From the section, the fields that cross as they are."""


def _taker(positions: Sequence[int]) -> Callable[[Fields], Iterable[Field]]:
    if not positions:
        return itemgetter(slice(0, 0))
    if positions[-1] - positions[0] == len(positions) - 1:  # side by side: one slice
        return itemgetter(slice(positions[0], positions[-1] + 1))
    return itemgetter(*positions)


class Layouts:
    """The layouts of one kind of message: `rules` say what names mean, and what `is_ours` says is ours is dropped.

    `judge` says how many pseudo-header fields lead these names, or raises."""

    def __init__(
        self,
        rules: Mapping[bytes, int],
        judge: Callable[[Names, Fault], int],
        is_ours: Callable[[bytes], bool] = is_identity,
    ) -> None:
        self._rules = rules
        self._judge = judge
        self._is_ours = is_ours
        self._known: dict[Names, Layout] = {}

    def __len__(self) -> int:
        return len(self._known)

    def read(self, fields: Fields, limits: Limits, fault: Fault) -> tuple[Layout, Sequence[bytes]]:
        """The layout and the values of a field section; all that is judged of every section is then judged.

        Counts and sizes are those received, with cookie crumbs single (rows A21, B38, B39). Values of pseudo-header
        fields are left to whoever knows them. Raises HeadersTooLarge (or UpstreamFailed when the fault is the
        upstream's) and `fault`."""
        if not fields:
            return self._lay_out((), fault), ()
        if len(fields) > limits.header_fields_max + 4:  # however many are pseudo-header fields
            raise too_large("too many fields", "B38", fault)
        names, values = zip(*fields, strict=True)
        layout = self._known.get(names)
        if layout is None:
            layout = self._lay_out(names, fault)
        if layout.fields_count > limits.header_fields_max:
            raise too_large("too many fields", "B38", fault)
        joined = b"".join(values)
        if layout.octets + len(joined) > limits.header_list_octets_max:
            raise too_large("fields are too large", "B39", fault)
        check_values(values, joined, layout.pseudo_count, fault)
        return layout, values

    def _lay_out(self, names: Names, fault: Fault) -> Layout:
        pseudo_count = self._judge(names, fault)
        check_names(names, pseudo_count, fault)
        layout = Layout(names, pseudo_count, self._rules, self._is_ours)
        if len(names) <= NAMES_MAX and layout.octets - FIELD_OVERHEAD_OCTETS * len(names) <= NAMES_OCTETS_MAX:
            if len(self._known) >= LAYOUTS_MAX:
                self._known.clear()
            self._known[names] = layout
        return layout


def refuse_connection_fields(names: Names, rules: Mapping[bytes, int], error: Callable[[], RequestError]) -> None:
    """RFC 9113 section 8.2.2. HTTP/1.1 sessions have taken their own out before."""
    for name in names:
        if rules.get(name) == REFUSE:
            raise error()
