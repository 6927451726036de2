"""What policies may do with a header, held against what the border does with it."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sidecar.errors import BadRequest
from sidecar.http import fields, headers
from sidecar.rules.header_names import HEADER_NAME, folded, is_identity, may_be_set, may_carry_token, why_not_seen

VALUES = {"te": b"trailers", "host": b"orders.shop", "content-length": b"5"}
"""What the border takes; anything else goes for any header."""
KNOWN = sorted({name.decode() for name in (*headers._REQUEST_RULES, *headers._TRAILER_RULES)} | {"x-hauberk", "x-a"})
SPELLINGS = st.sampled_from(["x-forwarded-client-cert", "x-hauberk-principal", *KNOWN]).flatmap(
    lambda name: st.lists(st.sampled_from("-_.!~"), min_size=len(name), max_size=len(name)).map(
        lambda dashes: "".join(dash if letter == "-" else letter for letter, dash in zip(name, dashes, strict=True))
    )
)


def is_judged_with(name: str) -> bool:
    """Is the header among the fields of a request that policies are asked about?"""
    request = [(b":method", b"PUT"), (b":scheme", b"http"), (b":authority", b"orders.shop"), (b":path", b"/")]
    try:
        head = headers.admit_request([*request, (name.encode(), VALUES.get(name, b"x"))], end=False)
    except BadRequest:
        return False
    return [found for found, _ in head.fields] == [name.encode()]


@given(st.one_of(st.sampled_from(KNOWN), SPELLINGS, st.from_regex(HEADER_NAME, fullmatch=True).map(str.lower)))
@example("x_hauberk_principal")
@example("proxy_authorization")
def test_d02_what_may_be_looked_at_is_what_crosses_the_border(name: str) -> None:
    """No more: a DENY of what never comes would protect nothing. No less: Istio's policies may ask for it."""
    assert (why_not_seen(name) == "") is is_judged_with(name)
    assert folded(name).encode() == fields.folded(name.encode())
    assert is_identity(name) is fields.is_identity(name.encode())


@given(st.one_of(st.sampled_from(KNOWN), SPELLINGS))
def test_a_token_is_read_only_where_it_can_come(name: str) -> None:
    """And never from what frames the message."""
    if may_carry_token(name):
        assert is_judged_with(name)


@pytest.mark.parametrize("name", ["cookie", "authorization", "x-token", "x-forwarded-access-token"])
def test_where_istio_reads_tokens_they_may_stand(name: str) -> None:
    """Any header of the request itself."""
    assert may_carry_token(name)


@given(SPELLINGS)
def test_d02_no_claim_is_put_into_what_an_app_believes_of_us(name: str) -> None:
    """In whatever spelling; nor into a header that means something else to an app (the method: row C28)."""
    if may_be_set(name):
        assert is_judged_with(name)
        assert not fields.is_ours(name.encode())
        assert not fields.is_method_override(name.encode())


@pytest.mark.parametrize(
    ("name", "is_free"),
    [
        ("x-jwt-claims", True),
        ("x-user", True),
        ("x-forwarded-email", True),
        ("x-forwarded-for", False),
        ("x.forwarded.for", False),
        ("x-http-method-override", False),
        ("x_method_override", False),
        ("hauberk-decision-id", False),
        ("content-length", False),
        ("authorization", False),
        ("traceparent", False),
    ],
)
def test_claims_are_put_into_headers_of_ones_own(name: str, is_free: bool) -> None:
    """And into none that frames, routes or authenticates a message."""
    assert may_be_set(name) is is_free
