"""Join tokens: what they bind, what their text holds, and how they are refused."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane import tokens
from control_plane.errors import InvalidRequest, PermissionDenied
from control_plane.store.base import Store
from control_plane.store.sqlite import SqliteStore
from tests.control_plane.support import NOW, TD, workload_spec

PIN = hashlib.sha256(b"anchor").digest()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    opened = SqliteStore.open(tmp_path / "hauberk.db")
    yield opened
    opened.close()


def make(store: SqliteStore, ttl_s: float = 0) -> tokens.NewToken:
    return tokens.create(store, workload_spec(), ttl_s=ttl_s, created_by="me", now=NOW, pin=PIN, join_port=15011)


def parts(token: tokens.NewToken) -> tuple[str, bytes]:
    _, token_id, secret, _, _ = token.text.split(".")
    return token_id, base64.urlsafe_b64decode(secret + "==")


def test_the_text_holds_id_secret_pin_and_join_port(store: SqliteStore) -> None:
    """In the shape every sidecar expects."""
    made = make(store)
    prefix, token_id, secret, pin, port = made.text.split(".")
    assert (prefix, token_id, port) == ("hauberk1", made.record.token_id, "15011")
    assert (len(token_id), len(secret), len(pin)) == (16, 22, 43)
    assert base64.urlsafe_b64decode(pin + "=") == PIN
    assert hashlib.sha256(parts(made)[1]).digest() == made.record.secret_sha256


def test_g13_neither_repr_shows_the_secret(store: SqliteStore) -> None:
    """Nor its hash."""
    made = make(store)
    shown = repr(made) + repr(made.record)
    assert made.text.split(".")[2] not in shown
    assert "secret" not in shown


def test_g10_a_token_is_good_once(store: SqliteStore) -> None:
    """Whoever shows the right secret again is told when it was used, and what to do."""
    token_id, secret = parts(make(store))
    assert tokens.consume(store, token_id, secret, NOW + 1).spec == workload_spec()
    with pytest.raises(PermissionDenied, match=r"already used at 2027-01-15 08:00:01 UTC.*hauberk token create"):
        tokens.consume(store, token_id, secret, NOW + 2)


def test_g12_a_token_lives_ten_minutes_unless_told_otherwise(store: SqliteStore) -> None:
    """Whoever shows the right secret late is told so."""
    token_id, secret = parts(make(store))
    with pytest.raises(PermissionDenied, match="expired at"):
        tokens.consume(store, token_id, secret, NOW + 600)
    short_id, short_secret = parts(make(store, ttl_s=1))
    with pytest.raises(PermissionDenied, match="expired at"):
        tokens.consume(store, short_id, short_secret, NOW + 1)


@pytest.mark.parametrize("ttl_s", [-1.0, 86_400.5, float("inf"), float("nan")])
def test_an_impossible_lifetime_is_refused(store: SqliteStore, ttl_s: float) -> None:
    """A day is the most."""
    with pytest.raises(InvalidRequest, match="24 hours"):
        make(store, ttl_s)


def test_g12_a_guess_learns_nothing(store: SqliteStore) -> None:
    """Unknown, malformed, wrong secret, and wrong secret of a used or expired token: one and the same text."""
    made, used = make(store), make(store)
    tokens.consume(store, *parts(used), NOW)
    wrong = bytes(16)
    guesses = [
        (made.record.token_id, wrong, NOW),
        (made.record.token_id, wrong, NOW + 700),
        (used.record.token_id, wrong, NOW),
        ("0" * 16, wrong, NOW),
        ("", b"", NOW),
        ("' OR 1=1 --", wrong, NOW),
        (made.record.token_id, parts(made)[1] + b"x", NOW),
    ]
    texts = set()
    for token_id, secret, at in guesses:
        with pytest.raises(PermissionDenied) as refused:
            tokens.consume(store, token_id, secret, at)
        texts.add(str(refused.value))
    assert len(texts) == 1
    assert "hauberk token create" in texts.pop()
    tokens.consume(store, *parts(made), NOW)  # the guesses did not spend it


@given(token_id=st.text(max_size=40), secret=st.binary(max_size=40))
def test_whatever_is_shown_it_is_refused_as_one(token_id: str, secret: bytes) -> None:
    """Never another error."""
    with pytest.raises(PermissionDenied):
        tokens.consume(EMPTY, token_id, secret, NOW)


class _Empty:
    """A store that never made a token."""

    def consume_token(self, token_id: str, secret_sha256: bytes, now: float) -> None: ...

    def token(self, token_id: str) -> None: ...


EMPTY = cast(Store, _Empty())


def test_defaults_are_filled_in() -> None:
    """Namespace default, service account and label app after the service."""
    spec = tokens.workload_spec(TD, service="orders", labels={"tier": "gold"})
    assert str(spec.spiffe_id) == "spiffe://mesh.local/ns/default/sa/orders"
    assert dict(spec.labels) == {"app": "orders", "tier": "gold"}
    named = tokens.workload_spec(TD, service="orders", service_account="shop", namespace="eu", labels={"app": "x"})
    assert (str(named.spiffe_id), dict(named.labels)) == ("spiffe://mesh.local/ns/eu/sa/shop", {"app": "x"})


@pytest.mark.parametrize("name", ["", "Orders", "-a", "a-", "a.b", "a/b", "../x", "a\n", "a\x00", "ä", "%2e", "x" * 64])
@pytest.mark.parametrize("field", ["service", "namespace", "service_account"])
def test_g09_a_name_that_is_no_name_is_refused(field: str, name: str) -> None:
    """Before it can become part of an identity. (Empty namespace and service account mean the default.)"""
    if name == "" and field != "service":
        return
    values = {"service": "orders", field: name}
    with pytest.raises(InvalidRequest, match=field.replace("_", " ")):
        tokens.workload_spec(TD, labels={}, **values)


@pytest.mark.parametrize(
    "labels", [{"": "x"}, {"a b": "x"}, {"a": "x y"}, {"a": "\n"}, {"a" * 64: "x"}, {"a/b/c": "x"}]
)
def test_a_label_that_is_no_label_is_refused(labels: dict[str, str]) -> None:
    """Kubernetes' grammar, so that selectors mean the same."""
    with pytest.raises(InvalidRequest, match="labels"):
        tokens.workload_spec(TD, service="orders", labels=labels)
    with pytest.raises(InvalidRequest, match="at most"):
        tokens.workload_spec(TD, service="orders", labels={f"l{n}": "x" for n in range(65)})
