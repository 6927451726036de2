"""The whole way of a request head, for the rows of the catalogue of bad inputs: octets -> session -> `admit_request` ->
verdict. Every head comes twice, as HTTP/1.1 text and as the fields of HTTP/2; the two must end alike."""

from __future__ import annotations

from sidecar.errors import RequestError
from sidecar.http.headers import RequestHead, admit_request
from sidecar.http.session import Fields
from sidecar.rules.authz import Authorizer, Permit
from sidecar.rules.facts import Peer
from tests.policy.plain import Called
from tests.policy.tables import snapshot_of
from tests.sidecar.http import playback
from tests.sidecar.rules.builders import workload

PORT = 8080
BILLING = Called(service="billing", namespace="shop", labels={"app": "billing"})
POLICY = """
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: {name}, namespace: shop}}
spec: {{action: {action}, rules: {rules}}}
---
"""
MESH = """
apiVersion: hauberk.dev/v1
kind: MeshConfig
metadata: {{name: default}}
spec: {spec}
"""
EVERYTHING = POLICY.format(name="a", action="ALLOW", rules="[{}]")
ADMIN = "[{to: [{operation: {paths: [/admin]}}]}]"
DENY_ADMIN = EVERYTHING + POLICY.format(name="d", action="DENY", rules=ADMIN)
ALLOW_BUT_ADMIN = POLICY.format(
    name="a", action="ALLOW", rules='[{to: [{operation: {paths: ["/*"], notPaths: [/admin]}}]}]'
)
BOTH = (DENY_ADMIN, ALLOW_BUT_ADMIN)
"""Two ways to shut /admin."""


def deny(rules: str) -> str:
    return EVERYTHING + POLICY.format(name="d", action="DENY", rules=rules)


def allow(rules: str) -> str:
    return POLICY.format(name="a", action="ALLOW", rules=rules)


def ended(
    documents: str,
    target: bytes,
    *headers: tuple[bytes, bytes],
    host: bytes = b"billing.shop",
    peer: Peer | None = None,
) -> str:
    """ "allow", "deny", or the row for which the head was refused; the same for both protocols."""
    authorizer = Authorizer(snapshot_of(documents, BILLING))
    peer = peer or Peer(workload("web"))
    fields: Fields = [(b":method", b"GET"), (b":scheme", b"http"), (b":authority", host), (b":path", target), *headers]
    of_http2 = judged(authorizer, peer, fields)
    lines = b"".join(b"%s: %s\r\n" % header for header in headers)
    session, received = playback.asked(b"GET %s HTTP/1.1\r\nHost: %s\r\n%s\r\n" % (target, host, lines))
    if not received.heads:
        assert session.closed
        assert of_http2 not in ("allow", "deny"), "refused in HTTP/1.1 and taken in HTTP/2"
    else:
        assert judged(authorizer, peer, received.heads[0]) == of_http2
    return of_http2


def admitted(target: bytes) -> RequestHead:
    return admit_request(playback.get(target), True)


def judged(authorizer: Authorizer, peer: Peer, fields: Fields) -> str:
    try:
        head = admit_request(fields, True)
    except RequestError as refused:
        return str(refused.row)
    judge = authorizer.for_peer(peer)
    port = head.port if head.port in (PORT, 443) else PORT
    verdict = judge.authorize(head.host, port, head.method.decode("ascii"), head.path, head.fields)
    return "allow" if isinstance(verdict, Permit) else "deny"


def opaque(documents: str, peer: Peer, port: int = PORT) -> str:
    verdict = Authorizer(snapshot_of(documents, BILLING)).for_peer(peer).authorize("", port, "", "")
    return "allow" if isinstance(verdict, Permit) else "deny"
