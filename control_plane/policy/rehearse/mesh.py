"""A mesh on paper: workloads and resources in, verdicts out, by the way that a mesh takes.

Resources are made into one snapshot a workload by the control plane's own function, decoded by the sidecar's, and
judged by its evaluator. What comes before the evaluator in a sidecar (the TLS of a port, whose tokens are taken, the
one spelling of a path) comes before it here, in the same order.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from certs.spiffe_id import SpiffeId, TrustDomain
from control_plane.ca.root import make_root
from control_plane.model import Workload, WorkloadSpec
from control_plane.policy.explain import mode_at, refused_at_the_door
from control_plane.policy.model import MeshConfigSpec, ParsedResource
from control_plane.push.selected import Selected
from control_plane.push.snapshot import World, compile_content
from control_plane.push.trust import Trust
from sidecar.rules.authz import Authorizer, Facts, Permit, Token
from sidecar.rules.decode import snapshot_from_proto
from sidecar.rules.errors import PathError
from sidecar.rules.explain import Explanation, explain
from sidecar.rules.facts import Json
from sidecar.rules.paths import canonical
from sidecar.rules.snapshot import JwtRule, PortTls, Protocol, Snapshot, TlsMode

NO_MUTUAL_TLS = "peer-authentication"
BAD_PATH = "path"
BAD_TOKEN = "request-authentication"  # noqa: S105  # what denied, not a secret
"""What denied where no rule came to decide."""
_ANCHOR_LIFETIME_S = 86_400.0
_NOWHERE = "?"
"""No address, so in no block."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Inhabitant:
    """A workload of a mesh on paper."""

    spec: WorkloadSpec
    ports: Mapping[int, Protocol] = field(default_factory=dict)
    """Of its service; none: not known."""

    @property
    def service_name(self) -> str:
        """ "service.namespace"."""
        return f"{self.spec.service}.{self.spec.namespace}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One request as it is sent."""

    principal: SpiffeId | None
    """None: plaintext, nobody."""
    port: int
    method: str = "GET"
    path: str = "/"
    """As the caller writes it, a query included."""
    host: str = ""
    """Empty: the service's name."""
    headers: tuple[tuple[str, str], ...] = ()
    claims: Mapping[str, Json] | None = None
    """Of a token whose signature holds; None: no token."""
    source_ip: str = ""
    remote_ip: str | None = None
    destination_ip: str = ""
    sni: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What becomes of a call, and why."""

    allowed: bool
    rule: str
    """"namespace/name#index", "default", or one of this module's constants."""
    reason: str
    source: str
    """"file:line" of what decided; empty: nothing that is in a file."""
    shadow_allowed: bool
    """What it would be if the policies in shadow were enforced."""
    shadow_rule: str
    explanation: Explanation | None
    """None: no rule came to decide."""


class PaperMesh:
    """Policies and workloads, to be asked about calls."""

    def __init__(
        self,
        resources: Sequence[ParsedResource],
        inhabitants: Iterable[Inhabitant],
        trust_domain: TrustDomain,
        now: float,
    ) -> None:
        """`now`: Unix seconds; plaintext may have an end."""
        self.trust_domain = trust_domain
        self.now = now
        self.inhabitants = tuple(inhabitants)
        self.resources = tuple(resources)
        specs = tuple(one.spec for one in resources)
        self.mesh = next((one for one in specs if isinstance(one, MeshConfigSpec)), MeshConfigSpec())
        # A snapshot without a trust anchor is refused, so there is one; nobody has its key.
        anchor = make_root(trust_domain, lifetime_s=_ANCHOR_LIFETIME_S, now=now, token_bytes=os.urandom)
        self._world = World(
            epoch=1,
            revision=1,
            trust_domain=trust_domain,
            trust=Trust(anchors_der=(anchor.der,)),
            mesh=self.mesh,
            specs=specs,
            selected=Selected(specs, self.mesh, trust_domain, None),
            workloads=(),
            services={},
        )
        self._judges: dict[str, _Judge] = {}

    def __repr__(self) -> str:
        return f"<PaperMesh {len(self.resources)} resources, {len(self.inhabitants)} workloads>"

    def snapshot(self, inhabitant: Inhabitant) -> Snapshot:
        """Raises DecodeError for what no sidecar would take."""
        return self._judge(inhabitant).snapshot

    def authorizer(self, inhabitant: Inhabitant) -> Authorizer:
        return self._judge(inhabitant).authorizer

    def tls(self, inhabitant: Inhabitant, port: int) -> PortTls:
        """What the port takes now."""
        return self._judge(inhabitant).tls(port)

    def judge(self, inhabitant: Inhabitant, call: Call) -> Outcome:
        return self._judge(inhabitant).judge(call)

    def _judge(self, inhabitant: Inhabitant) -> _Judge:
        held = self._judges.get(inhabitant.service_name)
        if held is None or held.inhabitant is not inhabitant:
            held = self._judges[inhabitant.service_name] = _Judge(inhabitant, self._compile(inhabitant), self.now)
        return held

    def _compile(self, inhabitant: Inhabitant) -> Snapshot:
        workload = Workload(workload_id=1, spec=inhabitant.spec, joined_at=self.now)
        message = compile_content(self._world, workload, ()).message
        message.epoch, message.version = self._world.epoch, self._world.revision
        return snapshot_from_proto(message)


class _Judge:
    """One workload's sidecar, as far as it decides."""

    def __init__(self, inhabitant: Inhabitant, snapshot: Snapshot, now: float) -> None:
        self.inhabitant = inhabitant
        self.snapshot = snapshot
        self.authorizer = Authorizer(snapshot)
        self._now = now

    def tls(self, port: int) -> PortTls:
        held = self.snapshot.peer_authentication.port(port)
        return replace(held, mode=mode_at(held, self._now))

    def judge(self, call: Call) -> Outcome:
        tls = self.snapshot.peer_authentication.port(call.port)
        # Where plaintext is for named peers, one of whom no address is known is none of them.
        if call.principal is None and (why := refused_at_the_door(tls, call.source_ip or _NOWHERE, self._now)):
            return _refused(NO_MUTUAL_TLS, why, tls.source)
        is_http = self.inhabitant.ports.get(call.port, Protocol.HTTP1) is not Protocol.TCP
        path, token = "", None
        if is_http:
            try:
                path = canonical(call.path.encode("utf-8"), call.method.encode("utf-8")).path
            except PathError as error:
                return _refused(BAD_PATH, f"a sidecar answers 400: {error}", "")
            if call.claims is not None:
                refusal, token = self._token(call.claims)
                if refusal is not None:
                    return refusal
        facts = Facts(
            principal=None if mode_at(tls, self._now) is TlsMode.DISABLE else call.principal,
            host=(call.host or self.inhabitant.service_name).lower() if is_http else "",
            port=call.port,
            method=call.method if is_http else "",
            path=path,
            source_ip=call.source_ip,
            remote_ip=call.remote_ip,
            destination_ip=call.destination_ip,
            sni=call.sni,
            headers=call.headers if is_http else (),
            token=token,
        )
        return _decided(explain(self.authorizer, facts))

    def _token(self, claims: Mapping[str, Json]) -> tuple[Outcome | None, Token | None]:
        """What a sidecar makes of a token with these claims whose signature and times hold. What they leave out of
        `iss` and `aud` is as the only issuer would write it."""
        authentications = self.snapshot.request_authentications
        rules = [rule for one in authentications for rule in one.jwt_rules]
        if not rules:
            return None, None  # nobody looks at it
        source = next(one.source for one in authentications if one.jwt_rules)
        issuers = {rule.issuer for rule in rules}
        issuer = claims.get("iss", next(iter(issuers)) if len(issuers) == 1 else None)
        ours = [rule for rule in rules if rule.issuer == issuer]
        if not isinstance(issuer, str) or not ours:
            what = f"a token of {issuer}" if issuer is not None else "a token that names no issuer (`iss`)"
            return _refused(
                BAD_TOKEN, f"{what} is answered 401; taken are those of {', '.join(sorted(issuers))}", source
            ), None
        for rule in ours:
            audiences = _audiences(claims, rule)
            if audiences and (not rule.audiences or not set(rule.audiences).isdisjoint(audiences)):
                return None, _as_token(issuer, audiences, claims, rule)
        wanted = sorted({audience for rule in ours for audience in rule.audiences})
        return _refused(
            BAD_TOKEN, f"a token that is not for {' or '.join(wanted)} (`aud`) is answered 401", source
        ), None


def _audiences(claims: Mapping[str, Json], rule: JwtRule) -> tuple[str, ...]:
    found = claims.get("aud", rule.audiences[:1] or ("any",))
    if isinstance(found, str):
        return (found,)
    return tuple(one for one in found if isinstance(one, str)) if isinstance(found, tuple) else ()


def _as_token(issuer: str, audiences: tuple[str, ...], claims: Mapping[str, Json], rule: JwtRule) -> Token:
    subject, presenter = claims.get("sub", ""), claims.get("azp", "")
    return Token(
        issuer=issuer,
        subject=subject if isinstance(subject, str) else "",
        audiences=audiences,
        presenter=presenter if isinstance(presenter, str) else "",
        claims={"iss": issuer, "aud": audiences, **claims},
        expires_at=float("inf"),
        space_delimited=frozenset({"scope", "permission", *rule.space_delimited_claims}),
    )


def _refused(rule: str, reason: str, source: str) -> Outcome:
    return Outcome(
        allowed=False,
        rule=rule,
        reason=reason,
        source=source,
        shadow_allowed=False,
        shadow_rule=rule,
        explanation=None,
    )


def _decided(explanation: Explanation) -> Outcome:
    shadow = explanation.shadow
    return Outcome(
        allowed=explanation.allowed,
        rule=explanation.rule,
        reason=explanation.reason,
        source=explanation.source,
        shadow_allowed=explanation.allowed if shadow is None else isinstance(shadow, Permit),
        shadow_rule=explanation.rule if shadow is None else shadow.rule,
        explanation=explanation,
    )
