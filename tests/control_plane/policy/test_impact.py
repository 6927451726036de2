"""Who gains and who loses: every line is true, and nothing of a small world is missed."""

from __future__ import annotations

import itertools
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from certs.spiffe_id import SpiffeId, TrustDomain
from control_plane.policy.impact.compute import ANYBODY_ELSE, PLAINTEXT, Impact, Pair, Target, changes, compute
from control_plane.policy.impact.side import Request, Value
from sidecar.rules.keys import parse_key
from sidecar.rules.snapshot import (
    Action,
    AuthorizationPolicy,
    JwtRule,
    Operation,
    PeerAuthentication,
    PortTls,
    Protocol,
    RequestAuthentication,
    Rule,
    Snapshot,
    Source,
    TlsMode,
    When,
)

TD = TrustDomain.parse("mesh.local")
NOW = 1_800_000_000.0
WEB, ADMIN, BATCH = (
    SpiffeId.for_workload(TD, *name) for name in (("shop", "web"), ("shop", "admin"), ("jobs", "batch"))
)
CALLERS = (WEB, ADMIN, BATCH)
ISSUER = "https://issuer.example"


def policy(
    *rules: Rule, name: str = "orders", action: Action = Action.ALLOW, shadow: bool = False
) -> AuthorizationPolicy:
    return AuthorizationPolicy(namespace="shop", name=name, action=action, rules=rules, shadow=shadow)


def snapshot(*policies: AuthorizationPolicy, **changes: object) -> Snapshot:
    held = Snapshot(
        epoch=1,
        version=1,
        trust_domain=TD,
        identity=SpiffeId.for_workload(TD, "shop", "orders"),
        service="orders",
        namespace="shop",
        labels={},
        default_action=Action.DENY,
        policies=policies,
        services={},
        trust_anchors_der=(b"",),
        certificate_lifetime_s=3_600,
    )
    return replace(held, **changes)  # type: ignore[arg-type]


def target(before: Snapshot, after: Snapshot, **ports: Protocol) -> Target:
    held = {int(name[1:]): kind for name, kind in ports.items()} or {8080: Protocol.HTTP1}
    return Target(service="orders.shop", ports=held, key=1, snapshots=lambda: (before, after))


def impact_of(before: Snapshot, after: Snapshot, **ports: Protocol) -> Impact:
    return compute(CALLERS, TD, [target(before, after, **ports)], now=NOW, is_expired=lambda: False)


def told(found: Impact) -> list[str]:
    return [
        f"{'gains' if one.gains else 'loses'} {one.caller.removeprefix('spiffe://mesh.local/ns/')} {one.what}"
        f" {one.before}>{one.after}" + (" shadow" if one.shadow else "")
        for one in found.lines
    ]


FROM_WEB = (Source(principals=("mesh.local/ns/shop/sa/web",)),)


def reads(*paths: str) -> tuple[Operation, ...]:
    return (Operation(methods=("GET", "POST"), paths=paths),)


def test_the_first_policy_lets_one_caller_in() -> None:
    """In the words of the policy, with the rule that decides."""
    after = snapshot(policy(Rule(sources=FROM_WEB, operations=reads("/orders/*"))))
    assert told(impact_of(snapshot(), after)) == ["gains shop/sa/web GET, POST /orders/* default>shop/orders#0"]


def test_nobody_is_told_of_what_stays() -> None:
    """Rules that move, or are told apart by their place only, change nothing."""
    one, other = Rule(sources=FROM_WEB, operations=reads("/a")), Rule(operations=reads("/b"))
    found = impact_of(snapshot(policy(one, other)), snapshot(policy(other, one, name="renamed")))
    assert found == Impact(lines=(), left_off_count=0)


def test_losses_go_first() -> None:
    """What is taken away hurts sooner than what is given."""
    before = snapshot(policy(Rule(sources=FROM_WEB)))
    after = snapshot(policy(Rule(sources=(Source(principals=("mesh.local/ns/shop/sa/admin",)),))))
    assert told(impact_of(before, after)) == [
        "loses shop/sa/web everything shop/orders#0>default",
        "gains shop/sa/admin everything default>shop/orders#0",
    ]


def test_an_exception_is_told() -> None:
    """A DENY inside what is allowed."""
    allowed = policy(Rule(sources=FROM_WEB, operations=reads("/orders/*")))
    denied = policy(Rule(operations=(Operation(paths=("/orders/admin",)),)), name="no", action=Action.DENY)
    assert told(impact_of(snapshot(allowed), snapshot(allowed, denied))) == [
        "loses shop/sa/web GET, POST /orders/admin shop/orders#0>shop/no#0"
    ]
    assert told(impact_of(snapshot(denied), snapshot(allowed, denied))) == [
        "gains shop/sa/web GET, POST /orders/* (not /orders/admin) default>shop/orders#0"
    ]


def test_strangers_are_told_of() -> None:
    """By what the policy names: everybody, a namespace, a principal that has not joined yet."""
    everybody = snapshot(policy(Rule(operations=reads("/x"))))
    assert {line.split(" GET")[0] for line in told(impact_of(snapshot(), everybody))} == {
        "gains shop/sa/web",
        "gains shop/sa/admin",
        "gains jobs/sa/batch",
        f"gains {ANYBODY_ELSE}",
    }
    namespace = snapshot(policy(Rule(sources=(Source(namespaces=("jobs",)),))))
    assert told(impact_of(snapshot(), namespace)) == [
        "gains jobs/sa/batch everything default>shop/orders#0",
        "gains anybody else in namespace jobs everything default>shop/orders#0",
    ]
    to_come = snapshot(policy(Rule(sources=(Source(principals=("mesh.local/ns/shop/sa/new",)),))))
    assert told(impact_of(snapshot(), to_come)) == ["gains shop/sa/new everything default>shop/orders#0"]


def test_names_that_nobody_has_are_not_told() -> None:
    """Whoever is tried beside a caller that a rule names stands for the rest of its namespace."""
    named, of_namespace = Rule(sources=FROM_WEB), Rule(sources=(Source(namespaces=("shop",)),), operations=reads("/v"))
    assert told(impact_of(snapshot(policy(named)), snapshot(policy(named, of_namespace)))) == [
        "gains shop/sa/admin GET, POST /v default>shop/orders#1",
        "gains anybody else in namespace shop GET, POST /v default>shop/orders#1",
    ]


def test_conditions_are_named() -> None:
    """Headers, tokens, claims, addresses."""
    trusted = (RequestAuthentication(namespace="shop", name="jwt", jwt_rules=(JwtRule(issuer=ISSUER, discover=True),)),)
    cases = {
        When(key="request.headers[x-debug]", values=("1",)): "with header x-debug=1",
        When(key="request.headers[x-debug]", not_values=("1",)): "unless with header x-debug=1",
        When(key="request.auth.principal", values=(f"{ISSUER}/*",)): f"with a token of {ISSUER}/*",
        When(key="request.auth.claims[groups]", values=("ops",)): f"with claim groups=ops, with a token of {ISSUER}/*",
        When(key="source.ip", values=("10.0.0.0/8",)): "from 10.0.0.0/8",
        When(key="destination.port", values=("9090",)): "port 9090",
        When(key="connection.sni", values=("a.example",)): "with SNI a.example",
    }
    for when, what in cases.items():
        after = policy(Rule(sources=FROM_WEB, when=(when,)))
        found = impact_of(snapshot(request_authentications=trusted), snapshot(after, request_authentications=trusted))
        assert told(found) == [f"gains shop/sa/web {what} default>shop/orders#0"], when


def test_a_token_of_nobody_trusted_gives_nothing() -> None:
    """Without its RequestAuthentication an issuer's token is no token; with it, what waited for it opens."""
    rule = Rule(sources=(Source(request_principals=(f"{ISSUER}/*",)),))
    trusted = (RequestAuthentication(namespace="shop", name="jwt", jwt_rules=(JwtRule(issuer=ISSUER, discover=True),)),)
    assert told(impact_of(snapshot(), snapshot(policy(rule)))) == []
    found = told(impact_of(snapshot(policy(rule)), snapshot(policy(rule), request_authentications=trusted)))
    assert found[0] == f"gains shop/sa/web with a token of {ISSUER}/* default>shop/orders#0"
    assert len(found) == len(CALLERS) + 1


def test_what_is_in_shadow_is_told_as_such() -> None:
    """And never as what happens."""
    allowed = policy(Rule())
    shadow = policy(Rule(sources=FROM_WEB), name="no", action=Action.DENY, shadow=True)
    assert told(impact_of(snapshot(allowed), snapshot(allowed, shadow))) == [
        "loses shop/sa/web everything shop/orders#0>shop/no#0 shadow"
    ]
    enforced = replace(shadow, shadow=False)
    assert told(impact_of(snapshot(allowed, shadow), snapshot(allowed, enforced))) == [
        "loses shop/sa/web everything shop/orders#0>shop/no#0"
    ]


def test_plaintext_is_a_caller_where_it_is_let_in() -> None:
    """A port that becomes PERMISSIVE, and a rule that takes nobody's word; DISABLE takes a member's name away."""
    anybody, named = policy(Rule()), policy(Rule(sources=FROM_WEB))
    open_port = PeerAuthentication(ports={8080: PortTls(mode=TlsMode.PERMISSIVE)})
    found = impact_of(
        snapshot(anybody), snapshot(anybody, peer_authentication=open_port), p8080=Protocol.HTTP1, p9=Protocol.HTTP1
    )
    assert told(found) == [f"gains {PLAINTEXT} port 8080 mutual TLS is required>shop/orders#0"]
    ended = PeerAuthentication(rest=PortTls(mode=TlsMode.PERMISSIVE, until=NOW))
    assert told(impact_of(snapshot(anybody), snapshot(anybody, peer_authentication=ended))) == []
    without = PeerAuthentication(rest=PortTls(mode=TlsMode.DISABLE))
    assert told(impact_of(snapshot(named), snapshot(named, peer_authentication=without))) == [
        "loses shop/sa/web everything shop/orders#0>default"
    ]


def test_tcp_is_told_apart() -> None:
    """A rule with HTTP fields lets no TCP through, and a DENY of some paths denies all of it (C23)."""
    allowed = policy(Rule(sources=FROM_WEB))
    denied = policy(Rule(operations=(Operation(paths=("/x",)),)), name="no", action=Action.DENY)
    found = told(impact_of(snapshot(allowed), snapshot(allowed, denied), p8080=Protocol.HTTP1, p5432=Protocol.TCP))
    assert set(found) == {
        "loses shop/sa/web /x shop/orders#0>shop/no#0",
        "loses shop/sa/web TCP shop/orders#0>shop/no#0",
    }


def test_time_runs_out_in_an_orderly_way() -> None:
    """What was not looked at is counted, and nobody waits."""
    after = snapshot(policy(Rule(operations=reads("/x"))))
    looks = itertools.count()
    found = compute(CALLERS, TD, [target(snapshot(), after)], now=NOW, is_expired=lambda: next(looks) > 1)
    assert found.left_off_count > 0
    late = compute(CALLERS, TD, [target(snapshot(), after)] * 3, now=NOW, is_expired=lambda: True)
    assert late == Impact(lines=(), left_off_count=3)


# --- small worlds, whole


PATHS = ("/", "/a", "/a/", "/a/b", "/a/b/c", "/ab", "/c", "/a/x.html")
METHODS = ("GET", "PUT")
patterns = {
    "paths": st.sampled_from(("/a", "/a/*", "/a*", "*.html", "/a/{*}", "/{**}/c", "*")),
    "methods": st.sampled_from(("GET", "POST", "P*", "*")),
    "principals": st.sampled_from(("mesh.local/ns/shop/sa/web", "mesh.local/ns/shop/*", "*/admin", "*")),
    "namespaces": st.sampled_from(("shop", "jobs", "s*")),
    "ip_blocks": st.sampled_from(("10.0.0.0/8", "10.1.0.0/16", "192.0.2.7")),
}


def some(name: str) -> st.SearchStrategy[tuple[str, ...]]:
    return st.one_of(st.just(()), st.lists(patterns[name], max_size=2, unique=True).map(tuple))


sources = st.builds(
    Source,
    principals=some("principals"),
    not_principals=some("principals"),
    namespaces=some("namespaces"),
    ip_blocks=some("ip_blocks"),
)
operations = st.builds(Operation, paths=some("paths"), not_paths=some("paths"), methods=some("methods"))
texts = st.lists(st.sampled_from(("1", "1*", "2")), min_size=1, max_size=2, unique=True).map(tuple)
whens = st.one_of(
    st.builds(When, key=st.just("request.headers[x-a]"), values=texts),
    st.builds(When, key=st.just("request.headers[x-a]"), not_values=texts),
)
rules = st.builds(
    Rule,
    sources=st.lists(sources, max_size=2).map(tuple),
    operations=st.lists(operations, max_size=2).map(tuple),
    when=st.lists(whens, max_size=1).map(tuple),
)
policies = st.builds(
    AuthorizationPolicy,
    namespace=st.just("shop"),
    name=st.sampled_from(("one", "two")),
    action=st.sampled_from((Action.ALLOW, Action.DENY, Action.AUDIT)),
    rules=st.lists(rules, max_size=2).map(tuple),
    shadow=st.booleans(),
)
worlds = st.builds(
    lambda held, default: snapshot(*{one.name: one for one in held}.values(), default_action=default),
    st.lists(policies, max_size=3),
    st.sampled_from((Action.ALLOW, Action.DENY)),
)
HEADER_KEYS = {"request.headers[x-a]": parse_key("request.headers[x-a]")}


def every_request(principal: SpiffeId) -> list[Request]:
    headers: tuple[Value, ...] = ((), ("1",), ("3",), ("1", "3"))
    return [
        Request(
            principal,
            {
                "port": ("8080",),
                "method": (method,),
                "path": (path,),
                "source.ip": (address,),
                "request.headers[x-a]": header,
            },
            HEADER_KEYS,
            "orders.shop",
        )
        for method in METHODS
        for path in PATHS
        for address in ("10.1.0.9", "10.2.0.9", "192.0.2.7")
        for header in headers
    ]


@settings(max_examples=100, deadline=None)
@given(before=worlds, after=worlds, caller=st.sampled_from(CALLERS))
def test_every_line_is_true_and_nothing_is_missed(before: Snapshot, after: Snapshot, caller: SpiffeId) -> None:
    """Held against judging every request of a small world with both evaluators."""
    pair = Pair(target(before, after), NOW, lambda: False)
    found, missed = pair.differences(CALLERS, TD)
    assert missed == 0
    by_caller = {name: differences for group, differences in found for name in group.names}
    for _group, differences in found:
        for one in differences:
            assert one.requests
            for request in one.requests:
                kinds = set(changes(pair.before.judge(request), pair.after.judge(request)))
                assert (one.gains, one.before, one.after, one.shadow) in kinds, str(one)
    mine = by_caller.get(str(caller), ())
    claimed = {
        (one.gains, one.before, one.after, one.shadow, cell) for one in mine for cell in itertools.product(*one.box)
    }
    axes = next((one.axes for one in mine), ())
    for request in every_request(caller):
        kinds = set(changes(pair.before.judge(request), pair.after.judge(request)))
        if kinds:
            cell = tuple(axis.number_of(request.value(axis.name)) for axis in axes)
            assert {(*kind, cell) for kind in kinds} <= claimed, request
