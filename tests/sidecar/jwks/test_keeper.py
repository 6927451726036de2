"""When the keys of an issuer are fetched, and how long they hold: a dialogue, with the time made up."""

from __future__ import annotations

import json
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.config import Jwks
from sidecar.jwks.keeper import JITTER, RETRY_MAX_S, UNKNOWN_KEY_S, Keeper, Source
from tests.sidecar.jwks.tokens import ISSUER, SigningKey, key_set, rule_of

URI = "https://keys.example/jwks"
OLD, NEW = SigningKey(kid="old"), SigningKey(kid="new")
CONFIG = Jwks()


def keeper_of(uri: str = URI, config: Jwks = CONFIG) -> Keeper:
    rule = rule_of(jwks_uri=uri) if uri else rule_of(discover=True)
    return Keeper(Source.of(rule, config.fetch_timeout_s), config, Random(1), 0.0)


def well(*keys: SigningKey, at: float = 0.0, max_age_s: float | None = None) -> Keeper:
    """One that has keys."""
    keeper = keeper_of()
    assert keeper.next_url(at) == URI
    assert keeper.answered(at, key_set(*keys or (OLD,)).encode(), max_age_s) == ""
    return keeper


def names(keeper: Keeper, now: float) -> list[str]:
    found = keeper.keys(now)
    return [key.kid for key in found.keys] if found else []


def due_at(keeper: Keeper, begin: float, end: float = 1e6) -> float:
    """The first second at which there is something to fetch."""
    low, high = begin, end
    while high - low > 0.01:
        middle = (low + high) / 2
        low, high = (low, middle) if keeper.is_on_its_way(middle) else (middle, high)
    return high


def test_keys_are_fetched_at_once_and_one_fetch_at_a_time() -> None:
    """From the first moment on."""
    keeper = keeper_of()
    assert keeper.is_on_its_way(0.0)
    assert keeper.next_url(0.0) == URI
    assert keeper.next_url(0.0) == ""
    assert keeper.is_fetching
    keeper.answered(1.0, key_set(OLD).encode(), None)
    assert names(keeper, 1.0) == ["old"]
    assert not keeper.is_on_its_way(1.0)


@pytest.mark.parametrize(
    ("max_age_s", "least", "most"), [(None, 540, 600), (0, 270, 300), (400, 360, 400), (86_400, 1_080, 1_200)]
)
def test_e20_keys_are_refreshed_within_5_to_20_minutes(max_age_s: float | None, least: float, most: float) -> None:
    """Every ten, unless the issuer says otherwise; never all sidecars at once."""
    due = due_at(well(max_age_s=max_age_s), 0.0)
    assert least <= due <= most + 0.1


def test_e20_keys_hold_while_the_issuer_is_away_but_not_for_ever() -> None:
    """Retried with back-off up to a minute; after `stale_s` there are none."""
    keeper, now, tries = well(), 0.0, []
    while now < CONFIG.stale_s:
        now = due_at(keeper, now)
        tries.append(now)
        assert keeper.next_url(now) == URI
        keeper.failed(now, "away")
        assert names(keeper, CONFIG.stale_s - 1) == ["old"] or now >= CONFIG.stale_s
    gaps = [after - before for before, after in pairwise(tries)]
    assert gaps[0] < 2
    assert RETRY_MAX_S * 0.8 < gaps[-1] <= RETRY_MAX_S + 0.1
    assert names(keeper, CONFIG.stale_s + 0.1) == []
    assert keeper.problem == "away"


def test_e19_without_keys_and_without_a_fetch_there_is_nothing_to_wait_for() -> None:
    """A cold start with the issuer away: between retries nobody waits."""
    keeper = keeper_of()
    keeper.next_url(0.0)
    keeper.failed(0.1, "away")
    assert keeper.keys(0.1) is None
    assert not keeper.is_on_its_way(0.2)
    assert keeper.is_on_its_way(due_at(keeper, 0.1))


def test_a_set_that_did_not_change_stays_the_same_object() -> None:
    """What was verified with it need not be verified again."""
    keeper = well()
    before = keeper.keys(0.0)
    keeper.next_url(700.0)
    keeper.answered(700.0, key_set(OLD).encode(), None)
    assert keeper.keys(700.0) is before
    keeper.next_url(1_400.0)
    keeper.answered(1_400.0, key_set(OLD, NEW).encode(), None)
    assert keeper.keys(1_400.0) is not before


def test_e21_unknown_key_ids_bring_one_fetch_a_minute() -> None:
    """However many come, and whatever the answer."""
    keeper, fetched = well(), 0
    for tenth in range(1, 1_800):
        now = tenth / 10
        if keeper.may_know_more(now) and keeper.next_url(now):
            fetched += 1
            keeper.answered(now + 0.01, key_set(OLD).encode(), None) if fetched % 2 else keeper.failed(now, "away")
    assert fetched - 1 <= 180 / UNKNOWN_KEY_S + 4  # with the retries of what failed


def test_e21_a_fetch_under_way_serves_everybody_who_asks() -> None:
    """And uses up nobody's turn: it may have begun before the key was there."""
    keeper = keeper_of()
    keeper.next_url(0.0)
    assert keeper.may_know_more(0.1)
    keeper.answered(0.2, key_set(OLD).encode(), None)
    assert keeper.may_know_more(0.3)
    assert keeper.next_url(0.3) == URI
    keeper.answered(0.4, key_set(OLD, NEW).encode(), None)
    assert names(keeper, 0.4) == ["old", "new"]
    assert not keeper.may_know_more(0.5)


def test_e22_a_key_that_was_withdrawn_is_gone_within_the_refresh_interval() -> None:
    """At most `refresh_s` after it, unless max-age makes it longer, which is bounded too."""
    keeper = well(OLD, NEW)
    now = due_at(keeper, 0.0)
    assert now <= CONFIG.refresh_s + 0.1
    keeper.next_url(now)
    keeper.answered(now, key_set(NEW).encode(), None)
    assert names(keeper, now) == ["new"]


def test_discovery_has_two_legs() -> None:
    """The issuer's configuration, then its keys, each time."""
    keeper = keeper_of("")
    for begin in (0.0, 700.0):
        assert keeper.next_url(begin) == f"{ISSUER}/.well-known/openid-configuration"
        configuration = json.dumps({"issuer": ISSUER, "jwks_uri": URI}).encode()
        assert keeper.answered(begin, configuration, 5.0) == URI
        assert keeper.answered(begin, key_set(OLD).encode(), None) == ""
        assert names(keeper, begin) == ["old"]


@pytest.mark.parametrize(
    ("configuration", "problem"),
    [
        ({"issuer": ISSUER + "/", "jwks_uri": URI}, "another issuer's"),
        ({"jwks_uri": URI}, "another issuer's"),
        ({"issuer": ISSUER}, "jwks_uri"),
        ({"issuer": ISSUER, "jwks_uri": "http://keys.example"}, "must be https"),
        ({"issuer": ISSUER, "jwks_uri": ["https://a.b"]}, "jwks_uri"),
        ({"issuer": ISSUER, "jwks_uri": "file:///etc/passwd"}, "jwks_uri"),
    ],
)
def test_e23_a_configuration_that_is_not_the_issuers_leads_nowhere(configuration: object, problem: str) -> None:
    """Its issuer is exactly the one that was asked for; its keys are at an https URI."""
    keeper = keeper_of("")
    keeper.next_url(0.0)
    assert keeper.answered(0.0, json.dumps(configuration).encode(), None) == ""
    assert problem in keeper.problem
    assert keeper.keys(0.0) is None
    assert not keeper.is_on_its_way(0.0)


@pytest.mark.parametrize("body", [b"", b"<html>", b"{}", b'{"keys": []}', b'{"issuer": "a", "issuer": "b"}', b"\xff"])
def test_an_answer_that_is_no_key_set_changes_nothing(body: bytes) -> None:
    """The keys there were stay, and it is tried again soon."""
    for keeper in (well(), keeper_of("")):
        now = due_at(keeper, 0.0) if keeper.keys(0.0) else 0.0
        before = names(keeper, now)
        keeper.next_url(now)
        assert keeper.answered(now, body, None) == ""
        assert keeper.problem
        assert names(keeper, now) == before
        assert due_at(keeper, now) <= now + 1.2


def test_rules_with_the_same_uri_share_a_keeper() -> None:
    """Discovery is each issuer's own; a time limit of its own makes a fetch of its own."""
    one, other = rule_of(jwks_uri=URI), rule_of(jwks_uri=URI, issuer="https://other.example")
    assert Source.of(one, 5.0) == Source.of(other, 5.0)
    assert Source.of(rule_of(discover=True), 5.0) != Source.of(rule_of(discover=True, issuer="https://b.example"), 5.0)
    assert Source.of(rule_of(jwks_uri=URI, timeout_s=1.0), 5.0).timeout_s == 1.0


@given(st.lists(st.tuples(st.sampled_from(["wait", "good", "bad", "fail", "ask"]), st.integers(1, 2_000))))
def test_whatever_happens_keys_are_never_older_than_they_may_be(events: list[tuple[str, int]]) -> None:
    """And there is always a next fetch, within the longest interval there is."""
    keeper, now, fetched_at = keeper_of(), 0.0, -1e9
    for event, seconds in events:
        now += seconds
        if event == "ask":
            keeper.may_know_more(now)
        elif event != "wait" and keeper.next_url(now):
            if event == "good":
                keeper.answered(now, key_set(OLD).encode(), None)
                fetched_at = now
            elif event == "bad":
                keeper.answered(now, b"?", None)
            else:
                keeper.failed(now, "away")
        assert (keeper.keys(now) is not None) == (now - fetched_at <= CONFIG.stale_s)
        assert keeper.is_on_its_way(now + CONFIG.refresh_s * 2 * (1 + JITTER))
