"""Verdicts where not everything is known: what could they be?

A record of a call holds neither headers nor tokens. A condition that looks at what is not known is neither true nor
false (Kleene's three-valued logic: true, false, None), and so may be its rule. Such a rule matters only if the verdict
depends on it, and makes a difference between two sets of policies only if it is not in both.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, replace

from sidecar.rules.conditions import (
    DESTINATION_IP,
    HOST,
    METHOD,
    NAMESPACE,
    PATH,
    PORT,
    PRINCIPAL,
    REMOTE_IP,
    SERVICE_ACCOUNT,
    SNI,
    SOURCE_IP,
    Compiler,
    Condition,
    Conditions,
    Scope,
)
from sidecar.rules.keys import Attribute, Key
from sidecar.rules.match import without_params
from sidecar.rules.snapshot import Action, AuthorizationPolicy, RequestAuthentication, Snapshot

Truth = bool | None
Value = str | tuple[str, ...] | None
"""None: not known."""

_PEER_NAMES = {
    PRINCIPAL: "principal",
    NAMESPACE: "namespace",
    SERVICE_ACCOUNT: "service account",
    SOURCE_IP: "source.ip",
    DESTINATION_IP: "destination.ip",
    SNI: "connection.sni",
    REMOTE_IP: "remote.ip",
}
_OPERATION_NAMES = {HOST: "host", PORT: "port", METHOD: "method", PATH: "path"}
_SEVERAL = (Attribute.HEADER, Attribute.AUDIENCES, Attribute.CLAIM)


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What is known of a call."""

    peer: tuple[str | None, ...]
    """By `conditions.PRINCIPAL` and so on; None: not known."""
    operation: tuple[str | None, ...]
    """By `conditions.HOST` and so on."""
    has_no_token: bool
    """Nobody verifies one, so for policies there is none. Otherwise it is not known."""
    is_tcp: bool = False

    def value(self, condition: Condition) -> Value:
        attribute = condition.attribute
        if isinstance(attribute, Key):
            if self.has_no_token and attribute.attribute not in (Attribute.HEADER, Attribute.REMOTE_IP):
                return () if attribute.attribute in _SEVERAL else ""
            return None
        return self.peer[attribute] if condition.scope is Scope.PEER else self.operation[attribute]

    def readings(self) -> list[Known]:
        """For DENY: as it is, and as servlet containers read its path (security.md C06)."""
        path = self.operation[PATH]
        if path is None or ";" not in path:
            return [self]
        operation = (*self.operation[:PATH], without_params(path), *self.operation[PATH + 1 :])
        return [
            self,
            Known(peer=self.peer, operation=operation, has_no_token=self.has_no_token, is_tcp=self.is_tcp),
        ]


def name_of(condition: Condition) -> str:
    """The attribute, as people call it."""
    attribute = condition.attribute
    if isinstance(attribute, Key):
        return str(attribute)
    return (_PEER_NAMES if condition.scope is Scope.PEER else _OPERATION_NAMES)[attribute]


@dataclass(frozen=True, slots=True, kw_only=True)
class Possible:
    """What the verdict is, as far as it can be told."""

    form: Hashable
    """Equal for two sets of policies: they decide alike, whatever is not known."""
    allowed: Truth
    missing: frozenset[str]
    """Attributes that the verdict may depend on; none if it is known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """One rule's conditions."""

    name: str
    action: Action
    sources: tuple[Conditions, ...]
    operations: tuple[Conditions, ...]
    when: Conditions
    identity: Hashable
    """Equal ones match the same requests."""

    def on_tcp(self) -> View | None:
        """What is left where there is no HTTP to look at (security.md C23); None: it never matches there."""
        if self.action is not Action.ALLOW:
            sources, operations = (
                tuple(tuple(c for c in conditions if not c.is_http) for conditions in part)
                for part in (self.sources, self.operations)
            )
            when = tuple(c for c in self.when if not c.is_http)
            return replace(self, sources=sources, operations=operations, when=when)
        sources, operations = (
            tuple(conditions for conditions in part if not any(c.is_http for c in conditions))
            for part in (self.sources, self.operations)
        )
        lost = (self.sources and not sources) or (self.operations and not operations)
        if lost or any(c.is_http for c in self.when):
            return None
        return replace(self, sources=sources, operations=operations)


class Views:
    """The enforced rules of one snapshot."""

    def __init__(self, snapshot: Snapshot) -> None:
        proxies = snapshot.trusted_proxies_count
        enforced = [policy for policy in snapshot.policies if not policy.shadow]
        authentications = tuple(
            rule for one in sorted(snapshot.request_authentications, key=_full_name) for rule in one.jwt_rules
        )
        self.has_users = bool(authentications)
        """Tokens are looked at."""
        self.meaning: Hashable = (proxies, authentications)
        """What equal rules must have in common to match the same requests."""
        self.rules: dict[Action, list[View]] = {action: [] for action in Action}
        compilers = {action: Compiler(allow=action is Action.ALLOW, trusted_proxies_count=proxies) for action in Action}
        for policy in enforced:
            for number in range(len(policy.rules)):
                self.rules[policy.action].append(view_of(policy, number, compilers[policy.action]))
        has_allow = any(policy.action is Action.ALLOW for policy in enforced)
        self.otherwise = not has_allow and snapshot.default_action is Action.ALLOW
        """Whether what no rule matches is allowed."""

    def possible(self, known: Known) -> Possible:
        missing: set[str] = set()
        denies = _matching(self.rules[Action.DENY], known.readings(), missing)
        missing_of_allow: set[str] = set()
        allows = _matching(self.rules[Action.ALLOW], [known], missing_of_allow)
        if denies is None or (allows is not None and not allows and not self.otherwise):
            return Possible(form=False, allowed=False, missing=frozenset())
        rest: Hashable = True
        if allows:  # what none of them matches is denied, since they are there
            rest = allows
            missing |= missing_of_allow
        if not denies and rest is True:
            return Possible(form=True, allowed=True, missing=frozenset())
        return Possible(form=(denies, rest, self.meaning), allowed=None, missing=frozenset(missing))


def _full_name(one: RequestAuthentication) -> tuple[str, str]:
    return one.namespace, one.name


def view_of(policy: AuthorizationPolicy, number: int, compiler: Compiler) -> View:
    """`compiler`: of rules of the policy's action."""
    rule = policy.rules[number]
    return View(
        name=f"{policy.full_name}#{number}",
        action=policy.action,
        sources=compiler.sources(rule),
        operations=compiler.operations(rule),
        when=tuple(condition for item in compiler.when(rule) for condition in item),
        identity=(policy.action, rule.sources, rule.operations, rule.when),
    )


def _matching(rules: Sequence[View], readings: Sequence[Known], missing: set[str]) -> frozenset[Hashable] | None:
    """None: one matches for certain. Otherwise those that may match; what they look at goes to `missing`."""
    found: set[Hashable] = set()
    for rule in rules:
        unknown: set[str] = set()
        truth = either(holds(rule, known, unknown) for known in readings)
        if truth:
            return None
        if truth is None:
            found.add(rule.identity)
            missing |= unknown
    return frozenset(found)


def holds(rule: View, known: Known, unknown: set[str]) -> Truth:
    """Whether the rule matches. What it looks at that is not known goes to `unknown`."""
    body = rule.on_tcp() if known.is_tcp else rule
    if body is None:
        return False
    truths = (
        _one_of(body.sources, known, unknown),
        _one_of(body.operations, known, unknown),
        _all(body.when, known, unknown),
    )
    if False in truths:
        return False
    return None if None in truths else True


def _one_of(alternatives: tuple[Conditions, ...], known: Known, unknown: set[str]) -> Truth:
    return either(_all(conditions, known, unknown) for conditions in alternatives) if alternatives else True


def _all(conditions: Conditions, known: Known, unknown: set[str]) -> Truth:
    not_known: list[str] = []
    for condition in conditions:
        value = known.value(condition)
        if value is None:
            not_known.append(name_of(condition))
        elif not condition.test(value):
            return False
    unknown.update(not_known)
    return None if not_known else True


def either(truths: Iterable[Truth]) -> Truth:
    found: Truth = False
    for truth in truths:
        if truth:
            return True
        if truth is None:
            found = None
    return found
