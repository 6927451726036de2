"""What a stranger can do with tokens, and with the URLs of keys, against a whole sidecar."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random
from typing import Any

import httpx
import pytest

from sidecar.caller import Caller
from sidecar.config import Config, Jwks
from sidecar.errors import RequestError, Unauthorized
from sidecar.http.headers import RequestHead, admit_request
from sidecar.jwks.authenticator import Authenticator
from sidecar.rules.facts import Peer
from sidecar.rules.snapshot import JwtRule, RequestAuthentication
from tests.sidecar.jwks.issuer import ok, serving_keys
from tests.sidecar.jwks.tokens import NOW, SigningKey, key_set, rule_of
from tests.sidecar.mesh import WEB
from tests.sidecar.support import App, Pair, allow, serving, two_sides
from tests.trio_support import trio_test

KEY, STRANGER = SigningKey(), SigningKey()
LOOPBACK = Jwks(allow_networks=("127.0.0.0/8",))


def right_now(key: SigningKey = KEY, header: dict[str, Any] | None = None, **claims: Any) -> str:
    now = int(time.time())
    return key.token(header, **{"iat": now, "exp": now + 600, **claims})


@asynccontextmanager
async def asking(rule: JwtRule, jwks: Jwks) -> AsyncIterator[tuple[Pair, httpx.AsyncClient, App]]:
    app = App()
    async with serving(app) as address, two_sides(address, jwks=jwks) as pair:
        pair.orders.apply(policies=(allow(WEB),), jwt_rules=(rule,))
        async with httpx.AsyncClient(proxy=pair.proxy, trust_env=False, timeout=20) as client:
            yield pair, client, app


async def status(pair: Pair, client: httpx.AsyncClient, token: str) -> int:
    return (await client.get(pair.url(), headers={"authorization": f"Bearer {token}"})).status_code


@trio_test
async def test_e23_a_rule_cannot_make_a_sidecar_ask_its_own_machine() -> None:
    """With the configuration as it comes: the server on loopback never hears a word, and nobody enters."""
    async with serving_keys(None) as secret:
        secret.answers["/keys"] = ok(key_set(STRANGER))
        for host in ("localhost", "127.0.0.1", "[::ffff:127.0.0.1]"):
            rule = rule_of(jwks_uri=secret.url("/keys", "http", host))
            async with asking(rule, Jwks()) as (pair, client, app):
                assert await status(pair, client, right_now(STRANGER)) == 503
                assert app.requests == []
        assert secret.asked == []


@trio_test
async def test_e23_an_issuer_cannot_lead_elsewhere() -> None:
    """Neither by redirect nor by what its configuration names; the keys it would have led to are not used."""
    async with serving_keys(None) as elsewhere, serving_keys(None) as issuer:
        elsewhere.answers["/keys"] = ok(key_set(STRANGER))
        issuer.answers["/keys"] = (
            f"HTTP/1.1 302 Found\r\nlocation: {elsewhere.url('/keys', 'http')}\r\ncontent-length: 0\r\n\r\n".encode()
        )
        async with asking(rule_of(jwks_uri=issuer.url("/keys", "http")), LOOPBACK) as (pair, client, _):
            assert await status(pair, client, right_now(STRANGER)) == 503
        name = issuer.url("", "http")
        for led in ("http://169.254.169.254/keys", "file:///etc/passwd", "https://169.254.169.254/keys"):
            configuration = json.dumps({"issuer": name, "jwks_uri": led})
            issuer.answers["/.well-known/openid-configuration"] = ok(configuration)
            async with asking(rule_of(issuer=name, discover=True), LOOPBACK) as (pair, client, _):
                assert await status(pair, client, right_now(STRANGER, iss=name)) == 503
        assert elsewhere.asked == []


@trio_test
async def test_e21_e16_a_flood_of_bad_tokens_costs_one_fetch_and_no_memory() -> None:
    """Invented key ids, wrong signatures, rubbish: each is told 401, and an honest user does not notice."""
    async with serving_keys(None) as issuer:
        issuer.answers["/keys"] = ok(key_set(KEY))
        async with asking(rule_of(jwks_uri=issuer.url("/keys", "http")), LOOPBACK) as (pair, client, app):
            assert await status(pair, client, right_now()) == 200
            for number in range(60):
                bad = (right_now(STRANGER, {"kid": f"k{number}-"}), right_now(STRANGER), f"{number}.{number}.{number}")
                assert {await status(pair, client, token) for token in bad} == {401}
            assert await status(pair, client, right_now()) == 200
            assert len(issuer.asked) == 2
            assert len(app.requests) == 2
            authenticator = pair.orders.runtime.authentication._authenticator
            assert authenticator is not None
            assert len(authenticator._memory) <= 2


@trio_test
async def test_e22_a_key_that_replaced_another_under_its_name_invalidates_what_is_remembered() -> None:
    """A token that was verified is verified again when its issuer's keys are other ones."""
    async with serving_keys(None) as issuer:
        issuer.answers["/keys"] = ok(key_set(KEY))
        async with asking(rule_of(jwks_uri=issuer.url("/keys", "http")), LOOPBACK) as (pair, client, _):
            token = right_now()
            assert await status(pair, client, token) == 200
            issuer.answers["/keys"] = ok(key_set(STRANGER))
            assert await status(pair, client, right_now(SigningKey(kid="new"))) == 401  # brings the next fetch forward
            assert await status(pair, client, token) == 401


# Plaintext


class Never:
    """Who waits for keys, and must not."""

    def keys_came(self) -> None:
        raise AssertionError("nothing was awaited")

    def keys_failed(self, error: RequestError) -> None:
        raise AssertionError("nothing was awaited")


def head_with(token: str) -> RequestHead:
    head = [(b":method", b"GET"), (b":scheme", b"http"), (b":authority", b"orders.shop"), (b":path", b"/")]
    return admit_request([*head, *([(b"authorization", b"Bearer " + token.encode())] if token else [])], True)


@pytest.mark.parametrize(
    ("source_ip", "is_taken"),
    [("127.0.0.1", True), ("::1", True), ("10.1.2.3", False), ("2001:db8::1", False), ("", False)],
)
def test_e26_a_token_that_came_in_plaintext_from_another_machine_is_refused(source_ip: str, is_taken: bool) -> None:
    """Whoever heard it on its way could use it. Without a token plaintext is what PeerAuthentication says."""
    authenticator = Authenticator(
        Config(service="orders"), Random(1), lambda: 0.0, lambda *_task: None, lambda: None, lambda: NOW
    )
    authenticator.use([RequestAuthentication(namespace="shop", name="users", jwt_rules=(rule_of(KEY),))])
    caller = Caller(None, Peer(None, source_ip), None)  # type: ignore[arg-type]  # its runtime is not asked
    assert caller.is_exposed is not is_taken
    assert authenticator.admit(Never(), head_with(""), is_exposed=caller.is_exposed) is None
    if is_taken:
        user = authenticator.admit(Never(), head_with(KEY.token()), is_exposed=caller.is_exposed)
        assert user is not None
        assert user.verified.token.subject == "ann"
    else:
        with pytest.raises(Unauthorized) as caught:
            authenticator.admit(Never(), head_with(KEY.token()), is_exposed=caller.is_exposed)
        assert (caught.value.row, caught.value.reason) == ("E26", "token_plaintext")
