"""What is told of an exchange when it ended: to the log, the metrics, and whoever is asked why."""

from __future__ import annotations

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from protos.hauberk.v1 import discovery_pb2
from sidecar.decisions import BURST
from sidecar.rules.snapshot import Action, AuthorizationPolicy, Operation, Rule, When
from tests.sidecar.mesh import WEB
from tests.sidecar.net.support import settled
from tests.sidecar.support import PORT, App, Pair, Side, allow, deny, serving, two_sides
from tests.trio_support import trio_test

SECRET = "Bearer s3cr3t-of-ann"


def policy(name: str, action: Action, *rules: Rule, shadow: bool = False) -> AuthorizationPolicy:
    return AuthorizationPolicy(namespace="shop", name=name, action=action, rules=rules, shadow=shadow)


def on(*paths: str) -> Rule:
    return Rule(operations=(Operation(paths=paths),))


def counted(side: Side, name: str) -> dict[tuple[str, ...], float]:
    """Values of a counter by the values of its labels, in order of their names."""
    families = text_string_to_metric_families(side.metrics.export().decode())
    (family,) = (one for one in families if one.name == name)
    return {tuple(text for _, text in sorted(one.labels.items())): one.value for one in family.samples}


async def fetch(pair: Pair, path: str = "/", **headers: str) -> httpx.Response:
    """One call with its own client."""
    async with httpx.AsyncClient(proxy=pair.proxy, trust_env=False, timeout=20) as client:
        return await client.get(pair.url(path), headers=headers)


async def reported(side: Side) -> list[discovery_pb2.Decision]:
    await settled(lambda: len(side.decisions) > 0)
    report = side.decisions.take()
    assert report is not None
    return list(report.decisions)


@trio_test
async def test_a_denial_is_kept_to_be_reported_with_the_id_the_caller_has() -> None:
    """The called sidecar tells of it; the caller's, which judged nothing, does not."""
    async with serving(App()) as app, two_sides(app, policies=(allow(WEB), deny("/secret/*"))) as pair:
        answer = await fetch(pair, "/x/../secret/a?q=1")
        (told,) = await reported(pair.orders)
        assert told.id == answer.headers["hauberk-decision-id"]
        assert (told.allowed, told.shadow, told.rule, told.reason) == (
            False, False, "shop/deny#0", "a DENY rule matched",
        )  # fmt: skip
        asked = told.asked
        assert (asked.principal, asked.host, asked.port, asked.method) == (str(WEB), "orders.shop", PORT, "GET")
        assert (asked.path, asked.source_ip, asked.destination_ip) == ("/secret/a", "127.0.0.1", "127.0.0.1")
        assert (told.epoch, told.version) == (1, pair.orders.version)
        assert pair.web.decisions.take() is None
        assert (await fetch(pair, "/open")).status_code == 200
        assert pair.orders.decisions.take() is None


@trio_test
async def test_what_a_shadow_policy_would_deny_passes_and_is_counted_logged_and_reported() -> None:
    """The caller hears nothing of it, not even an id."""
    policies = (allow(WEB), policy("new", Action.DENY, on("/x*"), shadow=True))
    async with serving(App()) as app, two_sides(app, policies=policies) as pair:
        for path in ("/x1", "/y", "/x2"):
            answer = await fetch(pair, path)
            assert answer.status_code == 200
            assert not any(name.startswith("hauberk") for name in answer.headers)
        lines = await pair.orders.log_lines(3)
        assert [(one.get("decision"), one.get("shadow"), one.get("shadow_rule")) for one in lines] == [
            ("allow", "deny", "shop/new#0"),
            ("allow", None, None),
            ("allow", "deny", "shop/new#0"),
        ]
        told = await reported(pair.orders)
        assert [one.id for one in told] == [lines[0]["decision_id"], lines[2]["decision_id"]]
        assert [(one.allowed, one.shadow, one.rule) for one in told] == [(True, True, "shop/new#0")] * 2
        assert counted(pair.orders, "hauberk_shadow_decisions") == {(str(WEB), "shop/new#0", "deny"): 2.0}


@trio_test
async def test_what_a_shadow_policy_would_allow_is_denied_and_says_so_in_the_log() -> None:
    """One id, one report: that of the denial."""
    shadow = policy("new", Action.ALLOW, on("/*"), shadow=True)
    async with serving(App()) as app, two_sides(app, policies=(shadow,)) as pair:
        answer = await fetch(pair)
        assert answer.status_code == 403
        (line,) = await pair.orders.log_lines(1)
        assert (line["decision"], line["shadow"], line["shadow_rule"]) == ("deny", "allow", "shop/new#0")
        (told,) = await reported(pair.orders)
        assert (told.id, told.allowed, told.shadow, told.rule) == (line["decision_id"], False, False, "default")
        assert counted(pair.orders, "hauberk_shadow_decisions") == {(str(WEB), "shop/new#0", "allow"): 1.0}


@trio_test
async def test_what_matches_an_audit_rule_is_logged_and_counted() -> None:
    """By caller and rule; allowed or denied, audit changes nothing."""
    policies = (allow(WEB, paths=["/a*"]), policy("seen", Action.AUDIT, on("/a1", "/b*"), on("/a*")))
    async with serving(App()) as app, two_sides(app, policies=policies) as pair:
        statuses = [(await fetch(pair, path)).status_code for path in ("/a1", "/a2", "/b", "/c")]
        assert statuses == [200, 200, 403, 403]
        lines = await pair.orders.log_lines(4)
        assert [one.get("audit") for one in lines] == [
            ["shop/seen#0", "shop/seen#1"], ["shop/seen#1"], ["shop/seen#0"], None,
        ]  # fmt: skip
        assert counted(pair.orders, "hauberk_audited_requests") == {
            (str(WEB), "shop/seen#0"): 2.0,
            (str(WEB), "shop/seen#1"): 2.0,
        }
        assert [one.asked.path for one in await reported(pair.orders)] == ["/b", "/c"]


@trio_test
async def test_d08_a_secret_that_a_policy_looks_at_is_in_no_report_and_no_log() -> None:
    """Another header that it looks at is told; one that it does not look at is not."""
    when = tuple(When(key=f"request.headers[{name}]", values=("x",)) for name in ("authorization", "x-team"))
    policies = (policy("users", Action.ALLOW, Rule(when=when)),)
    async with serving(App()) as app, two_sides(app, policies=policies) as pair:
        answer = await fetch(pair, authorization=SECRET, **{"x-team": "red", "x-other": "quiet"})
        assert answer.status_code == 403
        (told,) = await reported(pair.orders)
        headers = {one.name: (one.value, one.hidden) for one in told.asked.headers}
        assert headers == {"authorization": ("", True), "x-team": ("red", False)}
        await pair.orders.log_lines(1)
        for text in (told.SerializeToString(), bytes(pair.orders.log), answer.content, str(answer.headers).encode()):
            assert b"s3cr3t" not in text
            assert b"quiet" not in text


@trio_test
async def test_a_flood_of_denials_keeps_no_more_than_its_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """All are answered; what was not kept is counted. For the ring, all of it takes no time."""
    async with serving(App()) as app, two_sides(app, policies=()) as pair:
        monkeypatch.setattr(pair.orders.decisions, "_clock", lambda: 0.0)
        async with httpx.AsyncClient(proxy=pair.proxy, trust_env=False, timeout=20) as client:
            for _ in range(BURST + 100):
                assert (await client.get(pair.url())).status_code == 403
        await settled(lambda: len(pair.orders.records) == BURST + 100)
        assert (len(pair.orders.decisions), pair.orders.decisions.dropped) == (BURST, 100)
