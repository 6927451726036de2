"""The attributes that rules look at, each cut into classes of values that no rule of either version tells apart."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from control_plane.policy.impact import witnesses
from control_plane.policy.impact.side import (
    AUDIENCES_AXIS,
    CALLER_AXES,
    DESTINATION_AXIS,
    HOST_AXIS,
    METHOD_AXIS,
    NONE,
    PATH_AXIS,
    PORT_AXIS,
    PRESENTER_AXIS,
    REMOTE_AXIS,
    SNI_AXIS,
    SOURCE_AXIS,
    TOKEN_AXIS,
    Bound,
    Side,
    Value,
)
from sidecar.rules.addresses import compile_blocks
from sidecar.rules.keys import Attribute, Key
from sidecar.rules.match import compile_matcher, compile_paths
from sidecar.rules.snapshot import PortTls

PATTERNS_MAX = 400
"""Of one axis; those of rules that did not change are left out first."""
PAIRS_MAX = 20
"""Values of a header or claim that are also tried beside another one."""
_ADDRESS_AXES = (SOURCE_AXIS, REMOTE_AXIS, DESTINATION_AXIS)
_SINGLE_AXES = (METHOD_AXIS, PATH_AXIS, PORT_AXIS, HOST_AXIS, SNI_AXIS, PRESENTER_AXIS, *_ADDRESS_AXES)
_TOKEN_AXES = (TOKEN_AXIS, AUDIENCES_AXIS, PRESENTER_AXIS)

Matches = Callable[[Value], bool]


@dataclass(frozen=True, slots=True)
class ValueClass:
    """Values that every rule treats alike."""

    value: Value
    """One of them; the witness."""
    patterns: tuple[str, ...]
    """Those whose own values these are."""
    is_other: bool
    """Holds what no pattern matches."""
    is_missing: bool
    """Holds "not there"."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    name: str
    key: Key | None
    """Of a header or a claim."""
    classes: tuple[ValueClass, ...]
    matches: Mapping[str, Matches]
    """Of each pattern."""
    own: Mapping[str, Value]
    """Of each pattern the value that fewest others match too."""
    bounds: frozenset[int]
    """ids of the conditions that took part in the cut."""
    signature: Callable[[Value], Hashable]
    """Equal for values that no rule tells apart."""
    by_signature: Mapping[Hashable, int]
    """Number of the class."""

    def number_of(self, value: Value) -> int:
        """The class a value belongs to. Raises KeyError for one that no witness stands for."""
        return self.by_signature[self.signature(value)]

    @property
    def is_of_token(self) -> bool:
        return self.name in _TOKEN_AXES or (self.key is not None and self.key.attribute is Attribute.CLAIM)

    def holding(self, bounds: Iterable[Bound]) -> tuple[int, ...]:
        """Numbers of the classes for which all these conditions hold."""
        asked = [bound for bound in bounds if id(bound) in self.bounds]
        return tuple(
            number for number, one in enumerate(self.classes) if all(bound.holds(one.value) for bound in asked)
        )


def build_axes(
    before: Side, after: Side, ports: Collection[int], hosts: Sequence[str], changed: frozenset[int], *, tcp: bool
) -> tuple[list[Axis], bool]:
    """All axes but the caller's, of HTTP requests or of opaque TCP exchanges. `changed`: ids of the conditions of rules
    that changed. False: one was cut roughly."""
    by_axis: defaultdict[str, list[Bound]] = defaultdict(list)
    for side in (before, after):
        for rule in side.rules:
            for alternative in rule.alternatives:
                for bound in alternative:
                    if not (tcp and bound.condition.is_http):
                        by_axis[bound.axis].append(bound)
    for name in CALLER_AXES:
        by_axis.pop(name, None)
    _add_silent(by_axis, before, after)
    whole = True
    axes: list[Axis] = []
    for name, bounds in by_axis.items():
        kept = _kept(bounds, changed)
        whole &= len(kept) == len(bounds)
        axes.append(_axis(name, kept, _Context(before, after, ports, hosts, tcp)))
    return axes, whole


def _add_silent(by_axis: defaultdict[str, list[Bound]], before: Side, after: Side) -> None:
    """Axes that matter though no rule names them."""
    _ = by_axis[PORT_AXIS]
    if any(port.peers for side in (before, after) for port in _port_tls(side)):
        _ = by_axis[SOURCE_AXIS]
    if any(name in _TOKEN_AXES or name.startswith(Attribute.CLAIM.value) for name in by_axis):
        _ = by_axis[TOKEN_AXIS]
        if any(_audiences(side) for side in (before, after)):
            _ = by_axis[AUDIENCES_AXIS]


def _kept(bounds: list[Bound], changed: frozenset[int]) -> list[Bound]:
    left = PATTERNS_MAX
    kept: list[Bound] = []
    for bound in sorted(bounds, key=lambda one: id(one) not in changed):
        left -= len(bound.condition.wanted)
        if left < 0:
            break
        kept.append(bound)
    return kept


@dataclass(frozen=True, slots=True)
class _Context:
    before: Side
    after: Side
    ports: Collection[int]
    hosts: Sequence[str]
    tcp: bool

    @property
    def sides(self) -> tuple[Side, Side]:
        return self.before, self.after


def _axis(name: str, bounds: Sequence[Bound], context: _Context) -> Axis:
    matches = dict(_patterns(name, bounds, context))
    pool = _pool(name, bounds, context)
    distinct = {
        (one.condition.wanted, one.condition.positive, one.condition.field, one.see, one.allow): one for one in bounds
    }
    extras = list(_extras(name, context))

    def signature(value: Value) -> Hashable:
        return (*(bound.holds(value) for bound in distinct.values()), *(extra(value) for extra in extras))

    by_signature: dict[Hashable, list[Value]] = {}
    for value in pool:
        by_signature.setdefault(signature(value), []).append(value)
    hits = {value: [label for label, matched in matches.items() if matched(value)] for value in pool}
    own: dict[str, Value] = {}
    for label in list(matches):
        mine = [value for value in pool if label in hits[value]]
        if mine:
            own[label] = min(mine, key=lambda value: (len(hits[value]), len(value)))
    labels: defaultdict[Value, list[str]] = defaultdict(list)
    for label, value in own.items():
        labels[value].append(label)
    classes: list[ValueClass] = []
    for values in by_signature.values():
        patterns = [label for value in values for label in labels[value]]
        if not patterns and all(map(hits.get, values)):  # where patterns meet and none has its own value
            label = " and ".join(hits[values[0]])
            tests = tuple(matches[one] for one in hits[values[0]])
            matches.setdefault(label, lambda value, tests=tests: all(test(value) for test in tests))  # type: ignore[misc]
            own.setdefault(label, values[0])
            patterns = [label]
        is_other = any(value and not hits[value] for value in values)
        classes.append(ValueClass(values[0], tuple(patterns), is_other, NONE in values))
    key = next((one.condition.attribute for one in bounds if isinstance(one.condition.attribute, Key)), None)
    if name in _SINGLE_AXES or name in _TOKEN_AXES:
        key = None
    return Axis(
        name=name,
        key=key,
        classes=tuple(classes),
        matches=matches,
        own=own,
        bounds=frozenset(map(id, bounds)),
        signature=signature,
        by_signature={held: number for number, held in enumerate(by_signature)},
    )


def _patterns(name: str, bounds: Iterable[Bound], context: _Context) -> Iterator[tuple[str, Matches]]:
    """(as people write it, what it matches)."""
    for bound in bounds:
        for wanted in bound.condition.wanted:
            if name == TOKEN_AXIS:
                yield _token_pattern(bound, wanted)
                continue
            test = _matcher(name, wanted)
            yield wanted, lambda value, test=test: any(map(test, value))  # type: ignore[misc]  # bound now
    if name == PORT_AXIS:
        for port in (*context.ports, *(port for side in context.sides for port in _tls_ports(side))):
            yield str(port), lambda value, port=port: value == (str(port),)  # type: ignore[misc]
    elif name == SOURCE_AXIS:
        for block in _peer_blocks(context):
            test = compile_blocks((block,))
            yield block, lambda value, test=test: any(map(test, value))  # type: ignore[misc]
    elif name == TOKEN_AXIS:
        for issuer in _issuers(context):
            yield f"{issuer}/*", lambda value, issuer=issuer: value[:1] == (issuer,)  # type: ignore[misc]
    elif name == AUDIENCES_AXIS:
        for audience in (one for side in context.sides for one in _audiences(side)):
            yield audience, lambda value, audience=audience: audience in value  # type: ignore[misc]


def _token_pattern(bound: Bound, wanted: str) -> tuple[str, Matches]:
    test = compile_matcher((wanted,))
    attribute = bound.condition.attribute
    if isinstance(attribute, Key) and attribute.attribute is Attribute.CLAIM:
        issuer = attribute.names == ("iss",)
        label = f"{wanted}/*" if issuer else f"*/{wanted}"
        return label, lambda value: bool(value) and test(value[0] if issuer else value[1])
    return wanted, lambda value: bool(value) and test("/".join(value))


def _matcher(name: str, pattern: str) -> Callable[[str], bool]:
    if name in _ADDRESS_AXES:
        return compile_blocks((pattern,))
    return compile_paths((pattern,)) if name == PATH_AXIS else compile_matcher((pattern,))


def _pool(name: str, bounds: Sequence[Bound], context: _Context) -> list[Value]:
    """Every value worth trying."""
    patterns = list(dict.fromkeys(wanted for bound in bounds for wanted in bound.condition.wanted))
    if name == PORT_AXIS:
        named = [*patterns, *(str(port) for side in context.sides for port in _tls_ports(side))]
        return [(text,) for text in witnesses.ports(() if context.tcp else named, context.ports)]
    if name in _ADDRESS_AXES:
        blocks = [*patterns, *(_peer_blocks(context) if name == SOURCE_AXIS else ())]
        found: list[Value] = [(text,) for text in witnesses.addresses(blocks)]
        return [*found, NONE] if name == REMOTE_AXIS else found
    if name == TOKEN_AXIS:
        return [NONE, *_tokens(bounds, patterns, context)]
    if name == AUDIENCES_AXIS:
        patterns += [one for side in context.sides for one in _audiences(side)]
    texts = witnesses.paths(patterns) if name == PATH_AXIS else witnesses.texts(patterns)
    found = [(text,) for text in texts]
    if name == METHOD_AXIS:
        return found if patterns else [("GET",)]
    if name == HOST_AXIS:
        return [*found, *((host,) for host in context.hosts)]
    if name in (PATH_AXIS, AUDIENCES_AXIS):
        return found
    if name not in _SINGLE_AXES and len(texts) <= PAIRS_MAX:
        found += [(text, texts[0]) for text in texts[1:]]
    return [NONE, *found]


def _tokens(bounds: Sequence[Bound], patterns: list[str], context: _Context) -> list[Value]:
    """(issuer, subject): of every trusted issuer, and as the patterns have it."""
    issuers = _issuers(context)
    texts = witnesses.texts(patterns)
    found: dict[Value, None] = {(issuer, texts[0]): None for issuer in issuers}
    for text in texts:
        issuer = max((one for one in issuers if text.startswith(f"{one}/")), key=len, default="")
        head, _, tail = text.rpartition("/")
        if issuer:
            found[issuer, text[len(issuer) + 1 :]] = None
        elif head:
            found[head, tail] = None
        found |= {(one, tail): None for one in issuers if tail}
    return list(found)


def _extras(name: str, context: _Context) -> Iterator[Callable[[Value], Hashable]]:
    """What else tells values apart, besides rules."""
    if name == PORT_AXIS:
        yield lambda value: tuple(side.tls(int(value[0])) for side in context.sides)
    elif name == SOURCE_AXIS:
        for side in context.sides:
            for port in _port_tls(side):
                test = compile_blocks(port.peers)
                yield lambda value, test=test: bool(value) and test(value[0])  # type: ignore[misc]
    elif name == TOKEN_AXIS:
        for side in context.sides:
            trusted = frozenset(side.issuers())
            yield lambda value, trusted=trusted: value[0] if value and value[0] in trusted else ""  # type: ignore[misc]
    elif name == AUDIENCES_AXIS:
        for side in context.sides:
            for one in side.snapshot.request_authentications:
                for rule in one.jwt_rules:
                    wanted = frozenset(rule.audiences)
                    yield lambda value, wanted=wanted: not wanted.isdisjoint(value)  # type: ignore[misc]


def _port_tls(side: Side) -> tuple[PortTls, ...]:
    peers = side.snapshot.peer_authentication
    return (peers.rest, *peers.ports.values())


def _tls_ports(side: Side) -> Iterable[int]:
    return side.snapshot.peer_authentication.ports


def _peer_blocks(context: _Context) -> list[str]:
    return [block for side in context.sides for port in _port_tls(side) for block in port.peers]


def _issuers(context: _Context) -> list[str]:
    return list(dict.fromkeys(issuer for side in context.sides for issuer in side.issuers()))


def _audiences(side: Side) -> list[str]:
    rules = (rule for one in side.snapshot.request_authentications for rule in one.jwt_rules)
    return list(dict.fromkeys(audience for rule in rules for audience in rule.audiences))
