"""Users' tokens in whole requests: two sidecars, a real client, an app that says what it was sent."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import httpx

from sidecar.rules.snapshot import Action, AuthorizationPolicy, JwtRule, Rule, Source
from tests.sidecar.jwks.tokens import ISSUER, SigningKey, rule_of
from tests.sidecar.mesh import WEB
from tests.sidecar.support import App, Pair, allow, serving, two_sides
from tests.trio_support import trio_test

KEY = SigningKey()


def now_token(**claims: Any) -> str:
    """Right at this moment."""
    now = int(time.time())
    times: dict[str, Any] = {"iat": now, "exp": now + 600}
    return KEY.token(**{**times, **claims})


def for_users(*principals: str) -> AuthorizationPolicy:
    rules = (Rule(sources=(Source(request_principals=principals, principals=(WEB.principal,)),)),)
    return AuthorizationPolicy(namespace="shop", name="users", action=Action.ALLOW, rules=rules)


@asynccontextmanager
async def asking(
    *rules: JwtRule, policies: Sequence[AuthorizationPolicy] = (allow(WEB),), app: App | None = None
) -> AsyncIterator[tuple[Pair, httpx.AsyncClient, App]]:
    app = app or App()
    async with serving(app) as address, two_sides(address) as pair:
        pair.orders.apply(policies=policies, jwt_rules=rules)
        async with httpx.AsyncClient(proxy=pair.proxy, trust_env=False, timeout=20) as client:
            yield pair, client, app


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


@trio_test
async def test_a_policy_may_demand_a_workload_and_a_user_together() -> None:
    """And the token does not reach the app."""
    async with asking(rule_of(KEY), policies=(for_users(f"{ISSUER}/ann"),)) as (pair, client, app):
        assert (await client.get(pair.url(), headers=bearer(now_token()))).status_code == 200
        assert (await client.get(pair.url(), headers=bearer(now_token(sub="bob")))).status_code == 403
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
