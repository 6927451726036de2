"""Lint: what is legal, but probably not what was meant. Warnings are for people; nothing depends on them."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Sequence

from control_plane.policy.model import (
    ROOT_NAMESPACE,
    MeshConfigSpec,
    PeerAuthenticationSpec,
    RequestAuthenticationSpec,
)
from sidecar.rules.keys import Attribute, parse_key
from sidecar.rules.match import Shape, is_template, shape_of
from sidecar.rules.snapshot import Action, AuthorizationPolicy, Rule, Source, TlsMode, When

WARNINGS_MAX = 50
PLACES_MAX = 3
_WORKLOAD = re.compile(r"[^/]+/ns/[^/]+/sa/[^/]+")
"""The principals that certificates are issued for."""
EVERYWHERE = frozenset({"0.0.0.0/0", "::/0"})
_VERBS = {Action.ALLOW: "allows", Action.DENY: "denies", Action.AUDIT: "records"}


def mesh_warnings(spec: MeshConfigSpec) -> tuple[str, ...]:
    return tuple(_mesh_warnings(spec))


def _mesh_warnings(spec: MeshConfigSpec) -> Iterator[str]:
    if spec.default_action is Action.ALLOW:
        yield "spec.defaultAction: ALLOW lets every workload call every other that no ALLOW policy selects"
    if spec.root_namespace != ROOT_NAMESPACE:
        yield f"spec.rootNamespace: what is in {ROOT_NAMESPACE} holds in that namespace only"


def peer_warnings(spec: PeerAuthenticationSpec) -> tuple[str, ...]:
    return tuple(_peer_warnings(spec))


def _peer_warnings(spec: PeerAuthenticationSpec) -> Iterator[str]:
    if not spec.takes_plaintext:
        if spec.until or spec.peers:
            yield "metadata.annotations: no port takes plaintext, so they say nothing"
        return
    if not spec.until:
        yield "spec: takes plaintext without an end; set one: hauberk.dev/plaintext-until: 2026-12-31T00:00:00Z"
    if not spec.peers or EVERYWHERE & set(spec.peers):
        yield "spec: takes plaintext from everybody; name who needs it: hauberk.dev/plaintext-from: 10.1.2.0/24"
    if TlsMode.DISABLE in (spec.mode, *spec.ports.values()):
        yield "spec: with DISABLE no caller has an identity, so no rule that names one allows anybody"


def request_warnings(spec: RequestAuthenticationSpec) -> tuple[str, ...]:
    return tuple(itertools.islice(_request_warnings(spec), WARNINGS_MAX))


def _request_warnings(spec: RequestAuthenticationSpec) -> Iterator[str]:
    rules = spec.authentication.jwt_rules
    if not rules:
        yield "spec.jwtRules: without any, no token is taken or refused"
    for number, rule in enumerate(rules):
        if not rule.audiences:
            yield f"spec.jwtRules[{number}]: takes tokens that were made for other services; name your audiences"


def stricter_than_istio(spec: RequestAuthenticationSpec) -> tuple[str, ...]:
    """Where the same document means less than Istio would make of it. There is nothing to mend."""
    rules = spec.authentication.jwt_rules
    found: list[str] = []
    if rules:
        found.append(
            "spec.jwtRules: a token without exp or aud, for more than a day (exp - iat), or signed with a shared key"
            " (HS) is refused (Istio takes it)"
        )
    by_default = [n for n, rule in enumerate(rules) if not (rule.from_headers or rule.from_params or rule.from_cookies)]
    if by_default:
        found.append(
            f"spec.jwtRules[{by_default[0]}]: tokens are read from Authorization only, not from the query's"
            " access_token too (as in Istio); if callers use that, name both in fromHeaders and fromParams"
        )
    return tuple(found)


def told_once(warnings: Iterable[tuple[str, str]]) -> list[str]:
    """(place, sentence) -> each sentence once, behind the places it is true of."""
    places: dict[str, list[str]] = {}
    for place, sentence in warnings:
        places.setdefault(sentence, []).append(place)
    return [f"{_listed(found)}: {sentence}" for sentence, found in places.items()]


def _listed(places: Sequence[str]) -> str:
    more = len(places) - PLACES_MAX
    return ", ".join(places[:PLACES_MAX]) + (f" and {more} more" if more > 0 else "")


def policy_warnings(policy: AuthorizationPolicy) -> tuple[str, ...]:
    """At most WARNINGS_MAX sentences, each beginning with the field."""
    return tuple(itertools.islice(_policy_warnings(policy), WARNINGS_MAX))


def _policy_warnings(policy: AuthorizationPolicy) -> Iterator[str]:
    action = policy.action
    if action is Action.AUDIT:
        yield "spec.action: AUDIT neither allows nor denies; what matches is logged and counted"
        if policy.shadow:
            yield "metadata.annotations: an AUDIT policy enforces nothing, in shadow it does nothing at all"
    if not policy.rules:
        yield (
            "spec.rules: an ALLOW policy without rules allows nobody"
            if action is Action.ALLOW
            else f"spec.rules: {_a(action)} policy without rules has no effect"
        )
    for number, rule in enumerate(policy.rules):
        path = f"spec.rules[{number}]"
        if not rule.sources and not rule.operations and not rule.when:
            yield f"{path}: a rule without from, to and when {_VERBS[action]} everything to everybody"
        yield from _nobodys(rule, path)
        if action is Action.ALLOW:
            yield from _allow_warnings(rule, path)
        if action is Action.DENY:
            yield from _deny_path_warnings(rule, path)
    yield from _once_a_policy(policy)


def _a(action: Action) -> str:
    return f"{'a' if action is Action.DENY else 'an'} {action.value}"


def _nobodys(rule: Rule, path: str) -> Iterator[str]:
    """Principals that no workload has, such as shop/web: a DENY that names one denies nobody."""
    named = [
        (f"{path}.from[{number}].source.{field}", values)
        for number, source in enumerate(rule.sources)
        for field, values in (("principals", source.principals), ("notPrincipals", source.not_principals))
    ]
    named += [
        (f"{path}.when[{number}]", (*when.values, *when.not_values))
        for number, when in enumerate(rule.when)
        if when.key == Attribute.PRINCIPAL.value
    ]
    for field, values in named:
        for text in values:
            if shape_of(text)[0] is Shape.EXACT and not _WORKLOAD.fullmatch(text):
                yield f"{field}: no workload is called {text}; write TRUST-DOMAIN/ns/NAMESPACE/sa/SERVICE-ACCOUNT"


def _allow_warnings(rule: Rule, path: str) -> Iterator[str]:
    for number, source in enumerate(rule.sources):
        field = f"{path}.from[{number}].source"
        if _by_not(source):
            yield (
                f"{field}: ALLOW by `not` lets in everybody else, also those who join later, but nobody without an"
                " identity (Istio would); name who may"
            )
        if EVERYWHERE & {*source.ip_blocks, *source.remote_ip_blocks}:
            yield f"{field}: 0.0.0.0/0 and ::/0 are every address there is; remove it, or name the network"
    for number, when in enumerate(rule.when):
        field = f"{path}.when[{number}]"
        attribute = parse_key(when.key).attribute
        if when.not_values and attribute is not Attribute.HEADER:
            yield f"{field}: notValues of an ALLOW rule do not hold where there is no {when.key} (in Istio they do)"
        if attribute.is_address and EVERYWHERE & set(when.values):
            yield f"{field}: 0.0.0.0/0 and ::/0 are every address there is; remove it, or name the network"


def _by_not(source: Source) -> bool:
    return bool(
        source.not_principals
        or source.not_namespaces
        or source.not_request_principals
        or source.not_ip_blocks
        or source.not_remote_ip_blocks
    )


def _once_a_policy(policy: AuthorizationPolicy) -> Iterator[str]:
    """What is the same for all rules, said of the first that it is true of."""
    sources = [
        (f"spec.rules[{number}].from[{i}].source", source)
        for number, rule in enumerate(policy.rules)
        for i, source in enumerate(rule.sources)
    ]
    whens = [
        (f"spec.rules[{number}].when[{i}]", when)
        for number, rule in enumerate(policy.rules)
        for i, when in enumerate(rule.when)
    ]
    by_address = [where for where, source in sources if source.ip_blocks or source.not_ip_blocks]
    by_address += [where for where, when in whens if when.key == Attribute.SOURCE_IP.value]
    if by_address:
        yield (
            f"{by_address[0]}: within the mesh the address is that of the caller's sidecar; use principals, or"
            " remoteIpBlocks behind a proxy"
        )
    headers = [where for where, when in whens if _is_header(when)]
    if headers and policy.action is Action.ALLOW:
        yield f"{headers[0]}: of a header sent several times every value must match (Istio joins them with commas)"
    elif headers:
        yield f"{headers[0]}: of a header sent several times one value that matches is enough (Istio joins them)"


def _is_header(when: When) -> bool:
    return parse_key(when.key).attribute is Attribute.HEADER


def _deny_path_warnings(rule: Rule, path: str) -> Iterator[str]:
    """`/admin` and `/admin/x` are two paths (security.md C14): a DENY usually means both."""
    for number, operation in enumerate(rule.operations):
        field = f"{path}.to[{number}].operation.paths"
        denied = _Paths(operation.paths)
        for text in operation.paths:
            if ";" in text or "%3b" in text.lower():
                yield (
                    f"{field}: {text}: servers read a semicolon in a path in three ways (as it is, decoded, as the end"
                    " of the name); deny what stands before it, with /*"
                )
        for shape, text in denied.shapes:
            if shape is Shape.EXACT and text != "/" and not denied.all_below(text.rstrip("/") + "/"):
                yield f"{field}: {text} leaves what is below it; add {text.rstrip('/')}/*"
            if shape is Shape.PREFIX and text.endswith("/") and text != "/" and not denied.holds(text[:-1]):
                yield f"{field}: {text}* leaves {text[:-1]} itself; add it"


class _Paths:
    """The paths of one operation. Each question takes as long as the path, not as the list."""

    def __init__(self, values: tuple[str, ...]) -> None:
        self.shapes = [shape_of(value) for value in values if not is_template(value)]
        self._everything = any(shape is Shape.PRESENCE for shape, _ in self.shapes)
        self._exact = {text for shape, text in self.shapes if shape is Shape.EXACT}
        self._prefixes = {text for shape, text in self.shapes if shape is Shape.PREFIX}

    def holds(self, path: str) -> bool:
        return path in self._exact or self.all_below(path)

    def all_below(self, path: str) -> bool:
        """Whether every path that starts with `path` is there."""
        return self._everything or any(path[:length] in self._prefixes for length in range(1, len(path) + 1))
