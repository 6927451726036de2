"""May this caller do this? The one evaluator: the proxy enforces with it, the control plane explains with it.

Theory of operation. The order is Istio's
(https://istio.io/latest/docs/concepts/security/#implicit-enablement), with deny as our default:

    1  a DENY rule matches                     -> Denied by that rule
    2  an ALLOW rule matches                   -> Permit by that rule
    3  there are ALLOW policies, none matched  -> Denied by default
    4  there are none                          -> the mesh's default action

AUDIT rules decide nothing; those that match are named in the answer. Policies in shadow decide nothing either: the
answer says what it would be if they were enforced, when that is another.

Neither the order of policies nor of rules can change a verdict (security.md H04). So that it cannot change which rule
is *named* either, rules are tried sorted by namespace, name and index.

What a request lacks is told in `conditions` (C23, C24). A path with `;parameters` is read in two ways by the servers
there are. DENY and AUDIT rules are held against both, the path as it is and without them (C06); ALLOW rules against the
path as it is, which is also what is forwarded, except for what they except: `notPaths` of an ALLOW rule is held against
both. All paths are compared in one spelling (`match.one_spelling`).

There are two ways to a verdict, and a test that they agree. `Authorizer.authorize` tries every rule against all facts:
slow, for explaining. The proxy goes by `Authorizer.for_peer`, once for each connection: what is left of the rules for
that caller (`compiled`), found by what a request asks for (`rule_index`), and verdicts remembered (`judge`). The cost
of a request does not grow with rules that cannot match. Rules that make no difference between callers are put in order
once for all.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING, final

from sidecar.rules.book import Book, PeerAuthorizer, with_shadow
from sidecar.rules.compiled import CompiledRule, RuleCompiler
from sidecar.rules.conditions import (
    OperationAttributes,
    PeerAttributes,
)
from sidecar.rules.facts import Facts, Peer, Token
from sidecar.rules.keys import Attribute, Key
from sidecar.rules.request_facts import RequestFacts, operation_attributes, peer_attributes
from sidecar.rules.snapshot import Action, Snapshot
from sidecar.rules.verdict import (
    ALLOW_MATCHED,
    DEFAULT_ALLOW,
    DEFAULT_DENY,
    DEFAULT_RULE,
    DENY_MATCHED,
    NO_ALLOW_MATCHED,
    SEAL,
    Denied,
    Permit,
    Verdict,
)

if TYPE_CHECKING:
    from sidecar.rules.explain import Explanation

__all__ = [
    "ALLOW_MATCHED",
    "DEFAULT_ALLOW",
    "DEFAULT_DENY",
    "DEFAULT_RULE",
    "DENY_MATCHED",
    "NO_ALLOW_MATCHED",
    "Authorizer",
    "Denied",
    "Facts",
    "Peer",
    "PeerAuthorizer",
    "Permit",
    "Token",
    "Verdict",
]

CALLERS_MAX = 1_024
"""Callers whose authorizers are kept for their next connection."""
SLICE = 64
"""Rules compiled between two yields."""


@final
class Authorizer:
    """All policies of one snapshot, compiled."""

    def __init__(self, snapshot: Snapshot) -> None:
        """Raises ValueError for a policy value that is none of its kind; `decode` never lets one in."""
        for _ in self._build(snapshot):
            pass

    @classmethod
    def compiling(cls, snapshot: Snapshot) -> Generator[None, None, Authorizer]:
        """The same in slices of a few milliseconds, for whoever has requests to serve meanwhile."""
        self = cls.__new__(cls)
        yield from self._build(snapshot)
        return self

    def _build(self, snapshot: Snapshot) -> Generator[None, None, None]:
        self.version = snapshot.version
        proxies = self._trusted_proxies_count = snapshot.trusted_proxies_count
        policies = sorted(snapshot.policies, key=lambda policy: (policy.namespace, policy.name))
        compilers = {action: RuleCompiler(action, proxies) for action in Action}
        rules: list[CompiledRule] = []
        keys: set[Key] = set()
        looked_at: set[int] = set()
        for policy in policies:
            for index in range(len(policy.rules)):
                rule = CompiledRule(policy, index, len(rules), snapshot.version, compilers[policy.action])
                rules.append(rule)
                keys.update(rule.keys_of_when())
                looked_at.update(rule.looks_at_peer(proxies == 0))
                if len(rules) % SLICE == 0:
                    yield
        self._rules = rules
        self.header_names = frozenset(key.names[0] for key in keys if key.attribute is Attribute.HEADER)
        """What policies look at, enforced and in shadow."""
        self.claim_names = frozenset(key.names for key in keys if key.attribute is Attribute.CLAIM)
        # What no rule looks at makes no difference between callers.
        self._looked_at = frozenset(looked_at)
        enforced = [policy for policy in policies if not policy.shadow]
        # An ALLOW policy counts by being there, with or without rules: `rules: []` means nobody, not everybody (H03).
        otherwise = _otherwise(snapshot, any(policy.action is Action.ALLOW for policy in enforced))
        self._book = yield from Book.building([rule for rule in rules if not rule.shadow], otherwise, proxies)
        self._shadow_book: Book | None = None
        if len(enforced) != len(policies):
            otherwise = _otherwise(snapshot, any(policy.action is Action.ALLOW for policy in policies))
            tried = [rule for rule in rules if not (rule.shadow and rule.action is Action.AUDIT)]
            self._shadow_book = yield from Book.building(tried, otherwise, proxies)
        self._callers: dict[PeerAttributes, PeerAuthorizer] = {}

    def __repr__(self) -> str:
        rules = self._book.rules
        return f"<Authorizer version {self.version}, {len(rules[Action.DENY])} DENY, {len(rules[Action.ALLOW])} ALLOW>"

    @property
    def otherwise(self) -> Verdict:
        """What happens when no rule matches."""
        return self._book.otherwise

    @property
    def has_shadow(self) -> bool:
        return self._shadow_book is not None

    def rules(self, action: Action) -> Sequence[CompiledRule]:
        """Those enforced, in order."""
        return self._book.rules[action]

    def rule(self, name: str) -> CompiledRule | None:
        """By its name, in shadow too; None for the default."""
        return next((rule for rule in self._rules if rule.name == name), None)

    def rule_source(self, name: str) -> str:
        """ "file:line" of the rule; "" for the default."""
        rule = self.rule(name)
        return rule.source if rule else ""

    def authorize(self, facts: Facts) -> Verdict:
        """The slow way, and all that facts may hold."""
        proxies = self._trusted_proxies_count
        peer, operation, request = attributes_of(facts, proxies)
        verdict = self._book.try_all(peer, operation, request)
        if self._shadow_book is None:
            return verdict
        return with_shadow(verdict, self._shadow_book.try_all(peer, operation, request))

    def for_peer(self, peer: Peer) -> PeerAuthorizer:
        """The authorizer of one caller. The first time it costs a look at each rule that may be about that caller."""
        attributes = peer_attributes(peer)
        known_as = tuple(value if index in self._looked_at else "" for index, value in enumerate(attributes))
        held = self._callers.get(known_as)
        if held is None:
            shadow = None if self._shadow_book is None else PeerAuthorizer(self._shadow_book, attributes, None)
            held = PeerAuthorizer(self._book, attributes, shadow)
            if len(self._callers) >= CALLERS_MAX:
                self._callers.clear()
            self._callers[known_as] = held
        return held

    def explain(self, facts: Facts, *, near_misses_max: int = 5) -> Explanation:
        """The same verdict as `authorize`, with its reason and the ALLOW rules that came nearest."""
        from sidecar.rules.explain import explain  # here, because it builds on this module

        return explain(self, facts, near_misses_max=near_misses_max)

    def attributes(self, facts: Facts) -> tuple[PeerAttributes, OperationAttributes, RequestFacts]:
        """As the tests see them."""
        return attributes_of(facts, self._trusted_proxies_count)


def attributes_of(facts: Facts, proxies: int) -> tuple[PeerAttributes, OperationAttributes, RequestFacts]:
    peer = peer_attributes(facts.peer, facts.remote_ip if proxies == 0 else None)
    operation = operation_attributes(facts.host, facts.port, facts.method, facts.path)
    fields = [(name.encode("latin-1", "replace"), value.encode("latin-1", "replace")) for name, value in facts.headers]
    remote_ip = facts.remote_ip if proxies else None
    if not facts.method:
        return peer, operation, RequestFacts((), None)
    return peer, operation, RequestFacts(fields, facts.token, trusted_proxies_count=proxies, remote_ip=remote_ip)


def _otherwise(snapshot: Snapshot, has_allow_policy: bool) -> Verdict:
    """What happens when no rule matches."""
    if has_allow_policy:
        return Denied(rule=DEFAULT_RULE, reason=NO_ALLOW_MATCHED, version=snapshot.version)
    if snapshot.default_action is Action.ALLOW:
        return Permit(SEAL, DEFAULT_RULE, snapshot.version)
    return Denied(rule=DEFAULT_RULE, reason=DEFAULT_DENY, version=snapshot.version)
