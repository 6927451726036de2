"""What is reported of a decision: bounded in every way, and nothing that no policy asks for."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from certs.spiffe_id import SpiffeId, TrustDomain
from protos.hauberk.v1 import discovery_pb2 as pb
from sidecar.decisions import (
    BATCH_MAX,
    BURST,
    CLAIMS_CHARACTERS_MAX,
    HEADERS_MAX,
    PATH_CHARACTERS_MAX,
    RATE_PER_S,
    VALUE_CHARACTERS_MAX,
    WAITING_MAX,
    Decisions,
    describe,
)
from sidecar.rules.authz import Authorizer
from sidecar.rules.facts import Facts, Token
from sidecar.rules.secrets import is_secret
from sidecar.rules.snapshot import Action, AuthorizationPolicy, Rule, Snapshot, When

TD = TrustDomain.parse("mesh.local")
WEB = SpiffeId.for_workload(TD, "shop", "web")
ORDERS = SpiffeId.for_workload(TD, "shop", "orders")
ID = "00c0ffee00c0ffee"


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def ring(clock: Clock) -> Decisions:
    return Decisions(clock, random.Random(1).getrandbits)


def policy(
    *keys: str, action: Action = Action.ALLOW, shadow: bool = False, name: str = "orders"
) -> AuthorizationPolicy:
    """Of one rule, with a condition on each key."""
    rule = Rule(when=tuple(When(key=key, values=("yes",)) for key in keys))
    return AuthorizationPolicy(namespace="shop", name=name, action=action, rules=(rule,), shadow=shadow)


def snapshot(*policies: AuthorizationPolicy, proxies: int = 0, default: Action = Action.DENY) -> Snapshot:
    return Snapshot(
        epoch=3, version=7, trust_domain=TD, identity=ORDERS, service="orders", namespace="shop", labels={},
        default_action=default, policies=policies, services={}, trust_anchors_der=(), certificate_lifetime_s=3600,
        trusted_proxies_count=proxies,
    )  # fmt: skip


def described(
    *policies: AuthorizationPolicy, proxies: int = 0, default: Action = Action.DENY, **facts: object
) -> pb.Decision:
    """What is told of one request, judged by these policies."""
    held = snapshot(*policies, proxies=proxies, default=default)
    authorizer = Authorizer(held)
    asked = Facts(**{"principal": WEB, "host": "orders.shop", "port": 80, "method": "GET", "path": "/x", **facts})  # type: ignore[arg-type]
    return describe(asked, authorizer.authorize(asked), held, authorizer, decision_id=ID, at=5.0)


def token(claims: dict[str, object], space_delimited: Iterable[str] = ("scope",)) -> Token:
    return Token(
        issuer="https://id.example", subject="ann", audiences=("shop",), presenter="app",
        claims=claims,  # type: ignore[arg-type]
        expires_at=9.0, space_delimited=frozenset(space_delimited),
    )  # fmt: skip


# The ring


def test_what_is_added_is_taken_once_in_its_order() -> None:
    """In batches of at most a hundred."""
    decisions = ring(Clock())
    for number in range(BATCH_MAX + 1):
        decisions.add(pb.Decision(version=number))
    first, second = decisions.take(), decisions.take()
    assert first is not None
    assert second is not None
    assert [one.version for one in first.decisions] == list(range(BATCH_MAX))
    assert [one.version for one in second.decisions] == [BATCH_MAX]
    assert decisions.take() is None


def test_a_flood_of_denials_is_counted_and_not_kept() -> None:
    """A burst, then the rate, whatever happened before."""
    clock = Clock()
    decisions = ring(clock)
    assert sum(decisions.admits_one() for _ in range(10_000)) == BURST
    assert decisions.dropped == 10_000 - BURST
    clock.now += 1.0
    assert sum(decisions.admits_one() for _ in range(10_000)) == RATE_PER_S
    clock.now += 3_600.0
    assert sum(decisions.admits_one() for _ in range(10_000)) == BURST


def test_while_nobody_takes_them_the_newest_are_kept() -> None:
    """The control plane may be away; how many were lost is told with the next report, once."""
    lost: list[int] = []
    decisions = Decisions(Clock(), random.Random(1).getrandbits, lambda: lost.append(1))
    for number in range(WAITING_MAX + 5):
        decisions.add(pb.Decision(version=number))
    assert len(decisions) == WAITING_MAX
    report = decisions.take()
    assert report is not None
    assert (report.decisions[0].version, report.dropped_count, len(lost)) == (5, 5, 5)
    report = decisions.take()
    assert report is not None
    assert report.dropped_count == 0


def test_ids_are_sixteen_hexadecimal_digits() -> None:
    """And no two are the same."""
    decisions = ring(Clock())
    ids = {decisions.new_id() for _ in range(100)}
    assert len(ids) == 100
    assert all(len(one) == 16 and int(one, 16) >= 0 and one == one.lower() for one in ids)


# What is told


def test_a_denial_is_told_with_what_policies_see() -> None:
    """Both ends, the request line, the verdict and what it was made with."""
    told = described(
        policy("request.headers[x-team]"),
        source_ip="10.0.0.9", destination_ip="10.0.0.7", sni="orders.shop",
        headers=(("x-team", "red"), ("user-agent", "curl"), ("x-team", "blue")),
    )  # fmt: skip
    assert told == pb.Decision(
        id=ID, at=5.0, epoch=3, version=7, allowed=False, rule="default", reason="no ALLOW rule matched",
        asked=pb.Asked(
            principal=str(WEB), source_ip="10.0.0.9", remote_ip="10.0.0.9", destination_ip="10.0.0.7",
            sni="orders.shop", host="orders.shop", port=80, method="GET", path="/x",
            headers=[pb.Header(name="x-team", value="red"), pb.Header(name="x-team", value="blue")],
        ),
    )  # fmt: skip


def test_what_a_shadow_policy_would_deny_is_told_as_that() -> None:
    """Allowed, with the rule in shadow."""
    told = described(policy(action=Action.DENY, shadow=True, name="try"), default=Action.ALLOW)
    assert (told.allowed, told.shadow, told.rule, told.version) == (True, True, "shop/try#0", 7)


def test_a_denial_that_a_shadow_policy_would_not_make_is_told_as_a_denial() -> None:
    """The caller was denied, and asks about that."""
    told = described(policy(action=Action.ALLOW, shadow=True, name="try"))
    assert (told.allowed, told.shadow, told.rule) == (False, False, "default")


SECRETS = [
    "authorization", "cookie", "set-cookie", "x-api-key", "x-auth-token", "x-session-id",
    "x-client-secret", "x-password", "x-credential", "x-hub-signature", "x-jwt-payload",
]  # fmt: skip


@pytest.mark.parametrize("name", SECRETS)
def test_d08_values_that_are_usually_secrets_are_not_told(name: str) -> None:
    """That the header was there is."""
    told = described(policy(f"request.headers[{name}]"), headers=((name, "s3cr3t-value"),))
    assert list(told.asked.headers) == [pb.Header(name=name, hidden=True)]
    assert b"s3cr3t" not in told.SerializeToString()


@pytest.mark.parametrize("name", ["x-team", "user-agent", "accept", "x-request-id", "x-forwarded-for"])
def test_ordinary_headers_are_not_hidden(name: str) -> None:
    """Else nobody could see why."""
    assert not is_secret(name)


@given(
    st.lists(st.tuples(st.sampled_from(["a", "b", "x-key"]), st.text(st.characters(max_codepoint=255))), max_size=80),
    st.text(max_size=5_000),
    st.text(max_size=500),
)
def test_whatever_is_asked_a_report_of_it_is_small(headers: list[tuple[str, str]], path: str, host: str) -> None:
    """Every text is cut, every list is short."""
    asked = described(
        *(policy(f"request.headers[{name}]", name=name) for name in ("a", "x-key")),
        headers=tuple((name, value * 9) for name, value in headers), path=path, host=host,
    ).asked  # fmt: skip
    assert len(asked.headers) <= HEADERS_MAX
    assert all(one.name in ("a", "x-key") and len(one.value) <= VALUE_CHARACTERS_MAX for one in asked.headers)
    assert not any(one.value for one in asked.headers if one.name == "x-key")
    assert len(asked.path) <= PATH_CHARACTERS_MAX
    assert len(asked.host) <= VALUE_CHARACTERS_MAX


def test_the_remote_address_is_the_one_that_was_judged() -> None:
    """By the trusted proxies, if there are any."""
    headers = (("x-forwarded-for", "192.0.2.1, 192.0.2.2"),)
    assert described(source_ip="10.0.0.9", headers=headers).asked.remote_ip == "10.0.0.9"
    assert described(source_ip="10.0.0.9", headers=headers, proxies=1).asked.remote_ip == "192.0.2.2"


def test_of_a_token_the_claims_that_policies_name_are_told() -> None:
    """And who it is of and for. Lists as they were read; what is no text matches nothing and is not told."""
    claims: dict[str, object] = {
        "groups": ("dev", "ops"), "scope": "read write", "realm": {"roles": ("admin",)}, "email": "a@b.c", "level": 3,
    }  # fmt: skip
    keys = ("[groups]", "[scope]", "[realm][roles]", "[realm]", "[level]", "[missing]")
    told = described(
        *(policy(f"request.auth.claims{key}", name=f"n{n}") for n, key in enumerate(keys)), token=token(claims)
    )
    assert json.loads(told.asked.claims_json) == {
        "iss": "https://id.example", "sub": "ann", "aud": ["shop"], "azp": "app",
        "groups": ["dev", "ops"], "scope": ["read", "write"], "realm": {"roles": ["admin"]},
    }  # fmt: skip
    assert described(policy("request.auth.claims[groups]")).asked.claims_json == ""


@given(st.dictionaries(st.sampled_from([f"c{n}" for n in range(40)]), st.text(max_size=400), max_size=40))
def test_whatever_a_token_says_a_report_of_it_is_small(claims: dict[str, str]) -> None:
    """Claims are left out when there is no room, and what is told is JSON all the same."""
    policies = [policy(f"request.auth.claims[c{n}]", name=f"p{n}") for n in range(40)]
    text = described(*policies, token=token(dict(claims), ())).asked.claims_json
    assert len(text) <= CLAIMS_CHARACTERS_MAX
    assert {"iss", "sub"} <= json.loads(text).keys() <= {"iss", "sub", "aud", "azp"} | claims.keys()
