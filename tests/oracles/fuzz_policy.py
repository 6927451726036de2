"""Any bytes at all as policy documents: refused with places, or read into what the sidecar's decoder gives back.

An input is UTF-8; octets that are not become lone surrogates. What is accepted is encoded, decoded as a sidecar does,
and must be equal; read again from its own text, as the store keeps it, it must mean the same.
"""

from __future__ import annotations

from certs.spiffe_id import TrustDomain
from control_plane.policy.compile import (
    peer_authentication_for,
    peer_authentication_to_proto,
    policy_to_proto,
    request_authentication_to_proto,
    resolved,
)
from control_plane.policy.model import (
    PROBLEMS_MAX,
    MeshConfigSpec,
    ParsedResource,
    PeerAuthenticationSpec,
    PolicyErrors,
    PolicySpec,
    RequestAuthenticationSpec,
)
from control_plane.policy.parse import parse_documents
from control_plane.push.snapshot import with_source
from protos.hauberk.v1 import discovery_pb2 as pb
from sidecar.rules import decode_policies

INPUT_OCTETS_MAX = 65_536
SAID_OCTETS_MAX = 200_000
"""Of all problems of one input together."""
TRUST_DOMAIN = TrustDomain.parse("mesh.local")


class _Member:
    """Whom a PeerAuthentication selects."""

    def __init__(self, spec: PeerAuthenticationSpec) -> None:
        self.namespace, self.service, self.labels = spec.namespace, "", spec.selection.labels


def one_input(data: bytes) -> None:
    """AssertionError, or whatever the parser or the decoder raised: a bug."""
    if len(data) > INPUT_OCTETS_MAX:
        return
    text = data.decode("utf-8", "surrogateescape")
    for resource in parsed(text):
        check(resource)


def parsed(text: str) -> list[ParsedResource]:
    """None of them if it was refused, in words that are fit to be shown."""
    try:
        return parse_documents(text, "fuzz.yaml")
    except PolicyErrors as errors:
        problems = errors.problems
    said = "\n".join(map(str, problems))
    assert 1 <= len(problems) <= PROBLEMS_MAX
    assert len(said) <= SAID_OCTETS_MAX
    assert said.isascii() or not text.isascii()
    assert all(line.isprintable() for line in said.split("\n")), said
    return []


def check(resource: ParsedResource) -> None:
    """It reaches the sidecar as it is, and is the same after the store."""
    spec = resource.spec
    match spec:
        case PolicySpec(policy=policy):
            for one in (policy, resolved(policy, TRUST_DOMAIN)):
                message = pb.AuthorizationPolicy.FromString(policy_to_proto(one).SerializeToString())
                assert decode_policies.policy_from_proto(message) == one
        case PeerAuthenticationSpec():
            peer = peer_authentication_for([spec], _Member(spec), MeshConfigSpec())
            sent = pb.PeerAuthentication.FromString(peer_authentication_to_proto(peer).SerializeToString())
            assert decode_policies.peer_authentication(sent, "peer") == peer
        case RequestAuthenticationSpec(authentication=request):
            told = pb.RequestAuthentication.FromString(request_authentication_to_proto(request).SerializeToString())
            assert decode_policies.request_authentications([told]) == (request,)
        case MeshConfigSpec():
            pass
    (again,) = parse_documents(resource.yaml, "store.yaml")
    assert with_source(again.spec, resource.source) == spec
    assert again.warnings == resource.warnings
