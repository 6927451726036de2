"""Users' tokens in whole requests: two sidecars, a real client, an app that says what it was sent, a real issuer."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import httpx
import pytest
import trio

from sidecar.config import Jwks
from sidecar.rules.snapshot import Action, AuthorizationPolicy, JwtRule, Rule, Source, When
from tests.sidecar.jwks.issuer import IssuerServer, ok, serving_keys
from tests.sidecar.jwks.tokens import ISSUER, SigningKey, key_set, rule_of
from tests.sidecar.mesh import WEB
from tests.sidecar.net.support import settled
from tests.sidecar.support import App, AppRequest, Caller, Pair, allow, calling, serving, two_sides
from tests.trio_support import trio_test

KEY, NEW_KEY = SigningKey(), SigningKey(kid="k2")
PATH = "/keys"


def now_token(key: SigningKey = KEY, **claims: Any) -> str:
    """Right at this moment."""
    now = int(time.time())
    times: dict[str, Any] = {"iat": now, "exp": now + 600}
    return key.token(**{**times, **claims})


def for_users(*principals: str) -> AuthorizationPolicy:
    rules = (Rule(sources=(Source(request_principals=principals, principals=(WEB.principal,)),)),)
    return AuthorizationPolicy(namespace="shop", name="users", action=Action.ALLOW, rules=rules)


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


Asking = tuple[Pair, httpx.AsyncClient, App]


@asynccontextmanager
async def asking(
    *rules: JwtRule, policies: Sequence[AuthorizationPolicy] = (allow(WEB),), app: App | None = None, **jwks: Any
) -> AsyncIterator[Asking]:
    app = app or App()
    config = Jwks(allow_networks=("127.0.0.0/8",), **jwks)
    async with serving(app) as address, two_sides(address, jwks=config) as pair:
        pair.orders.apply(policies=policies, jwt_rules=rules)
        async with httpx.AsyncClient(proxy=pair.proxy, trust_env=False, timeout=20) as client:
            yield pair, client, app


@asynccontextmanager
async def asking_with_issuer(**fields: Any) -> AsyncIterator[tuple[Asking, IssuerServer]]:
    """Keys come from a server, which is held back until the test lets it answer."""
    async with serving_keys(None) as issuer:
        issuer.answers[PATH] = ok(key_set(KEY))
        issuer.hold = trio.Event()
        async with asking(rule_of(jwks_uri=issuer.url(PATH, "http")), **fields) as found:
            yield found, issuer


async def status(client: httpx.AsyncClient, pair: Pair, token: str) -> int:
    return (await client.get(pair.url(), headers=bearer(token))).status_code


@trio_test
async def test_a_policy_may_demand_a_workload_and_a_user_together() -> None:
    """And the token does not reach the app."""
    async with asking(rule_of(KEY), policies=(for_users(f"{ISSUER}/ann"),)) as (pair, client, app):
        assert await status(client, pair, now_token()) == 200
        assert await status(client, pair, now_token(sub="bob")) == 403
        assert (await client.get(pair.url())).status_code == 403
        (request,) = app.requests
        assert request.values(b"authorization") == []


@trio_test
async def test_e18_without_a_token_a_request_passes_and_a_bad_one_never_does() -> None:
    """Requiring a token is AuthorizationPolicy's; a present one that does not hold is 401 whatever policy says."""
    async with asking(rule_of(KEY)) as (pair, client, app):
        assert (await client.get(pair.url())).status_code == 200
        assert (await client.get(pair.url(), headers={"authorization": "Basic YTpi"})).status_code == 200
        for bad in ("x", now_token()[:-4], now_token(iss="https://other.example"), now_token(exp=1)):
            answer = await client.get(pair.url(), headers=bearer(bad))
            assert answer.status_code == 401, bad
            assert answer.headers["www-authenticate"] == 'Bearer error="invalid_token"'
            assert answer.json() == {
                "type": "about:blank",
                "title": "The request's token is not accepted.",
                "status": 401,
                "decision_id": answer.headers["hauberk-decision-id"],
            }
        assert (await client.get(pair.url(), headers={"authorization": "Bearer"})).status_code == 401
        assert len(app.requests) == 2


@trio_test
async def test_e07_e08_what_was_wrong_is_for_metrics_and_the_log() -> None:
    """The row and a word; the token stands in neither."""
    async with asking(rule_of(KEY)) as (pair, client, _):
        token = now_token(exp=1)
        answer = await client.get(pair.url(), headers=bearer(token))
        assert await status(client, pair, now_token(exp=None)) == 401
        lines = await pair.orders.log_lines(2)
        assert [(line["status"], line["end"]) for line in lines] == [(401, "token_expired"), (401, "token_no_expiry")]
        assert lines[0]["decision_id"] == answer.headers["hauberk-decision-id"]
        metrics = pair.orders.metrics.export().decode()
        assert 'hauberk_refused_total{row="E08",reason="token_expired"} 1' in metrics
        assert 'hauberk_refused_total{row="E07",reason="token_no_expiry"} 1' in metrics
        for secret in (token, token.split(".")[1], "ann"):
            assert secret not in pair.orders.log.decode()


@trio_test
async def test_a_grpc_caller_hears_unauthenticated() -> None:
    """Code 16, with the id of the decision."""
    async with asking(rule_of(KEY)) as (pair, client, _):
        fields = {"content-type": "application/grpc", "te": "trailers", **bearer("x")}
        answer = await client.post(pair.url("/a.B/C"), headers=fields)
        assert (answer.status_code, answer.headers["grpc-status"]) == (200, "16")
        assert answer.headers["hauberk-decision-id"] in answer.headers["grpc-message"]


@trio_test
async def test_e17_two_tokens_are_refused() -> None:
    """Even if both are right."""
    rule = rule_of(KEY, from_headers=(("authorization", "Bearer "), ("x-token", "")), from_params=("access_token",))
    async with asking(rule) as (pair, client, app):
        token = now_token()
        both = [("authorization", f"Bearer {token}")] * 2
        assert (await client.get(pair.url(), headers=both)).status_code == 401
        assert (await client.get(pair.url(), headers={**bearer(token), "x-token": token})).status_code == 401
        query = f"/a?access_token={token}"
        assert (await client.get(pair.url(query), headers=bearer(token))).status_code == 401
        assert (await client.get(pair.url(query + "&b=1"))).text == "/a?b=1"
        assert len(app.requests) == 1


@trio_test
async def test_d01_d02_claims_reach_the_app_in_headers_only_we_can_say() -> None:
    """What a client says under these names never arrives, in no spelling, with or without a token."""
    rule = rule_of(
        KEY,
        output_payload_to_header="x-payload",
        output_claim_to_headers=(("x-user", "sub"), ("x-role", "realm.role"), ("x-level", "level"), ("x-vip", "vip"),
                                 ("x-list", "aud2"), ("x-evil", "evil"), ("x-none", "a.b.c")),
    )  # fmt: skip
    said = {"x-user": "root", "X_User": "root", "x.user": "root", "x-payload": "e30", "x-none": "1", "x-evil": "1"}
    async with asking(rule) as (pair, client, app):
        token = now_token(realm={"role": "clerk"}, level=7, vip=True, aud2=["a"], evil="a\r\nx-user: root")
        assert (await client.get(pair.url(), headers={**said, **bearer(token)})).status_code == 200
        assert (await client.get(pair.url(), headers=said)).status_code == 200
        with_token, without = app.requests
        found = {
            name: value for name, value in with_token.fields if name.startswith(b"x-") and b"forwarded" not in name
        }
        assert found == {
            b"x-user": b"ann",
            b"x-role": b"clerk",
            b"x-level": b"7",
            b"x-vip": b"true",
            b"x-payload": token.split(".")[1].encode(),
        }
        assert b"root" not in b"".join(value for _, value in without.fields)
        assert not [name for name, _ in without.fields if name.startswith(b"x-") and b"forwarded" not in name]


@trio_test
async def test_the_token_is_forwarded_if_the_rule_says_so() -> None:
    """As it came; another spelling of its header is not."""
    async with asking(rule_of(KEY, forward_original_token=True, from_headers=(("x-token", ""),))) as (
        pair,
        client,
        app,
    ):
        token = now_token()
        headers = {"x-token": token, "x_token": "other", "authorization": "Bearer mine"}
        assert (await client.get(pair.url(), headers=headers)).status_code == 200
        (request,) = app.requests
        assert request.values(b"x-token") == [token.encode()]
        assert request.values(b"authorization") == [b"Bearer mine"]
        assert b"other" not in b"".join(value for _, value in request.fields)


@trio_test
async def test_policy_looks_at_claims_and_at_the_headers_made_of_them() -> None:
    """As in Istio, where tokens are verified before policy is asked."""
    rule = rule_of(KEY, output_claim_to_headers=(("x-role", "role"),))
    when = (
        When(key="request.auth.claims[role]", values=("clerk",)),
        When(key="request.headers[x-role]", values=("clerk",)),
    )
    policy = AuthorizationPolicy(namespace="shop", name="role", action=Action.ALLOW, rules=(Rule(when=when),))
    async with asking(rule, policies=(policy,)) as (pair, client, _):
        assert await status(client, pair, now_token(role="clerk")) == 200
        assert await status(client, pair, now_token(role="guest")) == 403
        assert (await client.get(pair.url(), headers={"x-role": "clerk"})).status_code == 403


# Keys on their way


@trio_test
async def test_requests_wait_for_the_first_keys() -> None:
    """Those with a token; the others need no keys. One fetch is for all of them."""
    async with asking_with_issuer() as ((pair, client, _), issuer):
        found: list[int] = []

        async def one(token: str) -> None:
            found.append(await status(client, pair, token))

        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(one, now_token())
            nursery.start_soon(one, now_token(NEW_KEY))
            assert (await client.get(pair.url())).status_code == 200
            await settled(lambda: pair.orders.runtime.live_count == 4)
            assert found == []
            assert issuer.hold is not None
            issuer.hold.set()
            issuer.hold = None
        assert sorted(found) == [200, 200, 200, 401]
        assert len(issuer.asked) <= 2


@trio_test
async def test_e19_without_keys_nobody_enters() -> None:
    """503 at once when a fetch has failed; it is the issuer's fault, and the caller may come again."""
    async with asking_with_issuer() as ((pair, client, app), issuer):
        issuer.answers[PATH] = b"HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n"
        assert issuer.hold is not None
        issuer.hold.set()
        issuer.hold = None
        for _ in range(2):
            answer = await client.get(pair.url(), headers=bearer(now_token()))
            assert answer.status_code == 503
            assert answer.json()["title"] == "The keys of the token's issuer are not available."
        assert app.requests == []
        assert len(issuer.asked) == 1


@trio_test
async def test_e19_no_request_waits_longer_than_a_fetch_may_take() -> None:
    """Nor do more wait than for any upstream."""
    async with asking_with_issuer(fetch_timeout_s=0.2) as ((pair, client, _), _issuer):
        assert await status(client, pair, now_token()) == 503
        authenticator = pair.orders.runtime.authentication._authenticator
        assert authenticator is not None
        assert authenticator.waiting_count == 0


@trio_test
async def test_a_client_that_leaves_does_not_wait_any_more() -> None:
    """Nothing of it is kept."""
    async with asking_with_issuer() as ((pair, client, app), issuer):
        with trio.move_on_after(0.5):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(status, client, pair, now_token())
                await settled(lambda: pair.orders.runtime.live_count == 1)
                nursery.cancel_scope.cancel()
        await client.aclose()
        await settled(lambda: pair.orders.runtime.live_count == 0)
        authenticator = pair.orders.runtime.authentication._authenticator
        assert authenticator is not None
        assert authenticator.waiting_count == 0
        assert issuer.hold is not None
        issuer.hold.set()
        await settled(lambda: not authenticator.store.keepers[0].is_fetching)
        assert app.requests == []


@trio_test
async def test_e21_a_new_key_is_fetched_and_an_invented_one_only_once() -> None:
    """A token signed with a key that is new to us waits for it: no 401 at a rotation."""
    async with asking_with_issuer() as ((pair, client, _), issuer):
        assert issuer.hold is not None
        issuer.hold.set()
        issuer.hold = None
        assert await status(client, pair, now_token()) == 200
        issuer.answers[PATH] = ok(key_set(KEY, NEW_KEY))
        assert await status(client, pair, now_token(NEW_KEY)) == 200
        assert await status(client, pair, now_token()) == 200
        for number in range(20):
            assert await status(client, pair, now_token(SigningKey(kid=f"invented{number}"))) == 401
        assert len(issuer.asked) == 2


# Open exchanges


class Held(App):
    """Answers a head, and goes on when the client has sent its body."""

    async def serve_one(self, request: AppRequest) -> None:
        await request.head(200, [(b"transfer-encoding", b"chunked")])
        await request.body()
        await request.data(b"end")
        await request.end()


async def begin(caller: Caller, token: str) -> int:
    fields = [("authorization", f"Bearer {token}"), ("transfer-encoding", "chunked")]
    await caller.ask(method="POST", fields=fields)
    return (await caller.head()).status_code


@trio_test
async def test_an_open_exchange_keeps_its_user_while_the_rule_is_there() -> None:
    """Tokens are checked when a request begins: an equal rule in a new snapshot changes nothing, though the policy is
    judged again with the same user."""
    rule, policy = rule_of(KEY), for_users(f"{ISSUER}/ann")
    async with asking(rule, policies=(policy,), app=Held()) as (pair, _, _app), calling(pair.web.app_address) as caller:
        assert await begin(caller, now_token()) == 200
        pair.orders.apply(policies=(policy,), jwt_rules=(replace(rule),))
        pair.orders.apply(policies=(policy,), jwt_rules=(rule, rule_of(KEY, issuer="https://b.example")))
        await caller.end()
        assert await caller.rest() == b"end"


@trio_test
@pytest.mark.parametrize(
    ("changes", "survives"),
    [({"output_payload_to_header": "x-p"}, True), ({"audiences": ("other",)}, False),
     ({"jwks": "", "jwks_uri": "https://127.0.0.1:1/keys"}, False), ({"jwks": key_set(NEW_KEY)}, False)],
)  # fmt: skip
async def test_an_open_exchange_is_verified_again_when_its_rule_is_another_one(
    changes: dict[str, Any], survives: bool
) -> None:
    """With what keys there are, and ends if it cannot be."""
    async with asking(rule_of(KEY), app=Held()) as (pair, _, _app), calling(pair.web.app_address) as caller:
        assert await begin(caller, now_token()) == 200
        pair.orders.apply(policies=(allow(WEB),), jwt_rules=(replace(rule_of(KEY), **changes),))
        if survives:
            await caller.end()
            assert await caller.rest() == b"end"
        else:
            await settled(lambda: bool(pair.orders.records))
            exchange, _ = pair.orders.records[0]
            assert exchange.how_ended.startswith("token_") or exchange.how_ended == "unauthenticated"


@trio_test
async def test_an_open_exchange_meets_the_first_rule_there_is() -> None:
    """A token nobody looked at when the exchange began is looked at now."""
    async with asking(app=Held()) as (pair, _, _app):
        async with calling(pair.web.app_address) as good, calling(pair.web.app_address) as bad:
            assert await begin(good, now_token()) == await begin(bad, "anything") == 200
            pair.orders.apply(policies=(for_users("*"),), jwt_rules=(rule_of(KEY),))
            await settled(lambda: len(pair.orders.records) == 1)
            await good.end()
            assert await good.rest() == b"end"
        assert pair.orders.records[0][0].how_ended == "token_malformed"


@trio_test
async def test_a_user_is_nobody_when_the_last_rule_goes() -> None:
    """Whoever was let in as a user is denied."""
    policy = for_users(f"{ISSUER}/ann")
    async with (
        asking(rule_of(KEY), policies=(policy,), app=Held()) as (pair, _, _app),
        calling(pair.web.app_address) as caller,
    ):
        assert await begin(caller, now_token()) == 200
        pair.orders.apply(policies=(policy,))
        await settled(lambda: bool(pair.orders.records))
        assert pair.orders.records[0][0].how_ended == "denied"


@trio_test
async def test_a_user_is_verified_once() -> None:
    """The next request with the token has the same `Token`, by which verdicts are remembered."""
    async with asking(rule_of(KEY)) as (pair, client, _):
        token = now_token()
        for _ in range(3):
            assert await status(client, pair, token) == 200
        users = [call.user for _, call in pair.orders.records]  # type: ignore[attr-defined]  # calls to the app
        assert len({id(user.verified.token) for user in users}) == 1


@trio_test
async def test_d01_d02_claims_cannot_be_said_in_trailers_either() -> None:
    """Some apps take a trailer for a header; others that are not ours pass."""
    rule = rule_of(KEY, output_claim_to_headers=(("x-user", "sub"),))
    async with asking(rule) as (pair, _, app):
        stream = await trio.open_tcp_stream(pair.web.app_address.host, pair.web.app_address.port)
        async with stream:
            await stream.send_all(
                b"POST / HTTP/1.1\r\nhost: orders.shop:8080\r\ntransfer-encoding: chunked\r\n\r\n"
                b"1\r\na\r\n0\r\nX_User: root\r\nx-user: root\r\nx-sum: 7\r\n\r\n"
            )
            assert (await stream.receive_some(65_536)).startswith(b"HTTP/1.1 200")
        ((exchange, _),) = pair.orders.records
        assert exchange.reserved == {b"x-user"}
        assert app.requests[0].trailers == [(b"x-sum", b"7")]
