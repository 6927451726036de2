"""What may cross: the rows of B that are about heads, and D01, D02."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.config import Limits
from sidecar.errors import BadRequest, HeadersTooLarge, MethodNotAllowed, RequestError, UpstreamFailed
from sidecar.http.fields import Remembered
from sidecar.http.headers import (
    BodyLength,
    admit_informational,
    admit_request,
    admit_response,
    admit_trailers,
    check_outgoing,
    request_fields,
    response_fields,
)
from sidecar.http.session import Field, Fields

LIMITS = Limits()


def request(
    *regular: Field,
    method: bytes | None = b"GET",
    scheme: bytes | None = b"http",
    authority: bytes | None = b"orders.shop",
    path: bytes | None = b"/",
) -> Fields:
    pseudo = [(b":method", method), (b":scheme", scheme), (b":authority", authority), (b":path", path)]
    return [(name, value) for name, value in pseudo if value is not None] + list(regular)


def refused(fields: Fields, end: bool = False, fault: type[RequestError] = BadRequest) -> str:
    with pytest.raises(fault) as caught:
        admit_request(fields, end, LIMITS)
    assert type(caught.value) is fault
    return caught.value.row


def test_an_ordinary_request_crosses_as_it_is() -> None:
    """The head says all that routing and policy ask for."""
    head = admit_request(
        request(
            (b"user-agent", b"curl/8"),
            (b"x-empty", b""),
            (b"x-latin", b"caf\xe9 \t ok"),
            (b"content-length", b"12"),
            method=b"POST",
            authority=b"Orders.Shop:8080",
            path=b"/a/../b?c",
        ),
        False,
        LIMITS,
    )
    assert (head.method, head.scheme, head.target, head.path) == (b"POST", b"http", b"/b?c", "/b")
    assert (head.authority, head.host, head.port) == (b"orders.shop:8080", "orders.shop", 8080)
    assert head.content_length == 12
    assert not head.is_grpc
    assert request_fields(head, [(b"x-extra", b"1")]) == [
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":authority", b"orders.shop:8080"),
        (b":path", b"/b?c"),
        (b"user-agent", b"curl/8"),
        (b"x-empty", b""),
        (b"x-latin", b"caf\xe9 \t ok"),
        (b"content-length", b"12"),
        (b"x-extra", b"1"),
    ]


@pytest.mark.parametrize(
    "fields",
    [
        request((b":path", b"/again")),
        request((b":status", b"200")),
        request((b":unknown", b"x")),
        request((b"a", b"b"), (b":path", b"/late"), path=None),
        request((b":", b"x")),
        request(method=None),
        request(scheme=None),
        request(path=None),
        request(authority=None),
        [],
    ],
)
def test_b01_pseudo_header_fields_are_there_once_and_first(fields: Fields) -> None:
    """RFC 9113 section 8.3."""
    assert refused(fields) == "B01"


@pytest.mark.parametrize(
    "method", [b"", b"GET ", b"GET / HTTP/1.1", b"GE\rT", b"GET?", b"G(T", b"G\xc3\x89T", b"G/T", b"A" * 65]
)
def test_b02_a_method_is_a_token(method: bytes) -> None:
    """It becomes the beginning of a request line."""
    assert refused(request(method=method)) == "B02"


@pytest.mark.parametrize("method", [b"get", b"Get", b"foo"])
def test_b40_a_method_has_no_lower_case(method: bytes) -> None:
    """`get` is not GET for policy, and is for some servers."""
    assert refused(request(method=method)) == "B40"


def test_a_method_nobody_has_heard_of_crosses() -> None:
    """Policy decides, not we."""
    assert admit_request(request(method=b"PROPFIND-2"), True, LIMITS).method == b"PROPFIND-2"


@pytest.mark.parametrize(
    ("path", "row"),
    [
        (b"", "B03"),
        (b"Service/Method", "B03"),
        (b"*", "B03"),
        (b"http://a/", "B03"),
        (b"/a b", "B04"),
        (b"/\xff", "B04"),
    ],
)
def test_b03_b04_the_path_is_judged(path: bytes, row: str) -> None:
    """By `paths.canonical`, whose rows come through."""
    assert refused(request(path=path)) == row


@pytest.mark.parametrize("scheme", [b"", b"HTTP", b"Https", b"ftp", b"https://evil/", b"http ", b"ws"])
def test_b05_the_scheme_is_http_or_https(scheme: bytes) -> None:
    """In lower case."""
    assert refused(request(scheme=scheme)) == "B05"


@pytest.mark.parametrize("authority", [b"", b"u@h", b"h/x", b"h x", b"h:"])
def test_b06_the_authority_is_host_and_port(authority: bytes) -> None:
    """Whether it came as :authority or as host."""
    assert refused(request(authority=authority)) == "B06"
    assert refused(request((b"host", authority), authority=None)) == "B06"


def test_b07_host_and_authority_agree() -> None:
    """Or else two parties would route differently."""
    assert refused(request((b"host", b"billing.shop"))) == "B07"
    assert refused(request((b"host", b"orders.shop:80"))) == "B07"
    head = admit_request(request((b"host", b"ORDERS.shop")), True, LIMITS)
    assert head.fields == []


def test_a_host_alone_is_the_authority() -> None:
    """RFC 9113 section 8.3.1: what came from HTTP/1.1 may have only that."""
    head = admit_request(request((b"host", b"Orders.shop:80"), authority=None), True, LIMITS)
    assert (head.authority, head.port, head.fields) == (b"orders.shop:80", 80, [])


def test_b08_host_is_there_once() -> None:
    """Also when both say the same."""
    assert refused(request((b"host", b"orders.shop"), (b"host", b"orders.shop"))) == "B08"


@pytest.mark.parametrize(
    "field",
    [
        (b"connection", b"close"),
        (b"keep-alive", b"300"),
        (b"proxy-connection", b"keep-alive"),
        (b"transfer-encoding", b"chunked"),
        (b"upgrade", b"h2c"),
        (b"te", b"gzip"),
        (b"te", b"trailers, gzip"),
    ],
)
def test_b09_fields_of_a_connection_are_refused(field: Field) -> None:
    """RFC 9113 section 8.2.2; HTTP/1.1 sessions take them out before."""
    assert refused(request(field)) == "B09"


def test_te_trailers_crosses() -> None:
    """gRPC asks for it."""
    assert admit_request(request((b"te", b"Trailers")), True, LIMITS).fields == [(b"te", b"trailers")]


@pytest.mark.parametrize("name", [b"", b"X-Upper", b"na:me", b"na me", b"name:"])
def test_b10_names_are_lower_case_tokens(name: bytes) -> None:
    """RFC 9113 section 8.2.1."""
    assert refused(request((name, b"v"))) == "B10"


@pytest.mark.parametrize("name", [b"x(", b"x/", b"x\x01", b"x\x7f", b"n\xc3\xa4me", b"x\0", b"x\n", b'x"'])
def test_b13_names_have_no_delimiters_and_no_controls(name: bytes) -> None:
    """RFC 9110 section 5.1."""
    assert refused(request((name, b"v"))) == "B13"


@pytest.mark.parametrize("value", [b"a\r\nb", b"a\rb", b"a\nb", b"\n", b"a\0b", b"a\r", b"\nhost: evil"])
def test_b11_values_have_no_cr_lf_or_nul(value: bytes) -> None:
    """They would be a line of their own on the next hop."""
    assert refused(request((b"x", value))) == "B11"
    assert refused(request((b"cookie", value))) == "B11"


@pytest.mark.parametrize("value", [b"a\x01", b"\x1b[0m", b"a\x7fb", b"\x0b", b"\x0ca"])
def test_b13_values_have_no_controls(value: bytes) -> None:
    """RFC 9110 section 5.5."""
    assert refused(request((b"x", value))) == "B13"


@pytest.mark.parametrize("value", [b" a", b"a ", b"\ta", b"a\t", b" "])
def test_b14_values_have_no_white_space_around(value: bytes) -> None:
    """Else ` admin` and `admin` would be two roles here and one in the app."""
    assert refused(request((b"x-role", value))) == "B14"


def test_b15_underscores_cross_but_are_never_another_name() -> None:
    """`x_request_id` stays what it is."""
    fields: Fields = [(b"x_request_id", b"1"), (b"x-request-id", b"2")]
    assert admit_request(request(*fields), True, LIMITS).fields == fields


def test_b17_a_content_length_needs_a_body() -> None:
    """Forwarded to HTTP/1.1 it would swallow the next request."""
    assert refused(request((b"content-length", b"5")), end=True) == "B17"
    assert admit_request(request((b"content-length", b"0")), True, LIMITS).content_length == 0


def test_b18_conflicting_content_lengths_are_refused() -> None:
    """Whichever the next hop believes, another believes the other."""
    assert refused(request((b"content-length", b"5"), (b"content-length", b"6"))) == "B18"


def test_b19_equal_content_lengths_become_one() -> None:
    """RFC 9110 section 8.6; leading zeros go too."""
    head = admit_request(request((b"content-length", b"5"), (b"content-length", b"05")), False, LIMITS)
    assert head.fields == [(b"content-length", b"5")]


@pytest.mark.parametrize("value", [b"", b"+1", b"-1", b"0x3", b"1, 1", b"1 1", b"9" * 40, "٣".encode(), b"1_0", b"1.0"])
def test_b20_a_content_length_is_digits(value: bytes) -> None:
    """Python's int() takes most of these."""
    assert refused(request((b"content-length", value))) == "B20"


def test_b34_connect_is_not_configured() -> None:
    """Neither plain nor extended (RFC 8441)."""
    connect: Fields = [(b":method", b"CONNECT"), (b":authority", b"a:1")]
    assert refused(connect, fault=MethodNotAllowed) == "B34"
    assert refused([*connect, (b":protocol", b"websocket")]) == "B34"


def test_b38_a_hundred_fields_and_no_more() -> None:
    """Counted as they came: cookie crumbs singly (row A21)."""
    admit_request(request(*[(b"a", b"")] * 100), True, LIMITS)
    assert refused(request(*[(b"a", b"")] * 101), fault=HeadersTooLarge) == "B38"
    assert refused(request(*[(b"cookie", b"a")] * 101), fault=HeadersTooLarge) == "B38"
    assert refused([(b"a", b"")] * 5000, fault=HeadersTooLarge) == "B38"


def test_b39_the_size_counts_an_overhead_per_field() -> None:
    """RFC 9113 section 6.5.2."""
    plain = request(path=b"/")
    used = sum(len(name) + len(value) + 32 for name, value in plain)
    room = LIMITS.header_list_octets_max - used - 32 - 1
    admit_request([*plain, (b"x", b"a" * room)], True, LIMITS)
    assert refused([*plain, (b"x", b"a" * (room + 1))], fault=HeadersTooLarge) == "B39"


def test_cookie_crumbs_are_one_field_again() -> None:
    """RFC 9113 section 8.2.3."""
    head = admit_request(request((b"cookie", b"a=1"), (b"x", b"y"), (b"cookie", b"b=2")), True, LIMITS)
    assert head.fields == [(b"x", b"y"), (b"cookie", b"a=1; b=2")]


IDENTITY_NAMES = [
    b"x-forwarded-client-cert",
    b"x_forwarded_client_cert",
    b"x-forwarded_client-cert",
    b"x-hauberk-identity",
    b"x_hauberk_identity",
    b"x-hauberk_peer",
    b"x-hauberk",
]


@pytest.mark.parametrize("name", IDENTITY_NAMES)
def test_d01_d02_identity_fields_from_outside_are_removed(name: bytes) -> None:
    """Always, in every spelling, in heads and trailers, in both directions."""
    kept: Fields = [(b"x-forwarded-for", b"10.0.0.1"), (b"forwarded", b"for=1"), (b"x-haubert", b"1"), (b"a_b", b"1")]
    assert admit_request(request(*kept, (name, b"spiffe://x"), (name, b"2")), True, LIMITS).fields == kept
    assert admit_trailers([(b"a", b"b"), (name, b"v")]) == [(b"a", b"b")]
    assert admit_response([(b":status", b"200"), (name, b"v")], LIMITS).fields == []


@pytest.mark.parametrize("name", [b"proxy-authorization", b"http2-settings"])
def test_fields_for_this_hop_are_removed(name: bytes) -> None:
    """They were for us."""
    assert admit_request(request((name, b"v")), True, LIMITS).fields == []


@pytest.mark.parametrize(
    ("value", "is_grpc"),
    [
        (b"application/grpc", True),
        (b"application/grpc+proto", True),
        (b"application/grpc;charset=x", True),
        (b"Application/gRPC", True),
        (b"application/grpc-web", False),
        (b"application/grpcx", False),
        (b"application/json", False),
    ],
)
def test_grpc_is_told_by_its_content_type(value: bytes, is_grpc: bool) -> None:
    """grpc-web is not gRPC."""
    head = admit_request(request((b"content-type", value), method=b"POST"), False, LIMITS)
    assert head.is_grpc is is_grpc
    assert head.fields == [(b"content-type", value)]


def test_traceparent_is_sent_on_unless_replaced() -> None:
    """A repeated one is none (W3C Trace Context section 3.2.1)."""
    head = admit_request(request((b"traceparent", b"00-a-b-01")), True, LIMITS)
    assert head.traceparent == b"00-a-b-01"
    assert (b"traceparent", b"00-a-b-01") in request_fields(head, [])
    fields = request_fields(head, [(b"traceparent", b"new")])
    assert [value for name, value in fields if name == b"traceparent"] == [b"new"]
    for times in (2, 3):
        assert admit_request(request(*[(b"traceparent", b"00-a-b-01")] * times), True, LIMITS).traceparent is None


# Responses


def failed(fields: Fields) -> str:
    with pytest.raises(UpstreamFailed) as caught:
        admit_response(fields, LIMITS)
    return caught.value.row


def test_an_ordinary_response_crosses_as_it_is() -> None:
    """Repeated fields stay repeated."""
    cookies: Fields = [(b"set-cookie", b"a=1"), (b"set-cookie", b"b=2")]
    head = admit_response([(b":status", b"200"), *cookies, (b"content-length", b"3")], LIMITS)
    assert (head.status, head.content_length) == (200, 3)
    assert response_fields(head, [(b"x", b"y")]) == [
        (b":status", b"200"),
        *cookies,
        (b"content-length", b"3"),
        (b"x", b"y"),
    ]


@pytest.mark.parametrize(
    "fields",
    [
        [],
        [(b"a", b"b")],
        [(b":status", b"099")],
        [(b":status", b"100")],
        [(b":status", b"101")],
        [(b":status", b"600")],
        [(b":status", b"0xC")],
        [(b":status", b"20")],
        [(b":status", b"2000")],
        [(b":status", b"+20")],
        [(b":status", b"200"), (b"transfer-encoding", b"chunked")],
        [(b":status", b"200"), (b"connection", b"close")],
        [(b":status", b"200"), (b"content-length", b"1"), (b"content-length", b"2")],
    ],
)
def test_b35_a_malformed_response_is_the_upstreams_fault(fields: Fields) -> None:
    """502 for that stream."""
    assert failed(fields) == "B35"


@pytest.mark.parametrize(
    ("extra", "row"),
    [
        ((b":path", b"/"), "B01"),
        ((b"x", b"a\r\nb"), "B11"),
        ((b"X", b"a"), "B10"),
        ((b"x", b"\x01"), "B13"),
        ((b"x", b" a"), "B14"),
        ((b"content-length", b"1, 1"), "B20"),
        ((b"x", b"a" * 20_000), "B39"),
    ],
)
def test_b35_a_response_with_a_malformed_field_names_its_row(extra: Field, row: str) -> None:
    """The same rules as for requests, another one at fault."""
    assert failed([(b":status", b"200"), extra]) == row


@pytest.mark.parametrize("name", [b"hauberk-decision-id", b"hauberk_decision_id", b"hauberk-decision_id"])
def test_an_app_cannot_make_up_the_id_of_a_decision(name: bytes) -> None:
    """In no spelling, no trailer and no interim answer, remembered or not; another sidecar's word crosses."""
    forged = (name, b"00c0ffee00c0ffee")
    head = Remembered([(b":status", b"403"), forged, (b"x-a", b"1")])
    for _ in range(2):
        assert admit_response(head, of_app=True).sent == [(b":status", b"403"), (b"x-a", b"1")]
    assert admit_response([(b":status", b"403"), forged]).fields == [forged]
    assert admit_informational([(b":status", b"103"), forged]) == [(b":status", b"103")]
    assert admit_trailers([forged, (b"x-a", b"1")]) == [(b"x-a", b"1")]


def test_a_204_has_no_content_length() -> None:
    """RFC 9110 section 8.6."""
    assert admit_response([(b":status", b"204"), (b"content-length", b"0")], LIMITS).fields == []


def test_interim_responses_cross_and_101_does_not() -> None:
    """There is no protocol to switch to."""
    early: Fields = [(b":status", b"103"), (b"link", b"</a.css>")]
    assert admit_informational(early, LIMITS) == early
    for status in (b"101", b"200", b"099"):
        with pytest.raises(UpstreamFailed):
            admit_informational([(b":status", status)], LIMITS)


# Trailers and bodies


@pytest.mark.parametrize(
    "name",
    [
        b"content-length",
        b"host",
        b"authorization",
        b"transfer-encoding",
        b"x-forwarded-for",
        b"x_forwarded_for",
        b"x-forwarded-proto",
        b"cookie",
        b"set-cookie",
        b"te",
        b"trailer",
        b"connection",
        b"traceparent",
    ],
)
def test_b37_what_has_no_place_in_trailers_is_dropped(name: bytes) -> None:
    """RFC 9110 section 6.5.1."""
    kept: Fields = [(b"grpc-status", b"0"), (b"grpc-message", b""), (b"x-checksum", b"abc")]
    assert admit_trailers([*kept, (name, b"5")]) == kept


def test_b37_pseudo_header_fields_in_trailers_are_refused() -> None:
    """And malformed fields are whose fault the caller says."""
    with pytest.raises(BadRequest) as caught:
        admit_trailers([(b"a", b"b"), (b":path", b"/")])
    assert caught.value.row == "B37"
    with pytest.raises(UpstreamFailed):
        admit_trailers([(b":status", b"200")], LIMITS, fault=UpstreamFailed)
    with pytest.raises(UpstreamFailed):
        admit_trailers([(b"a", b"\n")], LIMITS, fault=UpstreamFailed)
    with pytest.raises(HeadersTooLarge):
        admit_trailers([(b"a", b"b")] * 101, LIMITS)
    assert admit_trailers([]) == []


@pytest.mark.parametrize("bad", [(b"a", b"x\r\ny"), (b"a\n", b"x"), (b"a", b"\0")])
def test_b12_what_we_send_has_no_cr_lf_or_nul(bad: Field) -> None:
    """Whoever made the field."""
    with pytest.raises(ValueError, match="CR, LF or NUL"):
        check_outgoing([(b"ok", b"fine"), bad])
    check_outgoing([(b"ok", b"fine")])


def test_b16_a_body_is_as_long_as_announced() -> None:
    """RFC 9113 section 8.1.1."""
    head = admit_request(request((b"content-length", b"5"), method=b"POST"), False, LIMITS)
    body = BodyLength.of_request(head)
    body.take(3)
    with pytest.raises(BadRequest, match="shorter"):
        body.finish()
    body.take(2)
    body.finish()
    with pytest.raises(BadRequest, match="longer"):
        body.take(1)


def test_b36_head_204_and_304_have_no_body_whatever_they_announce() -> None:
    """RFC 9110 section 6.4.1."""
    for status, method in ((b"200", b"HEAD"), (b"304", b"GET"), (b"204", b"GET")):
        head = admit_response([(b":status", status), (b"content-length", b"5")], LIMITS)
        body = BodyLength.of_response(head, method)
        body.finish()
        with pytest.raises(UpstreamFailed):
            body.take(1)
    full = BodyLength.of_response(admit_response([(b":status", b"200"), (b"content-length", b"5")], LIMITS), b"GET")
    with pytest.raises(UpstreamFailed):
        full.finish()
    unknown = BodyLength.of_response(admit_response([(b":status", b"200")], LIMITS), b"GET")
    unknown.take(10**9)
    unknown.finish()


NAMES = st.sampled_from(
    [
        b":method",
        b":path",
        b":authority",
        b":scheme",
        b"host",
        b"te",
        b"cookie",
        b"content-length",
        b"a",
        b"A",
        b"x_y",
        b"",
    ]
) | st.binary(max_size=6)
VALUES = st.sampled_from([b"GET", b"/", b"http", b"a", b"5", b"trailers", b"a\nb", b" "]) | st.binary(max_size=8)


@given(st.lists(st.tuples(NAMES, VALUES), max_size=10), st.booleans(), st.booleans())
def test_any_fields_are_either_refused_or_safe_to_send(fields: Fields, whole: bool, end: bool) -> None:
    """Whatever is admitted can be serialised, and admitting it again changes nothing."""
    if whole:
        fields = request(*fields)
    try:
        head = admit_request(fields, end, LIMITS)
    except RequestError:
        return
    sent = request_fields(head, [])
    check_outgoing(sent)
    again = admit_request(sent, end, LIMITS)
    assert sorted(request_fields(again, [])) == sorted(sent)
