"""Generated rules and requests that meet each other often."""

from __future__ import annotations

import dataclasses

from hypothesis import assume
from hypothesis import strategies as st

from certs.spiffe_id import SpiffeId, TrustDomain
from sidecar.rules.authz import Facts, Token
from sidecar.rules.snapshot import Action, Operation, PeerAuthentication, Rule, Snapshot, Source, When

TD = TrustDomain(name="m")
PATHS = ("/a", "/a/b", "/a/*", "/*", "*b", "*", "/a/{*}", "/a/{**}", "/a;x", "/c%3Bx", "/a*")
PRINCIPALS = ("m/ns/s/sa/w", "m/ns/s/sa/v", "m/ns/t/sa/w", "m/ns/s/*", "*/sa/w", "*", "m/other")
NAMESPACES = ("s", "t", "s*", "*")
BLOCKS = ("10.0.0.0/8", "10.1.0.0/16", "10.1.2.3", "0.0.0.0/0", "2001:db8::/32")
TEXTS = ("a", "ab", "a*", "*b", "*", "c")
HOSTS = ("o.s", "*.s", "x.t", "*")
ISSUED = ("i/u", "i/*", "*/u", "*", "j/v")


def some(values: tuple[str, ...]) -> st.SearchStrategy[tuple[str, ...]]:
    return st.lists(st.sampled_from(values), max_size=2, unique=True).map(tuple)


sources = st.builds(
    Source,
    principals=some(PRINCIPALS), not_principals=some(PRINCIPALS), namespaces=some(NAMESPACES),
    not_namespaces=some(NAMESPACES), request_principals=some(ISSUED), not_request_principals=some(ISSUED),
    ip_blocks=some(BLOCKS), not_ip_blocks=some(BLOCKS),
    remote_ip_blocks=some(BLOCKS), not_remote_ip_blocks=some(BLOCKS),
)  # fmt: skip
operations = st.builds(
    Operation,
    hosts=some(HOSTS), not_hosts=some(HOSTS), ports=some(("1", "2")), not_ports=some(("1", "2")),
    methods=some(("GET", "POST", "*")), not_methods=some(("GET", "POST", "P*")),
    paths=some(PATHS), not_paths=some(PATHS),
)  # fmt: skip
KEYS = {
    "request.headers[x]": TEXTS, "request.auth.claims[g]": TEXTS, "request.auth.audiences": TEXTS,
    "request.auth.presenter": TEXTS, "source.ip": BLOCKS, "remote.ip": BLOCKS, "destination.ip": BLOCKS,
    "source.principal": PRINCIPALS, "source.namespace": NAMESPACES, "connection.sni": HOSTS,
    "destination.port": ("1", "2"), "request.auth.principal": ISSUED, "source.serviceAccount": ("s/w", "t/w"),
}  # fmt: skip


@st.composite
def whens(draw: st.DrawFn) -> When:
    key = draw(st.sampled_from(sorted(KEYS)))
    values, not_values = draw(some(KEYS[key])), draw(some(KEYS[key]))
    assume(values or not_values)
    return When(key=key, values=values, not_values=not_values)


def few(fields: st.SearchStrategy[object]) -> st.SearchStrategy[tuple[object, ...]]:
    """Most fields left out, so that rules cover each other now and then."""

    @st.composite
    def thinned(draw: st.DrawFn) -> object:
        value = draw(fields)
        assert dataclasses.is_dataclass(value)
        names = [field.name for field in dataclasses.fields(value)]
        kept = draw(st.sets(st.sampled_from(names), min_size=1, max_size=2))
        return dataclasses.replace(value, **{name: () for name in names if name not in kept})  # type: ignore[type-var]

    return st.lists(thinned(), max_size=2).map(tuple)


rules = st.builds(Rule, sources=few(sources), operations=few(operations), when=st.lists(whens(), max_size=1).map(tuple))
tokens = st.none() | st.builds(
    lambda issuer, subject, audiences, groups, azp: Token(
        issuer=issuer, subject=subject, audiences=tuple(audiences), presenter=azp, expires_at=0.0,
        claims={"iss": issuer, "sub": subject, "g": tuple(groups)},
    ),
    st.sampled_from("ij"), st.sampled_from(["u", "v", ""]), st.lists(st.sampled_from(["a", "ab", "c"]), max_size=2),
    st.lists(st.sampled_from(["a", "ab", "c", ""]), max_size=2), st.sampled_from(["", "a", "ab"]),
)  # fmt: skip
principals = st.sampled_from([None, *(SpiffeId.parse(f"spiffe://{one}") for one in (*PRINCIPALS[:3], "m/other"))])
ADDRESSES = st.sampled_from(["", "10.1.2.3", "10.9.9.9", "11.0.0.1", "2001:db8::1"])


@st.composite
def facts(draw: st.DrawFn) -> Facts:
    tcp = draw(st.integers(0, 5)) == 0
    return Facts(
        principal=draw(principals),
        host="" if tcp else draw(st.sampled_from(["o.s", "x.t", "z"])),
        port=draw(st.sampled_from([1, 2, 3])),
        method="" if tcp else draw(st.sampled_from(["GET", "POST", "PUT"])),
        path=""
        if tcp
        else draw(st.sampled_from(["/a", "/a/b", "/a/", "/a/b/c", "/a;x", "/a;y", "/b", "/c;x", "/c%3Bx", "/"])),
        source_ip=draw(ADDRESSES),
        remote_ip=draw(st.none() | ADDRESSES),
        destination_ip=draw(ADDRESSES),
        sni=draw(st.sampled_from(["", "o.s", "x.t"])),
        headers=tuple(("x", value) for value in draw(st.lists(st.sampled_from(["a", "ab", "c", ""]), max_size=2))),
        token=None if tcp else draw(tokens),
    )


def snapshot(proxies: int) -> Snapshot:
    """Without policies."""
    return Snapshot(
        epoch=1, version=1, trust_domain=TD, identity=SpiffeId.for_workload(TD, "s", "o"), service="o", namespace="s",
        labels={}, default_action=Action.ALLOW, policies=(), services={}, trust_anchors_der=(),
        certificate_lifetime_s=1, peer_authentication=PeerAuthentication(), trusted_proxies_count=proxies,
    )  # fmt: skip
