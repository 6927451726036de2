"""sidecar/rules/decode.py: a snapshot is taken whole or not at all."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import pytest
from google.protobuf.message import DecodeError as ProtobufError
from hypothesis import given, settings
from hypothesis import strategies as st

from protos.hauberk.v1 import discovery_pb2 as pb
from sidecar.rules import decode, decode_trust
from sidecar.rules.authz import Authorizer, Facts, Permit
from sidecar.rules.decode import snapshot_from_proto
from sidecar.rules.errors import DecodeError
from sidecar.rules.snapshot import (
    Action,
    Operation,
    PeerAuthentication,
    PortTls,
    Protocol,
    Snapshot,
    Source,
    TlsMode,
    When,
)
from tests.certs import forge
from tests.sidecar.rules.builders import workload

ANCHOR = forge.root().der


def message() -> pb.Snapshot:
    """A snapshot with one of everything."""
    return pb.Snapshot(
        epoch=3,
        version=9,
        trust_domain="mesh.local",
        workload=pb.Workload(
            spiffe_id="spiffe://mesh.local/ns/shop/sa/billing", service="billing", namespace="shop", labels={"app": "b"}
        ),
        default_action=pb.DEFAULT_ACTION_DENY,
        policies=[
            pb.AuthorizationPolicy(
                name="p",
                namespace="shop",
                action=pb.ACTION_ALLOW,
                source="p.yaml:3",
                rules=[
                    pb.Rule(
                        sources=[pb.Source(principals=["mesh.local/ns/shop/sa/web"], not_namespaces=["x*"])],
                        operations=[pb.Operation(ports=["8080"], paths=["/a*"], not_methods=["PUT"])],
                        when=[pb.When(key="request.headers[x-tenant]", values=["one"])],
                        line=7,
                    )
                ],
            )
        ],
        services=[
            pb.Service(
                name="orders",
                namespace="shop",
                known=True,
                endpoints=[
                    pb.Endpoint(
                        address="127.0.0.1:15008",
                        spiffe_id="spiffe://mesh.local/ns/shop/sa/orders",
                        instance="i1",
                        ports=[pb.InboundPort(port=9090, protocol=pb.PROTOCOL_HTTP2)],
                    )
                ],
            ),
            pb.Service(name="ghost", namespace="shop"),
        ],
        trust_anchors_der=[ANCHOR],
        certificate_lifetime_s=3600,
        peer_authentication=pb.PeerAuthentication(
            rest=pb.PortTls(mode=pb.TLS_MODE_STRICT),
            ports={8080: pb.PortTls(mode=pb.TLS_MODE_PERMISSIVE, until=2e9, peers=["10.0.0.0/8"], source="p.yaml:9")},
        ),
        request_authentications=[
            pb.RequestAuthentication(
                name="users",
                namespace="shop",
                source="u.yaml:1",
                jwt_rules=[
                    pb.JwtRule(
                        issuer="https://id.example",
                        jwks_uri="https://id.example/keys",
                        audiences=["shop"],
                        from_headers=[pb.JwtHeader(name="x-token", prefix="JWT ")],
                        output_claim_to_headers=[pb.ClaimToHeader(header="x-user", claim="sub")],
                    )
                ],
            )
        ],
        trusted_proxies_count=1,
    )


def test_a_whole_snapshot_is_decoded() -> None:
    """Every field arrives where it belongs."""
    snapshot = snapshot_from_proto(message())
    assert (snapshot.epoch, snapshot.version, snapshot.certificate_lifetime_s) == (3, 9, 3600)
    assert (snapshot.service, snapshot.namespace, dict(snapshot.labels)) == ("billing", "shop", {"app": "b"})
    assert snapshot.identity == workload("billing")
    assert snapshot.default_action is Action.DENY
    (policy,) = snapshot.policies
    assert (policy.full_name, policy.action, policy.source) == ("shop/p", Action.ALLOW, "p.yaml:3")
    assert policy.rules[0].sources == (Source(principals=("mesh.local/ns/shop/sa/web",), not_namespaces=("x*",)),)
    assert policy.rules[0].operations == (Operation(ports=("8080",), paths=("/a*",), not_methods=("PUT",)),)
    (endpoint,) = snapshot.services["orders.shop"].endpoints
    assert (endpoint.address, endpoint.instance, dict(endpoint.ports)) == (
        "127.0.0.1:15008",
        "i1",
        {9090: Protocol.HTTP2},
    )
    assert endpoint.identity == workload("orders")
    assert not snapshot.services["ghost.shop"].known
    assert snapshot.trust_anchors_der == (ANCHOR,)


def test_a_decoded_snapshot_does_not_change() -> None:
    """It is replaced whole; even its mappings are closed."""
    snapshot = snapshot_from_proto(message())
    for mapping in (snapshot.labels, snapshot.services, snapshot.services["orders.shop"].endpoints[0].ports):
        with pytest.raises(TypeError):
            mapping["new"] = "x"  # type: ignore[index]  # which is the point


def test_a_decoded_snapshot_decides() -> None:
    """The evaluator takes it as it is."""
    authorizer = Authorizer(snapshot_from_proto(message()))
    asked = Facts(
        principal=workload("web"), host="b", port=8080, method="GET", path="/a", headers=(("x-tenant", "one"),)
    )
    assert isinstance(authorizer.authorize(asked), Permit)
    assert authorizer.rule_source("shop/p#0") == "p.yaml:7"


def _unknown_field(target: Callable[[pb.Snapshot], object]) -> Callable[[pb.Snapshot], None]:
    """Puts field number 999 into one message, as a newer control plane would."""

    def change(snapshot: pb.Snapshot) -> None:
        part = target(snapshot)
        part.MergeFromString(b"\xba\x3e\x01x")  # type: ignore[attr-defined]  # any message; 999 << 3 | 2, 1 byte, "x"

    return change


NEWER: dict[str, tuple[Callable[[pb.Snapshot], object], str]] = {
    "snapshot": (lambda s: s, "snapshot"),
    "workload": (lambda s: s.workload, "workload"),
    "policy": (lambda s: s.policies[0], "policies[0]"),
    "rule": (lambda s: s.policies[0].rules[0], "policies[0].rules[0]"),
    "source": (lambda s: s.policies[0].rules[0].sources[0], "policies[0].rules[0].sources[0]"),
    "operation": (lambda s: s.policies[0].rules[0].operations[0], "policies[0].rules[0].operations[0]"),
    "service": (lambda s: s.services[1], "services[1]"),
    "endpoint": (lambda s: s.services[0].endpoints[0], "services[0].endpoints[0]"),
    "port": (lambda s: s.services[0].endpoints[0].ports[0], "services[0].endpoints[0].ports[0]"),
}


@pytest.mark.parametrize("where", NEWER)
def test_h02_an_unknown_field_anywhere_refuses_the_snapshot(where: str) -> None:
    """protobuf would drop a newer control plane's condition without a word, and widen the rule."""
    target, field = NEWER[where]
    changed = message()
    _unknown_field(target)(changed)
    with pytest.raises(DecodeError, match="field number 999 is not known") as caught:
        snapshot_from_proto(changed)
    assert caught.value.field == field


def test_h02_an_unknown_field_survives_the_wire_and_is_found() -> None:
    """Not only when set in memory."""
    changed = message()
    _unknown_field(lambda s: s.policies[0].rules[0].sources[0])(changed)
    received = pb.Snapshot.FromString(changed.SerializeToString())
    with pytest.raises(DecodeError, match="not known to this version"):
        snapshot_from_proto(received)


def edit(path: str, value: object) -> Callable[[pb.Snapshot], None]:
    """Sets one field, named as Python would."""

    def change(snapshot: pb.Snapshot) -> None:
        *parents, last = path.split(".")
        part: object = snapshot
        for name in parents:
            part = part[int(name)] if name.isdigit() else getattr(part, name)  # type: ignore[index]  # a list of messages
        if isinstance(value, list):
            del getattr(part, last)[:]
            getattr(part, last).extend(value)
        else:
            setattr(part, last, value)

    return change


ENDPOINT = "services.0.endpoints.0"
SOURCE = "policies.0.rules.0.sources.0"
OPERATION = "policies.0.rules.0.operations.0"
WHEN = "policies.0.rules.0.when.0"
JWT = "request_authentications.0.jwt_rules.0"
REFUSED = [
    ("version", 0, "version"),
    ("trust_domain", "", "trust_domain"),
    ("trust_domain", "Mesh.Local", "trust_domain"),
    ("workload.spiffe_id", "", "workload.spiffe_id"),
    ("workload.spiffe_id", "spiffe://evil.local/ns/shop/sa/billing", "workload.spiffe_id"),
    ("workload.spiffe_id", "spiffe://mesh.local/hauberk/control-plane", "workload.spiffe_id"),
    ("workload.namespace", "other", "workload.namespace"),
    ("workload.namespace", "", "workload.namespace"),
    ("workload.service", "Billing", "workload.service"),
    ("workload.service", "bill\u0456ng", "workload.service"),
    ("default_action", pb.DEFAULT_ACTION_UNSPECIFIED, "default_action"),
    ("default_action", 17, "default_action"),
    ("certificate_lifetime_s", 0, "certificate_lifetime_s"),
    ("certificate_lifetime_s", 86_401, "certificate_lifetime_s"),
    ("trust_anchors_der", [], "trust_anchors_der"),
    ("trust_anchors_der", [b"not DER"], "trust_anchors_der"),
    ("policies.0.action", pb.ACTION_UNSPECIFIED, "policies[0].action"),
    ("policies.0.action", 4, "policies[0].action"),
    ("policies.0.name", "", "policies[0].name"),
    ("policies.0.name", "a\0b", "policies[0].name"),
    ("policies.0.namespace", "SHOP", "policies[0].namespace"),
    ("policies.0.source", "a\nb", "policies[0].source"),
    (f"{SOURCE}.principals", [""], "policies[0].rules[0].sources[0].principals[0]"),
    (f"{SOURCE}.principals", ["ok", "a*b"], "policies[0].rules[0].sources[0].principals[1]"),
    (f"{SOURCE}.principals", ["**"], "policies[0].rules[0].sources[0].principals[0]"),
    (f"{SOURCE}.not_namespaces", ["a\n"], "policies[0].rules[0].sources[0].not_namespaces[0]"),
    (f"{OPERATION}.paths", ["/" + "a" * 3000], "policies[0].rules[0].operations[0].paths[0]"),
    (f"{OPERATION}.paths", ["/\u00e9"], "policies[0].rules[0].operations[0].paths[0]"),
    (f"{OPERATION}.ports", ["080"], "policies[0].rules[0].operations[0].ports[0]"),
    (f"{OPERATION}.ports", ["0"], "policies[0].rules[0].operations[0].ports[0]"),
    (f"{OPERATION}.ports", ["65536"], "policies[0].rules[0].operations[0].ports[0]"),
    (f"{OPERATION}.ports", ["80*"], "policies[0].rules[0].operations[0].ports[0]"),
    (f"{OPERATION}.not_ports", [""], "policies[0].rules[0].operations[0].not_ports[0]"),
    (f"{OPERATION}.ports", ["9" * 5000], "policies[0].rules[0].operations[0].ports[0]"),
    (f"{SOURCE}.ip_blocks", ["10.0.0.1/8"], "policies[0].rules[0].sources[0].ip_blocks[0]"),
    (f"{SOURCE}.ip_blocks", ["10.0.0.0/08"], "policies[0].rules[0].sources[0].ip_blocks[0]"),
    (
        f"{SOURCE}.not_remote_ip_blocks",
        ["::ffff:10.0.0.0/104"],
        "policies[0].rules[0].sources[0].not_remote_ip_blocks[0]",
    ),
    (f"{SOURCE}.request_principals", ["a*b"], "policies[0].rules[0].sources[0].request_principals[0]"),
    (f"{OPERATION}.paths", ["/a/{*}b"], "policies[0].rules[0].operations[0].paths[0]"),
    (f"{OPERATION}.not_paths", ["/{**}/{**}"], "policies[0].rules[0].operations[0].not_paths[0]"),
    (f"{WHEN}.key", "request.header[x]", "policies[0].rules[0].when[0].key"),
    (f"{WHEN}.key", "source.ip", "policies[0].rules[0].when[0].values[0]"),
    (f"{WHEN}.key", "destination.port", "policies[0].rules[0].when[0].values[0]"),
    (f"{WHEN}.values", [], "policies[0].rules[0].when[0]"),
    (f"{WHEN}.not_values", ["\u00e9"], "policies[0].rules[0].when[0].not_values[0]"),
    ("trusted_proxies_count", 17, "trusted_proxies_count"),
    ("peer_authentication.rest.mode", pb.TLS_MODE_UNSPECIFIED, "peer_authentication.rest.mode"),
    ("peer_authentication.rest.mode", 9, "peer_authentication.rest.mode"),
    ("peer_authentication.rest.until", float("nan"), "peer_authentication.rest.until"),
    ("peer_authentication.rest.until", -1.0, "peer_authentication.rest.until"),
    ("peer_authentication.rest.peers", ["10.0.0.1/8"], "peer_authentication.rest.peers[0]"),
    (f"{JWT}.issuer", "", "request_authentications[0].jwt_rules[0].issuer"),
    (f"{JWT}.jwks_uri", "", "request_authentications[0].jwt_rules[0]"),
    (f"{JWT}.discover", True, "request_authentications[0].jwt_rules[0]"),
    (f"{JWT}.jwks", "x" * 70_000, "request_authentications[0].jwt_rules[0]"),
    (f"{JWT}.timeout_s", 1e9, "request_authentications[0].jwt_rules[0].timeout_s"),
    (f"{JWT}.audiences", ["a\0"], "request_authentications[0].jwt_rules[0].audiences[0]"),
    *(
        (f"{JWT}.output_payload_to_header", name, "request_authentications[0].jwt_rules[0].output_payload_to_header")
        for name in (
            ":path",
            "X-User",
            "x user",
            "x-user\r\nx-a",
            "a" * 129,
            "host",
            "content-length",
            "transfer-encoding",
            "cookie",
            "authorization",
            "x-hauberk-principal",
            "x_hauberk_principal",
            "x-forwarded-client-cert",
            "x.forwarded.for",
            "x-http-method-override",
        )
    ),
    *(
        (
            f"{JWT}.output_claim_to_headers",
            [pb.ClaimToHeader(header="x-a", claim="a"), pb.ClaimToHeader(header=header, claim=claim)],
            f"request_authentications[0].jwt_rules[0].output_claim_to_headers[1].{part}",
        )
        for header, claim, part in (
            ("X-User", "sub", "header"),
            ("", "sub", "header"),
            ("te", "sub", "header"),
            ("x-hauberk-principal", "sub", "header"),
            ("x-a", "sub", "header"),
            ("x-b", "", "claim"),
        )
    ),
    *(
        (
            f"{JWT}.from_headers",
            [pb.JwtHeader(name=name, prefix=prefix)],
            f"request_authentications[0].jwt_rules[0].from_headers[0].{part}",
        )
        for name, prefix, part in (
            ("X-Token", "", "name"),
            ("", "", "name"),
            (":path", "", "name"),
            ("connection", "", "name"),
            ("x-forwarded-client-cert", "", "name"),
            ("x-token", "a\n", "prefix"),
        )
    ),
    ("request_authentications.0.namespace", "Shop", "request_authentications[0].namespace"),
    ("policies.0.rules.0.sources", [pb.Source()], "policies[0].rules[0].sources[0]"),
    ("policies.0.rules.0.operations", [pb.Operation()], "policies[0].rules[0].operations[0]"),
    ("services.0.name", "", "services[0].name"),
    ("services.0.namespace", "a.b", "services[0].namespace"),
    ("services.0.known", False, "services[0].known"),
    (f"{ENDPOINT}.address", "localhost:80", "services[0].endpoints[0].address"),
    (f"{ENDPOINT}.address", "127.0.0.1", "services[0].endpoints[0].address"),
    (f"{ENDPOINT}.address", "127.0.0.1:", "services[0].endpoints[0].address"),
    (f"{ENDPOINT}.address", "127.0.0.1:0", "services[0].endpoints[0].address"),
    (f"{ENDPOINT}.address", "127.0.0.1:70000", "services[0].endpoints[0].address"),
    (f"{ENDPOINT}.address", "127.1:80", "services[0].endpoints[0].address"),
    (f"{ENDPOINT}.address", "0.0.0.0:80", "services[0].endpoints[0].address"),
    (f"{ENDPOINT}.address", "[::]:80", "services[0].endpoints[0].address"),
    (f"{ENDPOINT}.address", "::1:80", "services[0].endpoints[0].address"),
    (f"{ENDPOINT}.address", "[127.0.0.1]:80", "services[0].endpoints[0].address"),
    (f"{ENDPOINT}.address", "[fe80::1%eth0]:80", "services[0].endpoints[0].address"),
    (f"{ENDPOINT}.address", "224.0.0.1:80", "services[0].endpoints[0].address"),
    (f"{ENDPOINT}.address", "unix:/run/x", "services[0].endpoints[0].address"),
    (f"{ENDPOINT}.spiffe_id", "mesh.local/ns/shop/sa/orders", "services[0].endpoints[0].spiffe_id"),
    (f"{ENDPOINT}.spiffe_id", "spiffe://evil/ns/shop/sa/orders", "services[0].endpoints[0].spiffe_id"),
    (f"{ENDPOINT}.spiffe_id", "spiffe://mesh.local/hauberk/operator/x", "services[0].endpoints[0].spiffe_id"),
    (f"{ENDPOINT}.instance", "", "services[0].endpoints[0].instance"),
    (f"{ENDPOINT}.ports.0.port", 0, "services[0].endpoints[0].ports[0].port"),
    (f"{ENDPOINT}.ports.0.port", 65_536, "services[0].endpoints[0].ports[0].port"),
    (f"{ENDPOINT}.ports.0.protocol", pb.PROTOCOL_UNSPECIFIED, "services[0].endpoints[0].ports[0].protocol"),
    (f"{ENDPOINT}.ports.0.protocol", 9, "services[0].endpoints[0].ports[0].protocol"),
]


@pytest.mark.parametrize(("path", "value", "field"), REFUSED)
def test_h01_one_bad_value_refuses_the_whole_snapshot(path: str, value: object, field: str) -> None:
    """And the error names its field."""
    changed = message()
    edit(path, value)(changed)
    with pytest.raises(DecodeError) as caught:
        snapshot_from_proto(changed)
    assert caught.value.field == field
    assert str(caught.value).isascii()


@pytest.mark.parametrize("part", ["policies", "services", "services.0.endpoints", f"{ENDPOINT}.ports"])
def test_nothing_may_be_there_twice(part: str) -> None:
    """The last of two would win, or the first: nobody should have to know."""
    changed = message()
    *parents, last = part.split(".")
    owner: object = changed
    for name in parents:
        owner = owner[int(name)] if name.isdigit() else getattr(owner, name)  # type: ignore[index]  # as in edit
    repeated = getattr(owner, last)
    repeated.append(repeated[0])
    with pytest.raises(DecodeError, match="twice"):
        snapshot_from_proto(changed)


def test_h09_more_than_ten_thousand_rules_are_refused() -> None:
    """Ten thousand are not."""
    changed = message()
    changed.policies[0].rules.extend(pb.Rule() for _ in range(decode.RULES_MAX - 1))
    assert len(snapshot_from_proto(changed).policies[0].rules) == decode.RULES_MAX
    changed.policies[0].rules.append(pb.Rule())
    with pytest.raises(DecodeError, match="10001 rules"):
        snapshot_from_proto(changed)


def test_h09_too_many_values_or_endpoints_are_refused() -> None:
    """Memory and time stay within a bound."""
    changed = message()
    changed.policies[0].rules[0].operations[0].paths.extend(["/x"] * decode.VALUES_MAX)
    with pytest.raises(DecodeError, match="values"):
        snapshot_from_proto(changed)
    changed = message()
    changed.services[0].endpoints.extend(pb.Endpoint() for _ in range(decode.ENDPOINTS_MAX))
    with pytest.raises(DecodeError, match="endpoints"):
        snapshot_from_proto(changed)


@settings(max_examples=300)
@given(st.data())
def test_damaged_bytes_are_decoded_or_refused_and_nothing_else(data: st.DataObject) -> None:
    """Whatever protobuf lets through either becomes a snapshot or a DecodeError."""
    octets = bytearray(message().SerializeToString())
    for _ in range(data.draw(st.integers(1, 3))):
        octets[data.draw(st.integers(0, len(octets) - 1))] = data.draw(st.integers(0, 255))
    try:
        received = pb.Snapshot.FromString(bytes(octets))
    except ProtobufError:
        return
    with contextlib.suppress(DecodeError):
        assert isinstance(snapshot_from_proto(received), Snapshot)


def test_what_a_port_takes_and_whose_tokens_arrive_where_they_belong() -> None:
    """PeerAuthentication and RequestAuthentication."""
    snapshot = snapshot_from_proto(message())
    tls = snapshot.peer_authentication
    assert tls.port(9090) == PortTls(mode=TlsMode.STRICT)
    assert tls.port(8080) == PortTls(mode=TlsMode.PERMISSIVE, until=2e9, peers=("10.0.0.0/8",), source="p.yaml:9")
    (users,) = snapshot.request_authentications
    (rule,) = users.jwt_rules
    assert (rule.issuer, rule.audiences, rule.from_headers) == ("https://id.example", ("shop",), (("x-token", "JWT "),))
    assert rule.output_claim_to_headers == (("x-user", "sub"),)
    assert snapshot.trusted_proxies_count == 1
    assert snapshot.policies[0].rules[0].when == (When(key="request.headers[x-tenant]", values=("one",)),)


def test_nothing_said_of_mutual_tls_means_strict() -> None:
    """Fail closed."""
    changed = message()
    changed.ClearField("peer_authentication")
    assert snapshot_from_proto(changed).peer_authentication == PeerAuthentication()


@pytest.mark.parametrize("port", [0, 65_536])
def test_h01_a_port_that_is_none_refuses_the_whole_snapshot(port: int) -> None:
    """In a map, too."""
    changed = message()
    changed.peer_authentication.ports[port].mode = pb.TLS_MODE_STRICT
    with pytest.raises(DecodeError, match=r"peer_authentication\.ports"):
        snapshot_from_proto(changed)


def test_h02_an_unknown_field_within_a_map_is_found() -> None:
    """protobuf would drop it."""
    changed = message()
    changed.peer_authentication.ports[9090].MergeFromString(b"\x08\x01\xf8\x07\x01")
    with pytest.raises(DecodeError, match="field number 127") as caught:
        snapshot_from_proto(changed)
    assert caught.value.field == "peer_authentication.ports[9090]"


def test_j09_keys_nested_without_end_refuse_the_snapshot() -> None:
    """As everything else does that cannot be read: with DecodeError, which keeps the snapshot in force."""
    with pytest.raises(DecodeError, match="is no JSON"):
        decode_trust.jwt_keys('{"keys":' + "[" * 60_000)
