"""What is remembered of heads: never a value, never without a bound, and never with another outcome than the first."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.config import Limits
from sidecar.errors import BadRequest, RequestError, UpstreamFailed
from sidecar.http import headers, layout
from sidecar.http.fields import Remembered
from sidecar.http.headers import (
    _REQUEST_RULES,
    _request_names,
    admit_request,
    admit_response,
    admit_trailers,
    response_fields,
)
from sidecar.http.layout import Layouts
from sidecar.http.relay.hpack_decode import Decoder
from sidecar.http.relay.hpack_encode import Encoder
from sidecar.http.session import Fields
from tests.sidecar.http.test_headers import IDENTITY_NAMES, NAMES, VALUES, request

LIMITS = Limits()


def outcome(fields: Fields, end: bool) -> object:
    try:
        return admit_request(fields, end, LIMITS)
    except RequestError as e:
        return type(e), e.row


def layouts() -> Layouts:
    return Layouts(_REQUEST_RULES, _request_names)


@given(st.lists(st.tuples(NAMES, VALUES), max_size=10), st.lists(VALUES, min_size=10, max_size=10), st.booleans())
def test_other_values_under_the_same_names_are_judged_like_new_ones(
    fields: Fields, values: list[bytes], end: bool
) -> None:
    """First with a layout made for others, then with one made for them."""
    fields = request(*fields)
    others = fields[:4] + [(name, value) for (name, _), value in zip(fields[4:], values, strict=False)]
    outcome(fields, end)
    second = outcome(others, end)
    for known in ("_REQUESTS", "_RESPONSES", "_TRAILERS"):
        getattr(headers, known)._known.clear()
    assert outcome(others, end) == second


def test_names_that_were_refused_once_are_refused_again() -> None:
    """What is remembered was judged good."""
    known = layouts()
    for _ in range(2):
        with pytest.raises(BadRequest):
            known.read(request((b"X", b"1")), LIMITS, BadRequest)
    assert len(known) == 0


@pytest.mark.parametrize("name", IDENTITY_NAMES)
def test_d01_identity_fields_are_removed_the_second_time_too(name: bytes) -> None:
    """The position is left out, whatever the value."""
    for value in (b"1", b"2", b"3"):
        fields: Fields = [(b"a", b"b"), (name, value), (b"c", b"d"), (b"e", b"f")]
        assert admit_request(request(*fields), True, LIMITS).fields == [(b"a", b"b"), (b"c", b"d"), (b"e", b"f")]


def test_what_is_remembered_is_bounded_and_long_sections_are_not() -> None:
    """A flood of different names."""
    known = layouts()
    for number in range(3 * layout.LAYOUTS_MAX):
        known.read(request((b"x-%d" % number, b"")), LIMITS, BadRequest)
        assert len(known) <= layout.LAYOUTS_MAX
    before = len(known)
    known.read(request((b"x" * layout.NAMES_OCTETS_MAX, b"")), LIMITS, BadRequest)
    known.read(request(*[(b"x", b"")] * layout.NAMES_MAX), LIMITS, BadRequest)
    assert len(known) == before


def test_no_value_is_remembered() -> None:
    """Secrets travel in values."""
    known = layouts()
    known.read(
        request((b"authorization", b"Bearer secret"), (b"cookie", b"secret"), (b"x", b"secret")), LIMITS, BadRequest
    )
    (names, one), *_ = known._known.items()
    kept = repr((names, one.special, one.kept, one.octets))
    assert "secret" not in kept
    assert b"authorization" in names


def test_a_response_that_comes_again_is_judged_once_and_one_that_was_refused_each_time() -> None:
    """What became of it is kept with the section, which lives as long as its connection's decoder."""
    fields = Remembered([(b":status", b"200"), (b"x-hauberk-x", b"1"), (b"a", b"b")])
    head = admit_response(fields, LIMITS)
    assert admit_response(fields, LIMITS) is head
    assert response_fields(head, []) == [(b":status", b"200"), (b"a", b"b")]
    assert response_fields(head, [(b"x", b"y")]) == [(b":status", b"200"), (b"a", b"b"), (b"x", b"y")]
    assert response_fields(head, []) == [(b":status", b"200"), (b"a", b"b")]
    bad = Remembered([(b":status", b"200"), (b"a", b"\n")])
    for _ in range(2):
        with pytest.raises(UpstreamFailed):
            admit_response(bad, LIMITS)


def test_the_decoder_hands_out_a_block_without_secrets_again() -> None:
    """And one with a secret is decoded anew."""
    for name, again in ((b"x-a", True), (b"set-cookie", False)):
        block = Encoder().encode([(b":status", b"200"), (name, b"v")])
        decoder = Decoder(table_octets_max=4_096, list_octets_max=16_384)
        decoder.decode(block)
        assert (decoder.decode(block) is decoder.decode(block)) is again
        assert (type(decoder.decode(block)) is Remembered) is again


def test_trailers_that_come_again_are_judged_once_and_never_taken_for_a_head() -> None:
    """One decoder remembers heads and trailers alike."""
    fields = Remembered([(b"grpc-status", b"0"), (b"date", b"x")])
    kept = admit_trailers(fields, LIMITS)
    assert kept == [(b"grpc-status", b"0")]
    assert admit_trailers(fields, LIMITS) is kept
    with pytest.raises(UpstreamFailed):
        admit_response(fields, LIMITS)
    head = Remembered([(b":status", b"200")])
    admit_response(head, LIMITS)
    with pytest.raises(BadRequest):
        admit_trailers(head, LIMITS)
