"""One workload's snapshot, before or after: its rules as conditions, and its verdict on one request."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from certs.spiffe_id import SpiffeId
from sidecar.rules.addresses import compile_blocks
from sidecar.rules.authz import Authorizer, Facts, Permit, Token
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
    Scope,
)
from sidecar.rules.facts import Json
from sidecar.rules.keys import Attribute, Key
from sidecar.rules.snapshot import Action, AuthorizationPolicy, PortTls, Rule, Snapshot, TlsMode

NO_MUTUAL_TLS = "mutual TLS is required"

# Axes by name: those of the caller, those of the token, and the others.
PRINCIPAL_AXIS, NAMESPACE_AXIS, ACCOUNT_AXIS = "principal", "namespace", "account"
CALLER_AXES = (PRINCIPAL_AXIS, NAMESPACE_AXIS, ACCOUNT_AXIS)
METHOD_AXIS, PATH_AXIS, PORT_AXIS, HOST_AXIS = "method", "path", "port", "host"
SOURCE_AXIS, REMOTE_AXIS, DESTINATION_AXIS, SNI_AXIS = "source.ip", "remote.ip", "destination.ip", "sni"
TOKEN_AXIS, AUDIENCES_AXIS, PRESENTER_AXIS = "token", "audiences", "presenter"

_PEER = {
    PRINCIPAL: PRINCIPAL_AXIS,
    NAMESPACE: NAMESPACE_AXIS,
    SERVICE_ACCOUNT: ACCOUNT_AXIS,
    SOURCE_IP: SOURCE_AXIS,
    REMOTE_IP: SOURCE_AXIS,  # without trusted proxies it is the same address
    DESTINATION_IP: DESTINATION_AXIS,
    SNI: SNI_AXIS,
}
_OPERATION = {HOST: HOST_AXIS, PORT: PORT_AXIS, METHOD: METHOD_AXIS, PATH: PATH_AXIS}
_REQUEST = {
    Attribute.REMOTE_IP: REMOTE_AXIS,
    Attribute.REQUEST_PRINCIPAL: TOKEN_AXIS,
    Attribute.AUDIENCES: AUDIENCES_AXIS,
    Attribute.PRESENTER: PRESENTER_AXIS,
}
# Claims that are what an axis of their own already says (RFC 7519 section 4.1; OpenID Connect Core 1.0 section 2).
_REGISTERED = {"iss": TOKEN_AXIS, "sub": TOKEN_AXIS, "aud": AUDIENCES_AXIS, "azp": PRESENTER_AXIS}

Value = tuple[str, ...]
"""One value of an axis: its texts, () if it is missing. Of the token's axis: (issuer, subject)."""
NONE: Value = ()


@dataclass(frozen=True, slots=True)
class Bound:
    """A condition, and what it looks at on its axis."""

    axis: str
    condition: Condition
    see: Callable[[Value], object]
    allow: bool
    """Of an ALLOW rule: what is missing counts otherwise there."""

    def holds(self, value: Value) -> bool:
        return self.condition.test(self.see(value))


def _text(value: Value) -> str:
    return value[0] if value else ""


def _principal(value: Value) -> str:
    return "/".join(value) if value and value[1] else ""


def _issuer(value: Value) -> Value:
    return value[:1]


def _subject(value: Value) -> Value:
    return value[1:]


def _same(value: Value) -> Value:
    return value


def bind(condition: Condition, allow: bool) -> Bound:
    attribute = condition.attribute
    if condition.scope is Scope.PEER:
        assert isinstance(attribute, int)
        return Bound(_PEER[attribute], condition, _text, allow)
    if condition.scope is Scope.OPERATION:
        assert isinstance(attribute, int)
        return Bound(_OPERATION[attribute], condition, _text, allow)
    assert isinstance(attribute, Key)
    if attribute.attribute in _REQUEST:
        see: Callable[[Value], object] = {Attribute.REQUEST_PRINCIPAL: _principal, Attribute.AUDIENCES: _same}.get(
            attribute.attribute, _text
        )
        return Bound(_REQUEST[attribute.attribute], condition, see, allow)
    if attribute.attribute is Attribute.CLAIM and len(attribute.names) == 1 and attribute.names[0] in _REGISTERED:
        name = attribute.names[0]
        return Bound(_REGISTERED[name], condition, {"iss": _issuer, "sub": _subject}.get(name, _same), allow)
    return Bound(str(attribute), condition, _same, allow)


@dataclass(frozen=True, slots=True)
class RuleView:
    """One rule as its alternatives: it matches if one of them holds whole."""

    identity: tuple[object, ...]
    """Equal on both sides: the rule did not change."""
    shadow: bool
    alternatives: tuple[tuple[Bound, ...], ...]


@dataclass(frozen=True, slots=True)
class Verdict:
    allowed: bool
    rule: str


@dataclass(slots=True)
class Request:
    """A witness: one value for each axis. What an axis does not say is as it mostly is."""

    principal: SpiffeId | None
    values: Mapping[str, Value]
    keys: Mapping[str, Key]
    """Of the axes that are headers and claims."""
    host: str
    tcp: bool = False
    """An opaque exchange: of what HTTP has, nothing is there."""

    def value(self, axis: str, default: Value = NONE) -> Value:
        return self.values.get(axis, default)


@dataclass(slots=True)
class Side:
    """One snapshot and its evaluator."""

    snapshot: Snapshot
    now: float
    """Unix seconds: plaintext may have an end."""
    authorizer: Authorizer = field(init=False)
    rules: tuple[RuleView, ...] = field(init=False)

    def __post_init__(self) -> None:
        self.authorizer = Authorizer(self.snapshot)
        self.rules = tuple(self._views())

    def tls(self, port: int) -> PortTls:
        """What the port takes now."""
        held = self.snapshot.peer_authentication.port(port)
        return PortTls() if held.until and held.until <= self.now else held

    @property
    def takes_plaintext(self) -> bool:
        peers = self.snapshot.peer_authentication
        return any(one.mode is not TlsMode.STRICT for one in (peers.rest, *peers.ports.values()))

    def issuers(self) -> tuple[str, ...]:
        found = (rule.issuer for one in self.snapshot.request_authentications for rule in one.jwt_rules)
        return tuple(dict.fromkeys(found))

    def judge(self, request: Request) -> tuple[Verdict, Verdict]:
        """What happens, and what would if the policies in shadow were enforced."""
        port = int(request.value(PORT_AXIS)[0])
        tls = self.tls(port)
        principal = request.principal
        source_ip = _text(request.value(SOURCE_AXIS))
        if principal is None and not self._is_let_in(tls, source_ip):
            verdict = Verdict(False, NO_MUTUAL_TLS)
            return verdict, verdict
        if tls.mode is TlsMode.DISABLE:
            principal = None  # whoever comes over mutual TLS all the same has no identity here
        answer = self.authorizer.authorize(self._facts(request, port, principal, source_ip))
        shadow = answer.shadow or answer
        return Verdict(isinstance(answer, Permit), answer.rule), Verdict(isinstance(shadow, Permit), shadow.rule)

    def _is_let_in(self, tls: PortTls, source_ip: str) -> bool:
        if tls.mode is TlsMode.STRICT:
            return False
        return not tls.peers or compile_blocks(tls.peers)(source_ip)

    def _facts(self, request: Request, port: int, principal: SpiffeId | None, source_ip: str) -> Facts:
        method = "" if request.tcp else _text(request.value(METHOD_AXIS, ("GET",)))
        headers = tuple(
            (key.names[0], text)
            for axis, key in request.keys.items()
            if key.attribute is Attribute.HEADER
            for text in request.value(axis)
        )
        proxies = self.snapshot.trusted_proxies_count
        return Facts(
            principal=principal,
            host=_text(request.value(HOST_AXIS, (request.host,))) if method else "",
            port=port,
            method=method,
            path=_text(request.value(PATH_AXIS, ("/",))) if method else "",
            source_ip=source_ip,
            remote_ip=_text(request.value(REMOTE_AXIS)) if proxies else None,
            destination_ip=_text(request.value(DESTINATION_AXIS)),
            sni=_text(request.value(SNI_AXIS)),
            headers=headers if method else (),
            token=self._token(request) if method else None,
        )

    def _token(self, request: Request) -> Token | None:
        """As this side would verify it: one of an issuer that is not trusted here gives nothing."""
        who, audiences = request.value(TOKEN_AXIS), request.value(AUDIENCES_AXIS)
        if not who or not self._is_trusted(who[0], audiences):
            return None
        claims: dict[str, Json] = {"iss": who[0], "sub": who[1], "aud": audiences}
        claims["azp"] = _text(request.value(PRESENTER_AXIS))
        for axis, key in request.keys.items():
            if key.attribute is Attribute.CLAIM and request.value(axis):
                _put(claims, key.names, request.value(axis))
        return Token(
            issuer=who[0],
            subject=who[1],
            audiences=audiences,
            presenter=_text(request.value(PRESENTER_AXIS)),
            claims=claims,
            expires_at=float("inf"),
        )

    def _is_trusted(self, issuer: str, audiences: Value) -> bool:
        return any(
            rule.issuer == issuer and (not rule.audiences or not set(rule.audiences).isdisjoint(audiences))
            for one in self.snapshot.request_authentications
            for rule in one.jwt_rules
        )

    def _views(self) -> Iterator[RuleView]:
        proxies = self.snapshot.trusted_proxies_count
        compilers = {allow: Compiler(allow=allow, trusted_proxies_count=proxies) for allow in (True, False)}
        for policy in self.snapshot.policies:
            if policy.action is Action.AUDIT:
                continue
            for rule in policy.rules:
                yield _view(policy, rule, compilers[policy.action is Action.ALLOW])


def _view(policy: AuthorizationPolicy, rule: Rule, compiler: Compiler) -> RuleView:
    allow = policy.action is Action.ALLOW
    when = tuple(bind(condition, allow) for conditions in compiler.when(rule) for condition in conditions)
    sources = [tuple(bind(one, allow) for one in conditions) for conditions in compiler.sources(rule)] or [()]
    operations = [tuple(bind(one, allow) for one in conditions) for conditions in compiler.operations(rule)] or [()]
    return RuleView(
        identity=(policy.action, policy.shadow, rule.sources, rule.operations, rule.when),
        shadow=policy.shadow,
        alternatives=tuple(source + operation + when for source in sources for operation in operations),
    )


def _put(claims: dict[str, Json], names: tuple[str, ...], value: Value) -> None:
    """Where one condition wants text and another a mapping, the first to come wins: no token has both."""
    inner = claims
    for name in names[:-1]:
        below = inner.setdefault(name, {})
        if not isinstance(below, dict):
            return
        inner = below
    inner.setdefault(names[-1], value)
