"""May this caller do this? The one evaluator: the proxy enforces with it, the control plane explains with it.

Theory of operation. The order is Istio's
(https://istio.io/latest/docs/concepts/security/#implicit-enablement), with deny as our default:

    1  a DENY rule matches                     -> Denied by that rule
    2  an ALLOW rule matches                   -> Permit by that rule
    3  there are ALLOW policies, none matched  -> Denied by default
    4  there are none                          -> the mesh's default action

Neither the order of policies nor of rules can change a verdict (security.md H04). So that it cannot change which rule
is *named* either, rules are tried sorted by namespace, name and index.

A rule is compiled to two lists of alternatives, callers and operations. An alternative is a tuple of tests, all of
which must hold; a rule matches if one alternative of each list holds. "No condition" is one alternative without tests.
A test takes one attribute of the request as a string; an attribute that the request lacks is the empty string.

What a request lacks (C23, C24):
  * no principal (nobody authenticated), or a principal without a namespace;
  * no method, host and path: an opaque TCP exchange, known by its empty method.
In an ALLOW rule a test of a missing attribute never holds, not even a negative one: `notPrincipals: [x]` is not a way
in for somebody without a name, and an ALLOW rule with HTTP fields never lets TCP through. In a DENY rule a negative
test holds for a missing attribute, and on TCP the HTTP fields are left out: the rule denies by what remains.

A path with `;parameters` is read in two ways by the servers there are. DENY rules are held against both, the path as it
is and without them (C06); ALLOW rules against the path as it is, which is also what is forwarded, except for what they
except: `notPaths` of an ALLOW rule is held against both. All paths are compared in one spelling (`match.one_spelling`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

from sidecar.rules.conditions import (
    METHOD,
    PATH,
    Attributes,
    Condition,
    Tests,
    negated,
    never_of_the_missing,
    only_ports,
    operation_conditions,
    source_conditions,
)
from sidecar.rules.match import host_of, one_spelling, without_params, without_query
from sidecar.rules.path_index import PathIndex
from sidecar.rules.snapshot import Action, AuthorizationPolicy, Rule, Snapshot

if TYPE_CHECKING:
    from certs.spiffe_id import SpiffeId
    from sidecar.rules.explain import Explanation

DEFAULT_RULE = "default"

REMEMBERED_MAX = 512
"""Verdicts, for each caller; when there are more, all are forgotten. Some 150 KiB at most."""
REMEMBERED_CHARACTERS_MAX = 160
"""Of host, method and path together."""
CALLERS_MAX = 256
"""Callers whose authorizers are kept for their next connection."""

DENY_MATCHED = "a DENY rule matched"
ALLOW_MATCHED = "an ALLOW rule matched"
NO_ALLOW_MATCHED = "no ALLOW rule matched"
DEFAULT_DENY = "no ALLOW policy selects this workload and the default is DENY"
DEFAULT_ALLOW = "no ALLOW policy selects this workload and the default is ALLOW"

_SEAL = object()


@final
class Permit:
    """Leave to open one upstream exchange. Only an authorizer makes them; opening an upstream takes one."""

    __slots__ = ("rule", "version")

    rule: str
    """"namespace/name#rule-index", or "default"."""
    version: int
    """Of the snapshot that was decided with."""

    def __init__(self, seal: object, rule: str, version: int) -> None:
        if seal is not _SEAL:
            raise TypeError("a Permit is made by an Authorizer only")
        object.__setattr__(self, "rule", rule)
        object.__setattr__(self, "version", version)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("a Permit does not change")

    def __reduce__(self) -> str:
        raise TypeError("a Permit is made by an Authorizer only")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Permit):
            return NotImplemented
        return (self.rule, self.version) == (other.rule, other.version)

    def __hash__(self) -> int:
        return hash((self.rule, self.version))

    def __repr__(self) -> str:
        return f"<Permit by {self.rule} at version {self.version}>"


@dataclass(frozen=True, slots=True, kw_only=True)
class Denied:
    """No. `reason` is one of this module's constants."""

    rule: str
    """"namespace/name#rule-index", or "default"."""
    reason: str
    version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """All that a decision may depend on."""

    principal: SpiffeId | None
    """From the verified certificate; None: nobody authenticated."""
    host: str = ""
    """Lower case, no port."""
    port: int
    """The service's port that was asked for."""
    method: str = ""
    """Empty: not HTTP but an opaque TCP exchange; `host` and `path` are empty too."""
    path: str = ""
    """Canonical, no query."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class CompiledRule:
    """One rule of one policy. `verdict` is made once: an answer costs no allocation."""

    name: str
    source: str
    sources: tuple[tuple[Condition, ...], ...]
    operations: tuple[tuple[Condition, ...], ...]
    source_tests: tuple[Tests, ...]
    http_tests: tuple[Tests, ...]
    tcp_tests: tuple[Tests, ...]
    verdict: Permit | Denied


@final
class PeerAuthorizer:
    """The authorizer of one caller: rules that cannot match it are gone, the others are reduced to their operations.

    A verdict is a pure function of what is asked, so those of short paths are remembered, up to a bound."""

    __slots__ = ("_allow", "_deny", "_deny_tcp", "_otherwise", "_remembered")

    def __init__(self, deny: list[CompiledRule], allow: list[CompiledRule], otherwise: Permit | Denied) -> None:
        self._deny = _Operations(deny)
        self._deny_tcp = tuple((rule.tcp_tests, rule.verdict) for rule in deny)
        self._allow = _Operations(allow)
        self._otherwise = otherwise
        self._remembered: dict[tuple[str, int, str, str], Permit | Denied] = {}

    def __repr__(self) -> str:
        return f"<PeerAuthorizer {len(self._deny_tcp)} DENY, {len(self._allow.rules)} ALLOW>"

    def authorize(self, host: str, port: int, method: str, path: str) -> Permit | Denied:
        """The verdict. Shapes as in `Facts`; the hot path of every request."""
        asked = (host, port, method, path)
        verdict = self._remembered.get(asked)
        if verdict is None:
            verdict = self._judge(_operation_attributes(host, port, method, path))
            if len(host) + len(method) + len(path) <= REMEMBERED_CHARACTERS_MAX:
                if len(self._remembered) >= REMEMBERED_MAX:
                    self._remembered.clear()
                self._remembered[asked] = verdict
        return verdict

    def _judge(self, attributes: Attributes) -> Permit | Denied:
        if attributes[METHOD]:
            denied = self._deny.first(attributes)
            if denied is None and ";" in attributes[PATH]:
                denied = self._deny.first(without_path_params(attributes))
        else:
            denied = next((v for tests, v in self._deny_tcp if _one_holds(tests, attributes)), None)
        return denied or self._allow.first(attributes) or self._otherwise


@final
class _Operations:
    """The operations of rules of one action, found by path."""

    __slots__ = ("_index", "rules")

    def __init__(self, rules: list[CompiledRule]) -> None:
        self.rules = tuple((rule.http_tests, rule.verdict) for rule in rules)
        self._index = PathIndex([_wanted_paths(rule.operations) for rule in rules])

    def first(self, attributes: Attributes) -> Permit | Denied | None:
        """The verdict of the first rule that matches."""
        for number in self._index.candidates(attributes[PATH]):
            tests, verdict = self.rules[number]
            if _one_holds(tests, attributes):
                return verdict
        return None


@final
class Authorizer:
    """All policies of one snapshot, compiled."""

    __slots__ = ("_callers", "allow_rules", "deny_rules", "otherwise", "version")

    def __init__(self, snapshot: Snapshot) -> None:
        """Raises ValueError for a policy value that is none of the four shapes; `decode` never lets one in."""
        policies = sorted(snapshot.policies, key=lambda policy: (policy.namespace, policy.name))
        self.version = snapshot.version
        self.deny_rules = _compile(policies, Action.DENY, snapshot.version)
        self.allow_rules = _compile(policies, Action.ALLOW, snapshot.version)
        self.otherwise = _otherwise(snapshot)
        self._callers: dict[SpiffeId | None, PeerAuthorizer] = {}

    def __repr__(self) -> str:
        return f"<Authorizer version {self.version}, {len(self.deny_rules)} DENY, {len(self.allow_rules)} ALLOW>"

    def authorize(self, facts: Facts) -> Permit | Denied:
        caller = caller_attributes(facts.principal)
        operation = _operation_attributes(facts.host, facts.port, facts.method, facts.path)
        readings = (operation, without_path_params(operation)) if ";" in operation[PATH] else (operation,)
        for reading in readings:
            for rule in self.deny_rules:
                tests = rule.http_tests if facts.method else rule.tcp_tests
                if _one_holds(rule.source_tests, caller) and _one_holds(tests, reading):
                    return rule.verdict
        for rule in self.allow_rules:
            if _one_holds(rule.source_tests, caller) and _one_holds(rule.http_tests, operation):
                return rule.verdict
        return self.otherwise

    def for_peer(self, principal: SpiffeId | None) -> PeerAuthorizer:
        """The authorizer of one caller. The first time it costs one look at each rule; keep it with the connection."""
        peer = self._callers.get(principal)
        if peer is None:
            caller = caller_attributes(principal)
            deny = [rule for rule in self.deny_rules if _one_holds(rule.source_tests, caller)]
            allow = [rule for rule in self.allow_rules if _one_holds(rule.source_tests, caller)]
            if len(self._callers) >= CALLERS_MAX:
                self._callers.clear()
            peer = self._callers[principal] = PeerAuthorizer(deny, allow, self.otherwise)
        return peer

    def explain(self, facts: Facts, *, near_misses_max: int = 5) -> Explanation:
        """The same verdict as `authorize`, with its reason and the ALLOW rules that came nearest."""
        from sidecar.rules.explain import explain  # here, because it builds on this module

        return explain(self, facts, near_misses_max=near_misses_max)


def caller_attributes(principal: SpiffeId | None) -> Attributes:
    """(principal without scheme, namespace); empty where there is none."""
    if principal is None:
        return "", ""
    return principal.principal, principal.namespace or ""


def operation_attributes(facts: Facts) -> Attributes:
    """(host, port, method, path) as the tests see them."""
    return _operation_attributes(facts.host, facts.port, facts.method, facts.path)


def without_path_params(attributes: Attributes) -> Attributes:
    """The other reading of an operation whose path has `;parameters`."""
    return *attributes[:PATH], without_params(attributes[PATH])


def _operation_attributes(host: str, port: int, method: str, path: str) -> Attributes:
    if not method:
        return "", str(port), "", ""
    # The border has done all this. Done again it costs little, and a border that forgets opens no hole (C10, C15-C17).
    path = without_query(path)
    if "%" in path or "*" in path:  # a `*` of a policy is a wildcard, so policies write that character encoded
        path = one_spelling(path).replace("*", "%2A")
    return host_of(host), str(port), method, path


def _one_holds(alternatives: tuple[Tests, ...], attributes: Attributes) -> bool:
    for tests in alternatives:
        for index, test in tests:
            if not test(attributes[index]):
                break
        else:
            return True
    return False


def _otherwise(snapshot: Snapshot) -> Permit | Denied:
    """What happens when no rule matches."""
    # An ALLOW policy counts by being there, with or without rules: `rules: []` means nobody, not everybody (H03).
    if any(policy.action is Action.ALLOW for policy in snapshot.policies):
        return Denied(rule=DEFAULT_RULE, reason=NO_ALLOW_MATCHED, version=snapshot.version)
    match snapshot.default_action:
        case Action.ALLOW:
            return Permit(_SEAL, DEFAULT_RULE, snapshot.version)
        case Action.DENY:
            return Denied(rule=DEFAULT_RULE, reason=DEFAULT_DENY, version=snapshot.version)
        case _:
            raise AssertionError("the default allows or denies")


def _compile(policies: Iterable[AuthorizationPolicy], action: Action, version: int) -> tuple[CompiledRule, ...]:
    return tuple(
        _compile_rule(policy, index, rule, version)
        for policy in policies
        if policy.action is action
        for index, rule in enumerate(policy.rules)
    )


def _compile_rule(policy: AuthorizationPolicy, index: int, rule: Rule, version: int) -> CompiledRule:
    name = f"{policy.full_name}#{index}"
    allow = policy.action is Action.ALLOW
    negative = never_of_the_missing if allow else negated
    sources = tuple(source_conditions(source, negative) for source in rule.sources)
    operations = tuple(operation_conditions(operation, negative) for operation in rule.operations)
    http_tests = _tests(operations)
    return CompiledRule(
        name=name,
        source=policy.source,
        sources=sources,
        operations=operations,
        source_tests=_tests(sources),
        http_tests=http_tests,
        # On TCP every HTTP attribute is missing, so ALLOW tests fail by themselves; DENY keeps its port tests only.
        tcp_tests=http_tests if allow else _tests(only_ports(operations)),
        verdict=Permit(_SEAL, name, version) if allow else Denied(rule=name, reason=DENY_MATCHED, version=version),
    )


def _wanted_paths(operations: tuple[tuple[Condition, ...], ...]) -> list[str] | None:
    """All paths of which a request must match one; None if it may match the rule without."""
    wanted: list[str] = []
    for conditions in operations:
        paths = next((c.wanted for c in conditions if c.field == "paths"), None)
        if paths is None:
            return None
        wanted += paths
    return wanted or None


def _tests(alternatives: tuple[tuple[Condition, ...], ...]) -> tuple[Tests, ...]:
    if not alternatives:
        return ((),)  # no condition: one alternative that asks nothing
    return tuple(tuple((c.attribute, c.test) for c in conditions) for conditions in alternatives)
