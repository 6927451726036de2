"""Where a token may stand in a head, and what is left of the head without it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.http.headers import RequestHead, admit_request
from sidecar.http.session import Fields
from sidecar.jwks.places import Places
from sidecar.rules.jwt import TokenRefused
from tests.sidecar.jwks.tokens import rule_of

DEFAULT = Places([rule_of()])
EVERYWHERE = Places(
    [
        rule_of(
            from_headers=(("authorization", "Bearer "), ("x-token", ""), ("x-jwt", "jwt=")),
            from_params=("access_token", "t k"),
            from_cookies=("session",),
        )
    ]
)


def head_of(*fields: tuple[bytes, bytes], target: bytes = b"/a") -> RequestHead:
    head: Fields = [(b":method", b"GET"), (b":scheme", b"http"), (b":authority", b"orders.shop"), (b":path", target)]
    return admit_request([*head, *fields], True)


def text_of(places: Places, head: RequestHead) -> str | None:
    found = places.find(head)
    return found.text if found else None


@pytest.mark.parametrize(
    ("value", "text"),
    [(b"Bearer a.b.c", "a.b.c"), (b"bearer a.b.c", "a.b.c"), (b"BEARER a.b.c", "a.b.c"), (b"Bearer", ""),
     (b"Bearer  a.b.c", " a.b.c"), (b"Bearer\ta.b.c", ""), (b"Bearer a, Bearer b", "a, Bearer b"),
     (b"Bearer=a", ""), (b"Basic YTpi", None), (b"BearerToken x", None), (b"a.b.c", None), (b"", None)],
)  # fmt: skip
def test_without_a_place_in_the_rule_it_is_the_bearer_of_authorization(value: bytes, text: str | None) -> None:
    """A scheme has no case; one that has nothing behind it is an empty token, which no rule takes."""
    assert text_of(DEFAULT, head_of((b"authorization", value))) == text


@pytest.mark.parametrize("target", [b"/a?access_token=x", b"/a?token=x"])
def test_e17_a_token_in_the_query_is_none_unless_a_rule_says_so(target: bytes) -> None:
    """Istio looks there by default; queries end up in logs."""
    assert text_of(DEFAULT, head_of(target=target)) is None


@pytest.mark.parametrize(
    ("head", "left"),
    [
        (head_of((b"authorization", b"Bearer x.y"), (b"accept", b"a")), head_of((b"accept", b"a"))),
        (head_of((b"x-token", b"x.y")), head_of()),
        (head_of((b"x-jwt", b"JWT=x.y")), head_of()),
        (head_of(target=b"/a?access_token=x.y"), head_of()),
        (head_of(target=b"/a?b=1&access_token=x.y&c=%26"), head_of(target=b"/a?b=1&c=%26")),
        (head_of(target=b"/a?%61ccess_token=x%2Ey"), head_of()),
        (head_of(target=b"/a?t+k=x.y&"), head_of(target=b"/a?")),
        (head_of((b"cookie", b"a=b; session=x.y; c=d")), head_of((b"cookie", b"a=b; c=d"))),
        (head_of((b"cookie", b'session="x.y"')), head_of()),
        (head_of((b"cookie", b"session=x.y"), (b"cookie", b"c=d")), head_of((b"cookie", b"c=d"))),
    ],
)
def test_a_token_is_found_and_taken_out(head: RequestHead, left: RequestHead) -> None:
    """The rest of the head stays as it was."""
    found = EVERYWHERE.find(head)
    assert found is not None
    assert found.text == "x.y"
    found.remove(head)
    assert (head.target.rstrip(b"?"), head.fields) == (left.target.rstrip(b"?"), left.fields)


@pytest.mark.parametrize(
    "head",
    [
        head_of((b"authorization", b"Bearer x"), (b"authorization", b"Bearer x")),
        head_of((b"authorization", b"Basic x"), (b"authorization", b"Bearer x")),
        head_of((b"authorization", b"Bearer x"), (b"x-token", b"x")),
        head_of((b"authorization", b"Bearer x"), target=b"/a?access_token=x"),
        head_of((b"authorization", b"Bearer x"), (b"cookie", b"session=x")),
        head_of((b"cookie", b"session=x; session=x")),
        head_of(target=b"/a?access_token=x&access_token=x"),
        head_of(target=b"/a?access_token=x&%61ccess_token=y"),
    ],
)
def test_e17_two_tokens_are_refused_whatever_they_are(head: RequestHead) -> None:
    """The app might believe the one that was not looked at."""
    with pytest.raises(TokenRefused) as caught:
        EVERYWHERE.find(head)
    assert (caught.value.row, caught.value.reason) == ("E17", "several_tokens")


def test_the_longest_prefix_says_of_which_kind_a_token_is() -> None:
    """Rules may share a header."""
    plain, prefixed = rule_of(from_headers=(("x-token", ""),)), rule_of(from_headers=(("x-token", "jwt "),), issuer="b")
    places = Places([plain, prefixed])
    for value, rule in ((b"jwt x", prefixed), (b"x", plain)):
        found = places.find(head_of((b"x-token", value)))
        assert found is not None
        assert list(places.rules(found.place)) == [rule]


def test_d01_other_spellings_of_a_token_header_are_known() -> None:
    """An app behind CGI or WSGI cannot tell them apart."""
    assert [name for name in (b"x_token", b"x-token", b"x.token", b"authorization", b"accept")
            if EVERYWHERE.is_alias(name)] == [b"x_token", b"x.token"]  # fmt: skip


@given(st.binary(max_size=40), st.binary(max_size=40))
def test_any_query_and_cookie_are_read(query: bytes, cookie: bytes) -> None:
    """What remains after taking a token out holds none of that name."""
    head = head_of()
    head.target = b"/a?" + query
    head.fields = [(b"cookie", cookie)]
    for _ in range(2):
        try:
            found = EVERYWHERE.find(head)
        except TokenRefused:
            return
        if found is not None:
            found.remove(head)
    assert EVERYWHERE.find(head) is None
