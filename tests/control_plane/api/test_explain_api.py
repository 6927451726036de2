"""Explain over the operator's socket: what would be decided, and what was, as sidecars reported it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from control_plane.api.discovery import REPORTS_BURST
from control_plane.logs import JsonFormatter
from protos.hauberk.v1 import config_pb2, discovery_pb2
from tests.control_plane.support import Rpc, Watcher, asyncio_test, refusal, running, watching

ID = "00c0ffee00c0ffee"
WEB = "spiffe://mesh.local/ns/shop/sa/web"
ORDERS = "spiffe://mesh.local/ns/shop/sa/orders"
ASK = {"from_identity": "shop/web", "to_service": "orders.shop", "port": 8080, "method": "GET", "path": "/x"}


def document(kind: str, name: str = "orders", annotations: dict[str, str] | None = None, **spec: Any) -> str:
    """JSON is YAML; one line."""
    metadata: dict[str, Any] = {"name": name, "namespace": "shop"}
    if annotations:
        metadata["annotations"] = annotations
    return json.dumps(
        {"apiVersion": "security.istio.io/v1", "kind": kind, "metadata": metadata, "spec": spec}
    )  # fmt: skip


def policy(name: str = "orders", action: str = "ALLOW", shadow: bool = False, **rule: Any) -> str:
    annotations = {"hauberk.dev/mode": "shadow"} if shadow else None
    return document("AuthorizationPolicy", name, annotations, action=action, rules=[rule])


def callers(*accounts: str) -> dict[str, Any]:
    """The `from` of a rule."""
    return {"from": [{"source": {"principals": [f"mesh.local/ns/shop/sa/{one}" for one in accounts]}}]}


async def explained(operator: Rpc, **request: Any) -> config_pb2.ExplainResponse:
    return await operator.call("Config/Explain", config_pb2.ExplainRequest(**request), config_pb2.ExplainResponse)


@contextlib.asynccontextmanager
async def mesh_of(directory: Path, *documents: str) -> AsyncIterator[tuple[Rpc, Watcher, discovery_pb2.Snapshot]]:
    """An operator, and the watch stream of a sidecar of orders with the snapshot it took."""
    async with running(directory) as mesh, mesh.operator() as operator:
        if documents:
            await operator.apply(*documents)
        await mesh.join("web")
        async with mesh.as_member(await mesh.join("orders")) as rpc:
            watcher = await watching(rpc)
            yield operator, watcher, await watcher.taken()


def decision(held: discovery_pb2.Snapshot, **changes: Any) -> discovery_pb2.Decision:
    asked: dict[str, Any] = {
        "principal": WEB, "source_ip": "10.0.0.9", "host": "orders.shop", "port": 8080, "method": "GET", "path": "/x",
    }  # fmt: skip
    asked |= changes.pop("asked", {})
    values: dict[str, Any] = {
        "id": ID, "at": 1_700_000_000.0, "epoch": held.epoch, "version": held.version, "rule": "default",
        "reason": "no ALLOW rule matched",
    }  # fmt: skip
    return discovery_pb2.Decision(**values | changes, asked=discovery_pb2.Asked(**asked))


async def reported(operator: Rpc, watcher: Watcher, *decisions: discovery_pb2.Decision) -> config_pb2.ExplainResponse:
    """The answer about the last of them, once it has arrived."""
    await watcher.say(decisions=discovery_pb2.Decisions(decisions=decisions))
    while True:
        try:
            return await explained(operator, decision_id=decisions[-1].id)
        except Exception as error:  # the report is on its way
            if "NOT_FOUND" not in str(error):
                raise
            await asyncio.sleep(0.01)


# What would be decided


@pytest.mark.parametrize(
    ("rule", "more"),
    [
        ({"when": [{"key": "request.headers[x-team]", "values": ["red"]}]}, {"headers": [("X-Team", " red ")]}),
        ({"from": [{"source": {"requestPrincipals": ["https://id/ann"]}}]}, {"claims_json": '{"iss":"https://id","sub":"ann"}'}),
        ({"when": [{"key": "request.auth.claims[groups]", "values": ["b"]}]}, {"claims_json": '{"groups":["a","b"]}'}),
        ({"when": [{"key": "request.auth.audiences", "values": ["s"]}]}, {"claims_json": '{"aud":"s"}'}),
        ({"from": [{"source": {"ipBlocks": ["10.0.0.0/8"]}}]}, {"source_ip": "::ffff:10.1.2.3"}),
        ({"from": [{"source": {"remoteIpBlocks": ["192.0.2.0/24"]}}]}, {"remote_ip": "192.0.2.1"}),
        ({"when": [{"key": "destination.ip", "values": ["10.0.0.7"]}]}, {"destination_ip": "10.0.0.7"}),
        ({"when": [{"key": "connection.sni", "values": ["orders.shop"]}]}, {"sni": "Orders.Shop"}),
        ({"to": [{"operation": {"hosts": ["other.example"]}}]}, {"host": "Other.example:81"}),
    ],
    ids=lambda value: str(next(iter(value.values())))[:40],
)  # fmt: skip
def test_everything_that_policies_look_at_can_be_asked(
    rule: dict[str, Any], more: dict[str, Any], tmp_path: Path
) -> None:
    """With it the answer is yes, and its rule and conditions are shown; without it no, and what was missing."""

    @asyncio_test
    async def main() -> None:
        async with mesh_of(tmp_path, policy(**rule)) as (operator, _, _):
            pairs = more.get("headers", [])
            headers = [config_pb2.RequestHeader(name=name, value=value) for name, value in pairs]
            allowed = await explained(operator, **ASK | more | ({"headers": headers} if headers else {}))
            denied = await explained(operator, **ASK)
        assert (allowed.allowed, allowed.rule, allowed.source) == (True, "shop/orders#0", "file0.yaml:1")
        assert [one.matched for one in allowed.conditions] == [True]
        assert (denied.allowed, denied.rule, len(denied.near_misses)) == (False, "default", 1)
        assert [one.matched for one in denied.near_misses[0].conditions] == [False]

    main()


@asyncio_test
async def test_the_path_is_judged_as_a_sidecar_reads_it(tmp_path: Path) -> None:
    """And the answer says so when that is another one."""
    async with mesh_of(tmp_path, policy(to=[{"operation": {"paths": ["/admin"]}}])) as (operator, _, _):
        answer = await explained(operator, **ASK | {"path": "/x/../%61dmin?a=1"})
        plain = await explained(operator, **ASK | {"path": "/admin"})
    assert (answer.allowed, answer.note) == (True, "the path is judged as /admin")
    assert (plain.allowed, plain.note) == (True, "")


@asyncio_test
async def test_shadow_and_audit_are_part_of_the_answer(tmp_path: Path) -> None:
    """They decide nothing."""
    documents = (
        policy(**callers("web")),
        policy("no-x", "DENY", shadow=True, to=[{"operation": {"paths": ["/x"]}}]),
        policy("seen", "AUDIT", to=[{"operation": {"methods": ["GET"]}}]),
    )
    async with mesh_of(tmp_path, *documents) as (operator, _, _):
        answer = await explained(operator, **ASK)
        other = await explained(operator, **ASK | {"path": "/y", "method": "POST"})
    assert (answer.allowed, answer.rule) == (True, "shop/orders#0")
    assert (answer.shadow_rule, answer.shadow_allowed, list(answer.audit_rules)) == (
        "shop/no-x#0",
        False,
        ["shop/seen#0"],
    )
    assert (other.allowed, other.shadow_rule, list(other.audit_rules)) == (True, "", [])


@asyncio_test
async def test_plaintext_meets_peer_authentication_first(tmp_path: Path) -> None:
    """STRICT is the default; PERMISSIVE and DISABLE let nobody's policy decide; on DISABLE nobody has a name."""
    plain = ASK | {"from_identity": "plaintext"}
    async with mesh_of(tmp_path, policy(to=[{"operation": {"methods": ["GET"]}}])) as (operator, _, _):
        default = await explained(operator, **plain)
        await operator.apply(document("PeerAuthentication", mtls={"mode": "STRICT"}))
        strict = await explained(operator, **plain)
        peers = {"hauberk.dev/plaintext-from": "10.0.0.0/8"}
        await operator.apply(document("PeerAuthentication", annotations=peers, mtls={"mode": "PERMISSIVE"}))
        stranger = await explained(operator, **plain | {"source_ip": "192.0.2.1"})
        neighbour = await explained(operator, **plain | {"source_ip": "10.0.0.9"})
        somebody = await explained(operator, **plain)
        until = {"hauberk.dev/plaintext-until": "2001-01-01T00:00:00Z"}
        await operator.apply(document("PeerAuthentication", annotations=until, mtls={"mode": "PERMISSIVE"}))
        late = await explained(operator, **plain)
        await operator.apply(document("PeerAuthentication", mtls={"mode": "DISABLE"}), policy(**callers("web")))
        nameless = await explained(operator, **ASK)
    assert (default.allowed, default.rule) == (False, "peer-authentication")
    assert default.reason.endswith("(STRICT), by the default of the mesh")
    assert default.from_identity == "nobody (plaintext)"
    assert (strict.allowed, strict.rule, strict.source) == (False, "peer-authentication", "file0.yaml:1")
    assert "STRICT" in strict.reason
    assert (stranger.allowed, stranger.reason) == (False, "the port takes plaintext from 10.0.0.0/8 only")
    assert (neighbour.allowed, neighbour.rule, neighbour.note) == (True, "shop/orders#0", "")
    assert (somebody.allowed, "give --source-ip" in somebody.note) == (True, True)
    assert (late.allowed, "2001-01-01T00:00:00Z, which has passed" in late.reason) == (False, True)
    assert (nameless.allowed, nameless.from_identity) == (False, WEB)
    assert "nobody has an identity (DISABLE by file0.yaml:1)" in nameless.note


@asyncio_test
async def test_a_token_that_would_not_be_taken_is_told(tmp_path: Path) -> None:
    """Claims are believed in the question; a real token also needs a RequestAuthentication."""
    jwt = {"issuer": "https://id.example", "audiences": ["shop"], "jwksUri": "https://id.example/keys"}
    claims = {"claims_json": '{"iss": "https://id.example", "sub": "ann", "aud": ["bank"]}'}
    async with mesh_of(tmp_path, policy()) as (operator, _, _):
        unknown = await explained(operator, **ASK | claims)
        await operator.apply(document("RequestAuthentication", jwtRules=[jwt]))
        other = await explained(operator, **ASK | claims)
        taken = await explained(operator, **ASK | {"claims_json": claims["claims_json"].replace("bank", "shop")})
    assert unknown.note.startswith("no RequestAuthentication here takes tokens of https://id.example")
    assert other.note.startswith("no RequestAuthentication here takes tokens for bank")
    assert taken.note == ""


@asyncio_test
async def test_what_makes_a_question_another_than_was_meant_is_noted(tmp_path: Path) -> None:
    """A caller that there is not, a token in a header, a token of no issuer."""
    header = config_pb2.RequestHeader(name="Authorization", value="Bearer a.b.c")
    async with mesh_of(tmp_path, policy()) as (operator, _, _):
        stranger = await explained(operator, **ASK | {"from_identity": "shop/wbe"})
        token = await explained(operator, **ASK | {"headers": [header]})
        no_issuer = await explained(operator, **ASK | {"claims_json": '{"sub": "ann"}'})
    assert stranger.note == "nobody ever joined as spiffe://mesh.local/ns/shop/sa/wbe"
    assert token.note.startswith("a token is not read from a header here")
    assert no_issuer.note == "the claims name no issuer (iss): a real token without one is not taken"


@asyncio_test
async def test_a_caller_may_be_named_in_three_ways(tmp_path: Path) -> None:
    """As namespace and account, as policies name it, and as certificates do."""
    async with mesh_of(tmp_path, policy(**callers("web"))) as (operator, _, _):
        for name in ("shop/web", WEB.removeprefix("spiffe://"), WEB):
            answer = await explained(operator, **ASK | {"from_identity": name})
            assert (answer.allowed, answer.from_identity) == (True, WEB)


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"path": "/a%2fb"}, "a sidecar answers 400 and asks no policy"),
    ({"path": "/a%zz"}, "row C13"),
    ({"path": "/\u00e4"}, "row B04"),
    ({"path": "a"}, "row B03"),
    ({"path": "/" * 9_000}, "more than 8192"),
    ({"method": "get"}, "upper case, such as GET"),
    ({"source_ip": "10.0.0"}, "source_ip: '10.0.0' is no IP address; write one"),
    ({"remote_ip": "localhost"}, "remote_ip: 'localhost' is no IP address"),
    ({"destination_ip": "1.2.3.4:5"}, "destination_ip: "),
    ({"headers": [config_pb2.RequestHeader(name="a b", value="c")]}, "'a b' is no header's name"),
    ({"headers": [config_pb2.RequestHeader(name="a", value="b\nc")]}, "the value of a is too long or holds control"),
    ({"headers": [config_pb2.RequestHeader(name="a")] * 101}, "more than 100"),
    ({"claims_json": "[]"}, "is not a JSON object; write an object"),
    ({"claims_json": '{"a":1,"a":2}'}, "claims: "),
    ({"claims_json": " " * 70_000}, "more than 65536"),
    ({"from_identity": "web"}, 'or "plaintext" for nobody'),
    ({"from_identity": ""}, "has no namespace"),
    ({"port": 70_000}, "70000 is no port"),
    ({"decision_id": "xyz"}, "'xyz' is no id; it has 16 hexadecimal digits"),
]


@asyncio_test
async def test_what_cannot_be_asked_is_refused_with_the_way_out(tmp_path: Path) -> None:
    """Each field, wrong once."""
    async with mesh_of(tmp_path) as (operator, _, _):
        for changes, told in WRONG:
            status, details = await refusal(explained(operator, **ASK | changes))
            assert (status, told in details) == ("INVALID_ARGUMENT", True), (changes, details)


# What was decided


@asyncio_test
async def test_why_a_token_was_not_taken_is_told_in_words(tmp_path: Path) -> None:
    """The row is for the catalogue of bad inputs."""
    refused = {"rule": "request-authentication", "reason": "no_issuer (E07)"}
    async with mesh_of(tmp_path) as (operator, watcher, held):
        answer = await reported(operator, watcher, decision(held, **refused))
    assert answer.reason == "the token was not taken: no issuer"


@asyncio_test
async def test_a_reported_denial_is_explained_by_its_id(tmp_path: Path) -> None:
    """Verdict and rule as they were decided, both ends, version, the request, and the nearest miss."""
    async with mesh_of(tmp_path, policy(**callers("web"), to=[{"operation": {"paths": ["/y"]}}])) as (
        operator, watcher, held,
    ):  # fmt: skip
        answer = await reported(operator, watcher, decision(held))
        again = await explained(operator, decision_id=ID.upper())
    assert answer == again
    assert (answer.allowed, answer.rule, answer.reason) == (False, "default", "no ALLOW rule matched")
    assert (answer.from_identity, answer.to_identity) == (WEB, ORDERS)
    assert (answer.decision_id, answer.decided_at, answer.version) == (ID, 1_700_000_000.0, held.version)
    assert (answer.request, answer.note) == ("GET orders.shop:8080/x", "")
    (miss,) = answer.near_misses
    assert [(one.matched, one.got) for one in miss.conditions] == [(True, "mesh.local/ns/shop/sa/web"), (False, "/x")]


@asyncio_test
async def test_a_decision_is_held_against_the_policies_of_then(tmp_path: Path) -> None:
    """And what the policies of now would say is told too."""
    async with mesh_of(tmp_path, policy(**callers("billing"))) as (operator, watcher, held):
        await operator.apply(policy(**callers("web")))
        answer = await reported(operator, watcher, decision(held))
    assert answer.near_misses[0].conditions[0].wanted == ["mesh.local/ns/shop/sa/billing"]
    assert answer.note.startswith("policy changed since: version ")
    assert answer.note.endswith(" now would allow it, by shop/orders#0")


@asyncio_test
async def test_a_denial_by_a_rule_shows_that_rules_conditions(tmp_path: Path) -> None:
    """With its place in the file."""
    async with mesh_of(tmp_path, policy("no-x", "DENY", to=[{"operation": {"paths": ["/x*"]}}])) as (
        operator, watcher, held,
    ):  # fmt: skip
        answer = await reported(operator, watcher, decision(held, rule="shop/no-x#0", reason="a DENY rule matched"))
    assert (answer.rule, answer.source, list(answer.near_misses)) == ("shop/no-x#0", "file0.yaml:1", [])
    assert [(one.field, one.matched, one.got) for one in answer.conditions] == [("to[0].operation.paths", True, "/x")]


@asyncio_test
async def test_what_shadow_policies_would_deny_is_explained_as_that(tmp_path: Path) -> None:
    """It was allowed, by the rule in force; the rule in shadow has its conditions shown."""
    documents = (
        policy(**callers("web")),
        policy("no-x", "DENY", shadow=True, to=[{"operation": {"paths": ["/x"]}}]),
    )
    async with mesh_of(tmp_path, *documents) as (operator, watcher, held):
        answer = await reported(operator, watcher, decision(held, allowed=True, shadow=True, rule="shop/no-x#0"))
    assert (answer.allowed, answer.rule, answer.source) == (True, "shop/orders#0", "file0.yaml:1")
    assert (answer.shadow_rule, answer.shadow_allowed) == ("shop/no-x#0", False)
    assert [one.got for one in answer.conditions] == ["/x"]


@asyncio_test
async def test_d08_what_a_sidecar_hides_is_neither_shown_nor_guessed(tmp_path: Path) -> None:
    """A rule that only a hidden value could have failed is the nearest; the policy's own secret is not shown."""
    secret = [{"key": "request.headers[authorization]", "values": ["Bearer s3cr3t"]}]
    documents = (policy("a", to=[{"operation": {"paths": ["/y"]}}]), policy("b", when=secret))
    headers = [discovery_pb2.Header(name="authorization", hidden=True)]
    async with mesh_of(tmp_path, *documents) as (operator, watcher, held):
        answer = await reported(operator, watcher, decision(held, asked={"headers": headers}))
        given = [config_pb2.RequestHeader(name="Authorization", value="Bearer s3cr3t")]
        known = await explained(operator, **ASK, headers=given)
    (condition,) = answer.near_misses[0].conditions
    assert (condition.hidden, condition.got, list(condition.wanted)) == (True, "", ["(hidden)"])
    assert (known.allowed, known.conditions[0].matched, known.conditions[0].hidden) == (True, True, True)
    assert b"s3cr3t" not in answer.SerializeToString() + known.SerializeToString()


@asyncio_test
async def test_d08_what_is_hidden_is_known_in_every_spelling(tmp_path: Path) -> None:
    """As it is judged: x_api_key is a value of x-api-key, and not one that is missing."""
    document = policy("a", when=[{"key": "request.headers[x-api-key]", "values": ["s3cr3t"]}])
    headers = [discovery_pb2.Header(name="x_api_key", hidden=True)]
    async with mesh_of(tmp_path, document) as (operator, watcher, held):
        answer = await reported(operator, watcher, decision(held, asked={"headers": headers}))
    (condition,) = answer.near_misses[0].conditions
    assert condition.hidden


@asyncio_test
async def test_an_id_nobody_reported_is_told_how_long_they_are_kept(tmp_path: Path) -> None:
    """And where the id is."""
    async with mesh_of(tmp_path) as (operator, _, _):
        status, details = await refusal(explained(operator, decision_id=ID))
    assert status == "NOT_FOUND"
    assert all(word in details for word in ("1000 of each service", "24 h", "hauberk-decision-id", "access log"))


@asyncio_test
async def test_who_is_denied_cannot_explain_its_own_denial(tmp_path: Path) -> None:
    """A caller knows the id, and may report it first. Then there are two, and whoever asks chooses the called."""
    async with running(tmp_path) as mesh, mesh.operator() as operator:
        await operator.apply(policy())
        async with (
            mesh.as_member(await mesh.join("web")) as web_rpc,
            mesh.as_member(await mesh.join("orders")) as orders_rpc,
        ):
            web, orders = await watching(web_rpc), await watching(orders_rpc)
            held = await web.taken()
            await orders.taken()
            forged = await reported(operator, web, decision(held, rule="shop/harmless#0"))
            assert forged.to_identity == WEB  # by its certificate
            await reported(operator, orders, decision(held, id="0" * 16))
            await orders.say(decisions=discovery_pb2.Decisions(decisions=[decision(held)]))
            while (outcome := await refusal_or_none(operator)) is None:
                await asyncio.sleep(0.01)
            answer = await explained(operator, decision_id=ID, to_service="orders.shop")
    assert outcome[0] == "FAILED_PRECONDITION"
    assert "orders.shop, web.shop" in outcome[1]
    assert "--to" in outcome[1]
    assert (answer.to_identity, answer.rule) == (ORDERS, "default")


async def refusal_or_none(operator: Rpc) -> tuple[str, str] | None:
    try:
        return await refusal(explained(operator, decision_id=ID))
    except AssertionError:
        return None


def test_a_bad_report_is_dropped_and_a_flood_of_them_ends_the_stream(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """After a bad one the sidecar goes on to be served, and what it says is heard."""
    caplog.set_level(logging.INFO)

    @asyncio_test
    async def main() -> None:
        async with mesh_of(tmp_path, policy()) as (operator, watcher, held):
            bad = decision(held, id="nonsense")
            answer = await reported(operator, watcher, bad, decision(held))
            assert answer.decision_id == ID
            await operator.apply(policy(**callers("web")))
            await watcher.taken()
            for _ in range(REPORTS_BURST + 10):
                await watcher.say(decisions=discovery_pb2.Decisions(decisions=[bad]))
            # The status itself may be lost: gRPC's client fails when it writes to a call that has just ended.
            assert (await watcher.end())[0] != "OK"

    main()
    lines = [json.loads(JsonFormatter().format(record)) for record in caplog.records]
    assert [one["reason"] for one in lines if one["message"] == "sidecar reported no decision"] == [
        "an id is not 16 hexadecimal digits in lower case"
    ]
    (refused,) = (one for one in lines if one["message"] == "call refused" and "Watch" in one["method"])
    assert refused["status"] == "RESOURCE_EXHAUSTED"
    assert "reported too often" in refused["reason"]
