"""Trace context is read strictly, passed on or begun, and sampled requests reach a real OTLP receiver."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from sidecar.config import Config, Tracing
from sidecar.telemetry import names
from sidecar.telemetry.trace import (
    Sampler,
    Tracer,
    begin_or_continue,
    endpoint_of,
    parse,
    resource_attributes_of,
    sampler_of,
)

TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT_ID = "00f067aa0ba902b7"
SAMPLED = f"00-{TRACE_ID}-{PARENT_ID}-01".encode()
UNSAMPLED = f"00-{TRACE_ID}-{PARENT_ID}-00".encode()

ratios = st.floats(min_value=0, max_value=1)
seeds = st.integers(0, 2**64)


def rng(seed: int = 1) -> random.Random:
    return random.Random(seed)


def test_a_valid_traceparent_is_read() -> None:
    """W3C Trace Context section 3.2, its own example."""
    parent = parse(SAMPLED)
    assert parent is not None
    assert (parent.trace_id, parent.parent_id, parent.flags) == (TRACE_ID, PARENT_ID, 1)


@pytest.mark.parametrize(
    "traceparent",
    [
        b"",
        SAMPLED[:-1],
        SAMPLED + b"0",
        SAMPLED + b"-",
        SAMPLED + b"-extra",
        SAMPLED.upper(),
        SAMPLED.replace(b"-", b"_"),
        b" " + SAMPLED,
        SAMPLED + b"\n",
        b"ff" + SAMPLED[2:],
        b"0g" + SAMPLED[2:],
        b"01" + SAMPLED[2:] + b"x",
        b"01" + SAMPLED[2:] + b"-\r\nx: y",
        b"01" + SAMPLED[2:] + b"-" + b"a" * 300,
        f"00-{'0' * 32}-{PARENT_ID}-01".encode(),
        f"00-{TRACE_ID}-{'0' * 16}-01".encode(),
        f"00-{TRACE_ID}-{PARENT_ID}-0G".encode(),
    ],
)
def test_an_invalid_traceparent_is_ignored_and_a_trace_begins(traceparent: bytes) -> None:
    """Section 3.2.2: upper case, zero ids, wrong lengths, version ff: as if there were none."""
    assert parse(traceparent) is None
    context = begin_or_continue(traceparent, rng(), 0.0)
    assert context.begun
    assert TRACE_ID not in context.trace_id


@pytest.mark.parametrize("rest", [b"", b"-", b"-what-may-come"])
def test_a_later_version_is_read_as_far_as_version_00_goes(rest: bytes) -> None:
    """Section 3.2.4: versions to come may only add to the end; ours goes on as version 00."""
    context = begin_or_continue(b"cc" + SAMPLED[2:] + rest, rng(), 0.0)
    assert context.trace_id == TRACE_ID
    assert context.header == f"00-{TRACE_ID}-{context.span_id}-01".encode()


@given(st.binary(max_size=80))
def test_no_octets_make_the_parser_fail(data: bytes) -> None:
    """Whatever a caller sends, there is a context with a valid header."""
    context = begin_or_continue(data, rng(), 0.5)
    assert parse(context.header) is not None


@given(seeds, ratios)
def test_a_sampled_trace_goes_on_with_our_span_as_parent(seed: int, ratio: float) -> None:
    """Section 3.4: trace id kept, parent id replaced, sampled flag kept whatever our ratio is."""
    context = begin_or_continue(SAMPLED, rng(seed), ratio)
    assert (context.trace_id, context.parent_id, context.sampled, context.begun) == (
        TRACE_ID,
        PARENT_ID,
        True,
        False,
    )
    assert context.header == f"00-{TRACE_ID}-{context.span_id}-01".encode()
    assert context.span_id != PARENT_ID


def test_the_random_flag_is_kept_and_unknown_flags_are_not() -> None:
    """Level 2 section 3.2.2.5.2; flags nobody knows must be zero in what we make."""
    assert begin_or_continue(SAMPLED[:-2] + b"03", rng(), 0.0).header.endswith(b"-03")
    assert begin_or_continue(SAMPLED[:-2] + b"ff", rng(), 0.0).header.endswith(b"-03")


@given(seeds, ratios)
def test_an_unsampled_trace_goes_on_as_it_came(seed: int, ratio: float) -> None:
    """Nothing is made, nothing is changed: that is what it may cost."""
    context = begin_or_continue(UNSAMPLED, rng(seed), ratio)
    assert context.header is UNSAMPLED
    assert (context.sampled, context.span_id) == (False, "")


@given(seeds, ratios)
def test_a_trace_that_begins_here_is_valid_and_says_its_decision(seed: int, ratio: float) -> None:
    """Ids are not zero, and the next sidecar heeds the flag."""
    context = begin_or_continue(None, rng(seed), ratio)
    parent = parse(context.header)
    assert parent is not None
    assert (parent.trace_id, bool(parent.flags)) == (context.trace_id, context.sampled)
    assert context.begun
    assert context.parent_id == ""
    assert context.span_id == (parent.parent_id if context.sampled else "")


def test_the_ratio_decides_how_many_are_sampled() -> None:
    """All at 1, none at 0, about a tenth at 0.1."""
    source = rng()
    assert all(begin_or_continue(None, source, 1.0).sampled for _ in range(200))
    assert not any(begin_or_continue(None, source, 0.0).sampled for _ in range(200))
    assert 50 < sum(begin_or_continue(None, source, 0.1).sampled for _ in range(1_000)) < 150


@given(seeds, ratios)
def test_sidecars_that_do_not_heed_the_parent_agree_on_a_trace(seed: int, ratio: float) -> None:
    """The decision comes from the trace id (TraceIdRatioBased), not from a coin of each."""
    first = begin_or_continue(None, rng(seed), ratio)
    again = begin_or_continue(first.header, rng(seed + 1), ratio, heeds_parent=False)
    assert again.sampled == first.sampled


@pytest.mark.parametrize(
    ("sampler", "argument", "expected"),
    [
        ("", "", Sampler(ratio=0.25)),
        ("", "0.5", Sampler(ratio=0.5)),
        ("", "2", Sampler(ratio=0.25)),
        ("", "nan", Sampler(ratio=0.25)),
        ("", "x", Sampler(ratio=0.25)),
        ("always_on", "", Sampler(ratio=1.0, heeds_parent=False)),
        ("always_off", "", Sampler(ratio=0.0, heeds_parent=False)),
        ("traceidratio", "0.5", Sampler(ratio=0.5, heeds_parent=False)),
        ("parentbased_always_on", "", Sampler(ratio=1.0)),
        ("parentbased_always_off", "0.5", Sampler(ratio=0.0)),
        ("parentbased_traceidratio", "0.5", Sampler(ratio=0.5)),
        ("jaeger_remote", "", Sampler(ratio=0.25)),
    ],
)
def test_the_sampler_of_the_environment_goes_before_the_file(sampler: str, argument: str, expected: Sampler) -> None:
    """And what cannot be used is ignored, as OpenTelemetry has it."""
    environ = {"OTEL_TRACES_SAMPLER": sampler, "OTEL_TRACES_SAMPLER_ARG": argument}
    assert sampler_of(environ, 0.25) == expected


@pytest.mark.parametrize(
    ("environ", "configured", "expected"),
    [
        ({}, "", ""),
        ({}, "http://c:4318", "http://c:4318/v1/traces"),
        ({}, "http://c:4318/", "http://c:4318/v1/traces"),
        ({}, "http://c:4318/v1/traces", "http://c:4318/v1/traces"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://e:1/"}, "http://c:2", "http://e:1/v1/traces"),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://t:1/x"}, "http://c:2", "http://t:1/x"),
        ({"OTEL_SDK_DISABLED": "TRUE"}, "http://c:2", ""),
        ({"OTEL_TRACES_EXPORTER": "none"}, "http://c:2", ""),
    ],
)
def test_the_collector_is_found(environ: dict[str, str], configured: str, expected: str) -> None:
    """OTLP exporter specification: what gets /v1/traces and what does not."""
    assert endpoint_of(environ, configured) == expected


def test_resource_attributes_are_read_and_the_service_name_goes_first() -> None:
    """Percent-encoded values; a pair without a key or an equals sign is passed over."""
    environ = {
        "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment=prod%20eu, service.name=x ,broken,=y",
        "OTEL_SERVICE_NAME": "orders-v2",
    }
    assert resource_attributes_of(environ) == {
        "deployment.environment": "prod eu",
        "service.name": "orders-v2",
    }


class Receiver(HTTPServer):
    """An OTLP/HTTP collector that keeps what it gets."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.requests: list[ExportTraceServiceRequest] = []
        self.paths: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        assert isinstance(self.server, Receiver)
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.paths.append(self.path)
        self.server.requests.append(ExportTraceServiceRequest.FromString(body))
        self.send_response(200)
        self.send_header("content-type", "application/x-protobuf")
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def receiver() -> Iterator[Receiver]:
    server = Receiver()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_sampled_requests_become_spans_at_the_collector() -> None:
    """A real OTLP receiver parses the protobuf: ids, parent, times, kind, attributes, status and resource are ours."""
    with receiver() as server:
        config = Config(service="orders", namespace="shop", tracing=Tracing(sample_ratio=0.0, otlp_endpoint=server.url))
        environ = {"OTEL_RESOURCE_ATTRIBUTES": "deployment.environment=test"}
        tracer = Tracer.from_config(config, environ, instance="abc")
        assert tracer.is_exporting
        sampled = tracer.begin(SAMPLED, rng())
        unsampled = tracer.begin(None, rng())
        assert not unsampled.sampled
        for context in (sampled, unsampled):
            tracer.span(
                context,
                name="GET",
                kind="server",
                start=1_777_863_721.25,
                end=1_777_863_721.5,
                attributes={
                    names.ATTR_METHOD: "GET",
                    names.ATTR_STATUS: 403,
                    names.ATTR_RULE: "shop/orders#0",
                },
                error="denied",
            )
        trio.run(tracer.aclose)
        assert repr(tracer).endswith("exports=False>")
    assert server.paths == ["/v1/traces"]
    resource_spans = server.requests[0].resource_spans
    assert len(resource_spans) == 1
    resource = {item.key: item.value.string_value for item in resource_spans[0].resource.attributes}
    assert resource["service.name"] == "orders"
    assert resource["service.namespace"] == "shop"
    assert resource["service.instance.id"] == "abc"
    assert resource["deployment.environment"] == "test"
    (scope,) = resource_spans[0].scope_spans
    assert scope.scope.name == names.TRACER_NAME
    (span,) = scope.spans
    assert (span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex()) == (
        TRACE_ID,
        sampled.span_id,
        PARENT_ID,
    )
    assert (span.name, span.kind) == ("GET", Span.SPAN_KIND_SERVER)
    assert span.end_time_unix_nano - span.start_time_unix_nano == 250_000_000
    assert span.status.code == Status.STATUS_CODE_ERROR
    attributes = {item.key: item.value for item in span.attributes}
    assert attributes[names.ATTR_STATUS].int_value == 403
    assert attributes[names.ATTR_RULE].string_value == "shop/orders#0"
    assert attributes[names.ATTR_ERROR_TYPE].string_value == "denied"


def test_a_client_span_that_begins_a_trace_has_no_parent_and_no_error() -> None:
    """The outbound side of an app that does not trace."""
    with receiver() as server:
        tracer = Tracer.from_config(
            Config(service="web"),
            {"OTEL_EXPORTER_OTLP_ENDPOINT": server.url, "OTEL_TRACES_SAMPLER": "always_on"},
        )
        context = tracer.begin(None, rng())
        tracer.span(context, name="POST", kind="client", start=1.0, end=2.0, attributes={})
        trio.run(tracer.aclose)
    (span,) = server.requests[0].resource_spans[0].scope_spans[0].spans
    assert (span.kind, span.parent_span_id, span.status.code) == (
        Span.SPAN_KIND_CLIENT,
        b"",
        Status.STATUS_CODE_UNSET,
    )


def test_without_a_collector_nothing_is_exported_and_context_still_goes_on() -> None:
    """No endpoint: no exporter, no thread; the trace itself is not broken."""
    before = threading.active_count()
    tracer = Tracer.from_config(Config(service="web"), {"OTEL_SDK_DISABLED": "true"})
    assert not tracer.is_exporting
    assert threading.active_count() == before
    context = tracer.begin(SAMPLED, rng())
    tracer.span(context, name="GET", kind="server", start=1.0, end=2.0, attributes={})
    assert context.trace_id == TRACE_ID
    trio.run(tracer.aclose)
