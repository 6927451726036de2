"""Rows C15 to C17, C20 to C24 and C29 of the catalogue of bad inputs, from the octets of a head to the verdict."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.rules.authz import Authorizer
from sidecar.rules.facts import Peer
from tests.policy import strategies
from tests.policy.heads import BILLING, MESH, allow, deny, ended, judged, opaque
from tests.policy.tables import snapshot_of
from tests.sidecar.http import playback
from tests.sidecar.rules.builders import workload

SECRET = "[{to: [{operation: {hosts: [secret.com]}}]}]"
BUT_SECRET = "[{to: [{operation: {notHosts: [secret.com]}}]}]"


@pytest.mark.parametrize("documents", [deny(SECRET), allow(BUT_SECRET)])
@pytest.mark.parametrize("host", b"Secret.com SECRET.COM sEcReT.cOm".split())
def test_c15_hosts_know_no_case(documents: str, host: bytes) -> None:
    """Lower-cased before anything matches or routes."""
    assert ended(documents, b"/", host=host) == "deny"


@pytest.mark.parametrize("documents", [deny(SECRET), allow(BUT_SECRET)])
@pytest.mark.parametrize("host", b"secret.com:443 secret.com:1 Secret.com:8080".split())
def test_c16_hosts_are_matched_without_their_port(documents: str, host: bytes) -> None:
    """A policy on a host holds on every port."""
    assert ended(documents, b"/", host=host) == "deny"


def test_c16_the_port_is_matched_apart() -> None:
    """By what was asked for, of what is served."""
    only = allow("[{to: [{operation: {hosts: [public.com], ports: [443]}}]}]")
    assert ended(only, b"/", host=b"public.com:443") == "allow"
    assert ended(only, b"/", host=b"public.com") == "deny"


@pytest.mark.parametrize("documents", [deny(SECRET), allow(BUT_SECRET)])
@pytest.mark.parametrize("host", b"secret.com. secret.com.:443 SECRET.com.:1".split())
def test_c17_a_dot_at_the_end_of_a_host_hides_nothing(documents: str, host: bytes) -> None:
    """Taken away."""
    assert ended(documents, b"/", host=host) == "deny"


@pytest.mark.parametrize("host", b"[::1%25eth0] [::1%eth0] [fe80::1%25lo]:80 secret.com.. [::1 [:::1]".split())
def test_c17_what_is_no_host_is_refused(host: bytes) -> None:
    """And crashes nothing."""
    assert ended(deny(SECRET), b"/", host=host) == "C17"


def test_c17_an_address_has_one_spelling() -> None:
    """RFC 5952."""
    documents = deny('[{to: [{operation: {hosts: ["[2001:db8::1]"]}}]}]')
    for host in (b"[2001:db8::1]", b"[2001:DB8::1]", b"[2001:0db8:0:0::1]:80", b"[2001:db8:0:0:0:0:0:1]"):
        assert ended(documents, b"/", host=host) == "deny"


@pytest.mark.parametrize(
    ("host", "is_meant"),
    [
        (b"a.example.com", True),
        (b"a.b.example.com", True),
        (b"A.B.Example.COM.:443", True),
        (b"example.com", False),
        (b"evilexample.com", False),
        (b"a.example.com.evil.com", False),
    ],
)
def test_c19_a_star_in_a_policy_is_a_suffix_as_in_istio(host: bytes, is_meant: bool) -> None:
    """Of any depth: a DENY of `*.example.com` that stopped after one label would be open to the next. In certificates
    it is one label (test_fetch.py)."""
    rules = '[{to: [{operation: {hosts: ["*.example.com"]}}]}]'
    assert ended(deny(rules), b"/", host=host) == ("deny" if is_meant else "allow")
    assert ended(allow(rules), b"/", host=host) == ("allow" if is_meant else "deny")


@given(strategies.SOURCE_FIELDS["principals"], st.sampled_from(sorted(set(strategies.CALLERS))))
def test_c20_one_matcher_for_http_and_tcp(principals: tuple[str, ...], caller: str) -> None:
    """Whatever a principal looks like, it says the same of a request and of an opaque exchange."""
    peer = Peer(workload(caller))
    for documents in (
        allow(f"[{{from: [{{source: {{principals: {list(principals)}}}}}]}}]"),
        deny(f"[{{from: [{{source: {{notPrincipals: {list(principals)}}}}}]}}]"),
    ):
        assert ended(documents, b"/", peer=peer) == opaque(documents, peer)


def test_c20_a_suffix_holds_for_http_and_tcp() -> None:
    """The case of CVE-2020-16844."""
    documents = deny('[{from: [{source: {principals: ["*/ns/other/sa/web"]}}]}]')
    for caller, verdict in (("other/web", "deny"), ("web", "allow"), ("other/webb", "allow")):
        assert ended(documents, b"/", peer=Peer(workload(caller))) == verdict
        assert opaque(documents, Peer(workload(caller))) == verdict


def test_c21_a_dot_in_an_identity_is_a_dot() -> None:
    """Nothing in a policy is a regular expression."""
    documents = allow("[{from: [{source: {principals: [mesh.local/ns/shop/sa/w.b]}}]}]")
    assert ended(documents, b"/", peer=Peer(workload("w.b"))) == "allow"
    for caller in ("web", "wxb", "w.bb"):
        assert ended(documents, b"/", peer=Peer(workload(caller))) == "deny"
    headers = allow('[{when: [{key: "request.headers[x-a]", values: ["v1.0", "(a+)+$", ".*"]}]}]')
    assert ended(headers, b"/", (b"x-a", b"v1.0")) == "allow"
    assert ended(headers, b"/", (b"x-a", b"v1x0")) == "deny"
    assert ended(headers, b"/", (b"x-a", b"a" * 4_000)) == "deny"


USER, ADMIN_ROLE = (b"x-role", b"user"), (b"x-role", b"admin")


def test_c22_every_value_of_a_repeated_header_counts() -> None:
    """DENY if any matches, ALLOW only if all do; in any order, whatever comes between."""
    role = '[{{when: [{{key: "request.headers[x-role]", {field}: [admin]}}]}}]'
    between = (b"x-other", b"1")
    for headers in (
        [USER, ADMIN_ROLE],
        [ADMIN_ROLE, USER],
        [USER, between, ADMIN_ROLE],
        [ADMIN_ROLE, ADMIN_ROLE, USER],
    ):
        assert ended(deny(role.format(field="values")), b"/", *headers) == "deny"
        assert ended(deny(role.format(field="notValues")), b"/", *headers) == "deny"
        assert ended(allow(role.format(field="values")), b"/", *headers) == "deny"
        assert ended(allow(role.format(field="notValues")), b"/", *headers) == "deny"
    assert ended(allow(role.format(field="values")), b"/", ADMIN_ROLE, ADMIN_ROLE) == "allow"
    assert ended(allow(role.format(field="notValues")), b"/", USER, USER) == "allow"
    assert ended(deny(role.format(field="values")), b"/", USER, USER) == "allow"


def test_c22_white_space_around_a_value_hides_nothing() -> None:
    """HTTP/1.1: no part of the value (RFC 9110 section 5.5); HTTP/2: refused (RFC 9113 section 8.2.1)."""
    authorizer = Authorizer(snapshot_of(deny('[{when: [{key: "request.headers[x-role]", values: [admin]}]}]'), BILLING))
    for value in (b" admin", b"admin ", b"\tadmin", b"  admin\t"):
        _, received = playback.asked(b"GET / HTTP/1.1\r\nHost: billing.shop\r\nx-role:%s\r\n\r\n" % value)
        assert judged(authorizer, Peer(workload("web")), received.heads[0]) == "deny"
        assert judged(authorizer, Peer(workload("web")), playback.get(b"/", (b"x-role", value))) == "B14"


def test_c23_http_in_a_policy_on_an_opaque_port() -> None:
    """ALLOW with HTTP fields never matches; DENY with them matches on the rest."""
    web = Peer(workload("web"))
    for rules in (
        "[{to: [{operation: {methods: [GET]}}]}]",
        "[{to: [{operation: {notMethods: [PUT]}}]}]",
        '[{to: [{operation: {paths: ["*"]}}]}]',
        '[{to: [{operation: {notPaths: ["/admin"]}}]}]',
        "[{to: [{operation: {notHosts: [secret.com]}}]}]",
        '[{when: [{key: "request.headers[x-a]", notValues: [b]}]}]',
        "[{from: [{source: {notRequestPrincipals: [x]}}]}]",
        '[{when: [{key: "request.auth.claims[x]", notValues: [y]}]}]',
    ):
        assert opaque(allow(rules), web) == "deny"
        assert opaque(deny(rules), web) == "deny"
    by_port = deny("[{to: [{operation: {ports: [5432], methods: [GET]}}]}]")
    assert [opaque(by_port, web, port) for port in (5432, 5433)] == ["deny", "allow"]
    by_peer = deny('[{from: [{source: {principals: ["*/sa/load"], requestPrincipals: ["*"]}}]}]')
    assert [opaque(by_peer, Peer(workload(caller))) for caller in ("load", "web")] == ["deny", "allow"]


@pytest.mark.parametrize(
    "source",
    [
        'principals: ["*"]',
        "notPrincipals: [x/ns/a/sa/b]",
        'namespaces: ["*"]',
        "notNamespaces: [other]",
        "notServiceAccounts: [x]",
    ],
)
def test_c24_nobody_is_let_in_by_an_identity(source: str) -> None:
    """Neither by having none of them nor by not being one; and nobody escapes a negation in DENY."""
    nobody = Peer(None, source_ip="10.0.0.1")
    documents = allow(f"[{{from: [{{source: {{{source}}}}}]}}]")
    assert (ended(documents, b"/", peer=nobody), opaque(documents, nobody)) == ("deny", "deny")
    assert ended(documents, b"/") == "allow"
    if source.startswith("not"):
        documents = deny(f"[{{from: [{{source: {{{source}}}}}]}}]")
        assert (ended(documents, b"/", peer=nobody), opaque(documents, nobody)) == ("deny", "deny")


@pytest.mark.parametrize(
    "address", ["10.0.0.1", "::ffff:10.0.0.1", "::ffff:a00:1", "0:0:0:0:0:ffff:0a00:0001", "::FFFF:10.0.0.1"]
)
def test_c29_a_mapped_address_is_the_ipv4_address(address: str) -> None:
    """In every spelling, for the connection and for what a trusted proxy says, in DENY and in ALLOW."""
    peer = Peer(workload("web"), source_ip=address, destination_ip=address)
    for field in ("ipBlocks", "remoteIpBlocks"):
        assert ended(deny(f"[{{from: [{{source: {{{field}: [10.0.0.0/8]}}}}]}}]"), b"/", peer=peer) == "deny"
        assert ended(allow(f"[{{from: [{{source: {{{field}: [10.0.0.0/8]}}}}]}}]"), b"/", peer=peer) == "allow"
        not_field = "not" + field[0].upper() + field[1:]
        assert ended(allow(f"[{{from: [{{source: {{{not_field}: [10.0.0.0/8]}}}}]}}]"), b"/", peer=peer) == "deny"
    for key in ("source.ip", "remote.ip", "destination.ip"):
        assert ended(deny(f"[{{when: [{{key: {key}, values: [10.0.0.0/8]}}]}}]"), b"/", peer=peer) == "deny"
    proxied = MESH.format(spec="{trustedProxiesCount: 1}")
    documents = deny("[{from: [{source: {remoteIpBlocks: [10.0.0.0/8]}}]}]") + proxied
    forwarded = (b"x-forwarded-for", b"192.0.2.1, " + address.encode("ascii"))
    assert ended(documents, b"/", forwarded, peer=Peer(workload("web"), source_ip="192.0.2.9")) == "deny"
