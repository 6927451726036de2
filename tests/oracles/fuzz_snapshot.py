"""Any bytes at all as a Snapshot on the wire: refused by `DecodeError`, or a snapshot that judges without failing.

The trust anchor and the identity are put in, because a fuzzer would not guess a certificate and all else is read after
them.
"""

from __future__ import annotations

from functools import cache

from google.protobuf.message import DecodeError as NotProtobuf

from protos.hauberk.v1 import discovery_pb2 as pb
from sidecar.rules.authz import Authorizer, Facts
from sidecar.rules.decode import snapshot_from_proto
from sidecar.rules.errors import DecodeError
from sidecar.rules.explain import explain
from tests.certs.forge import make_ca

INPUT_OCTETS_MAX = 65_536
FACTS = (
    Facts(principal=None, port=5432),
    Facts(
        principal=None,
        host="orders.shop",
        port=8080,
        method="GET",
        path="/a;b/c",
        source_ip="10.1.2.3",
        headers=(("x-token", "a"), ("x-token", "b"), ("x-forwarded-for", "1.2.3.4")),
    ),
)


@cache
def _anchor() -> bytes:
    return make_ca().der


def framed(message: pb.Snapshot) -> pb.Snapshot:
    """With what a fuzzer would not guess."""
    del message.trust_anchors_der[:]
    message.trust_anchors_der.append(_anchor())
    message.trust_domain = "mesh.local"
    message.workload.spiffe_id = "spiffe://mesh.local/ns/shop/sa/orders"
    message.workload.namespace = "shop"
    message.workload.service = "orders"
    message.version = message.version or 1
    message.certificate_lifetime_s = 3_600
    return message


def one_input(data: bytes) -> None:
    """AssertionError, or whatever the decoder or the evaluator raised: a bug."""
    if len(data) > INPUT_OCTETS_MAX:
        return
    try:
        message = pb.Snapshot.FromString(data)
    except NotProtobuf:
        return
    try:
        snapshot = snapshot_from_proto(framed(message))
    except DecodeError as error:
        said = str(error)
        assert said.isprintable()
        assert len(said) < 2_000
        return
    authorizer = Authorizer(snapshot)
    for facts in FACTS:
        verdict = authorizer.authorize(facts)
        explained = explain(authorizer, facts)
        assert (explained.rule, explained.version) == (verdict.rule, verdict.version)
