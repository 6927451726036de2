"""Trace context: passed on, or begun; and spans for the requests that are sampled.

Every request gets a `TraceContext`. One that is not sampled costs no more than reading or making the header: its
`traceparent` goes on as it came. One that is sampled gets a span id of this sidecar's own, which takes the place of
the parent id in the header sent on (W3C Trace Context level 1, section 3.4), and at its end becomes one OTLP span.

Spans are made by the OpenTelemetry SDK (imported only if they can go anywhere) and exported by its batch processor,
which runs on a thread of its own: the one thread in the sidecar, started only when an exporter is configured.
"""

from __future__ import annotations

import logging
import random
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple
from urllib.parse import unquote

import trio

from sidecar.telemetry import names

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import SpanProcessor
    from opentelemetry.trace import SpanContext

    from sidecar.config import Config

log = logging.getLogger(__name__)

FLAG_SAMPLED = 0x01
FLAG_RANDOM = 0x02
"""Trace Context level 2: the trace id was made at random. Passed on as it came."""
TRACEPARENT_OCTETS_MAX = 256
"""Version 00 has 55; a later version may add fields, but nobody needs more than this."""
CLOSE_TIMEOUT_S = 2.0

_TRACEPARENT = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-[ -~]*)?")
# Version 00, not sampled, ids that are not zero: it goes on as it is.
_UNSAMPLED = re.compile(rb"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f][02468ace]")
_LOW_64_BITS = 2**64 - 1
_TRACE_ID_ZERO = b"0" * 32
_SPAN_ID_ZERO = b"0" * 16

Attribute = str | int | float | bool


class TraceParent(NamedTuple):
    """A valid `traceparent` as it came."""

    trace_id: str
    """32 lower-case hex digits, not all zero."""
    parent_id: str
    """16 lower-case hex digits, not all zero."""
    flags: int


class TraceContext:
    """One request's place in its trace. Treat as frozen. What only a span or a log line asks for is read when asked."""

    __slots__ = ("_parent_id", "begun", "header", "sampled")

    def __init__(self, header: bytes, *, sampled: bool, begun: bool, parent_id: str | None) -> None:
        """`parent_id`: None if it is the one in the header."""
        self.header = header
        """The `traceparent` to send on. Valid."""
        self.sampled = sampled
        self.begun = begun
        """The trace begins here, so a `tracestate` that came must not be sent on (section 3.3.1)."""
        self._parent_id = parent_id

    def __repr__(self) -> str:
        return f"<TraceContext {self.header.decode()}>"

    @property
    def trace_id(self) -> str:
        return self.header[3:35].decode()

    @property
    def parent_id(self) -> str:
        """Of whoever called; "" if the trace begins here."""
        return self.header[36:52].decode() if self._parent_id is None else self._parent_id

    @property
    def span_id(self) -> str:
        """This sidecar's own; "" if the request is not sampled."""
        return self.header[36:52].decode() if self.sampled else ""


def parse(traceparent: bytes) -> TraceParent | None:
    """Read a `traceparent` header value, or None if it is not valid and must be ignored.

    W3C Trace Context level 1, section 3.2: version ff is invalid, version 00 has exactly four parts, a later version
    is read as far as version 00 goes and must continue with a dash, if at all. Hex is lower case, ids are not zero.
    """
    if len(traceparent) > TRACEPARENT_OCTETS_MAX:
        return None
    match = _TRACEPARENT.fullmatch(traceparent)
    if match is None:
        return None
    version, trace_id, parent_id, flags, rest = match.groups()
    if version == b"ff" or (version == b"00" and rest is not None):
        return None
    if trace_id == _TRACE_ID_ZERO or parent_id == _SPAN_ID_ZERO:
        return None
    return TraceParent(trace_id.decode(), parent_id.decode(), int(flags, 16))


def begin_or_continue(
    traceparent: bytes | None, rng: random.Random, ratio: float, *, heeds_parent: bool = True
) -> TraceContext:
    """The context of one request from the header it came with (None or invalid: a trace begins here).

    `ratio` of the traces that begin here are sampled; a trace that came keeps the decision it came with, unless
    `heeds_parent` is False: then `ratio` decides for it too (from the trace id, so that all sidecars agree).
    """
    if heeds_parent and traceparent is not None and _UNSAMPLED.fullmatch(traceparent):  # the usual case
        return TraceContext(traceparent, sampled=False, begun=False, parent_id=None)
    parent = parse(traceparent) if traceparent else None
    if parent is None or traceparent is None:
        ids = rng.getrandbits(192)
        trace_id, span_id = ids >> 64 or 1, ids & _LOW_64_BITS or 1
        sampled = _is_in_ratio(trace_id, ratio)
        header = b"00-%032x-%016x-%02x" % (trace_id, span_id, sampled)
        return TraceContext(header, sampled=sampled, begun=True, parent_id="")
    was_sampled = bool(parent.flags & FLAG_SAMPLED)
    sampled = was_sampled if heeds_parent else _is_in_ratio(int(parent.trace_id, 16), ratio)
    if not sampled:
        return TraceContext(traceparent, sampled=False, begun=False, parent_id=parent.parent_id)
    flags = FLAG_SAMPLED | (parent.flags & FLAG_RANDOM)
    header = b"00-%s-%016x-%02x" % (parent.trace_id.encode(), rng.getrandbits(64) or 1, flags)
    return TraceContext(header, sampled=True, begun=False, parent_id=parent.parent_id)


def _is_in_ratio(trace_id: int, ratio: float) -> bool:
    """OpenTelemetry's TraceIdRatioBased: the low 64 bits of the id against the ratio of 2^64."""
    return (trace_id & _LOW_64_BITS) < round(ratio * 2**64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampler:
    """Which traces are sampled (OTEL_TRACES_SAMPLER)."""

    ratio: float
    heeds_parent: bool = True


class Tracer:
    """Begins contexts and turns finished, sampled exchanges into spans."""

    def __init__(self, sampler: Sampler, processor: SpanProcessor | None, resource: Resource | None) -> None:
        """Use `from_config`. Without a processor no spans are made, but context is still passed on."""
        self._sampler = sampler
        self._processor = processor
        self._resource = resource

    def __repr__(self) -> str:
        return f"<Tracer {self._sampler} exports={self._processor is not None}>"

    @classmethod
    def from_config(cls, config: Config, environ: Mapping[str, str], *, instance: str = "") -> Tracer:
        """As configured; the OTEL_ environment variables go before the file, as every OpenTelemetry program has it.

        `instance` becomes service.instance.id. Headers, timeout, compression and certificates of the exporter are
        read from the process's own environment by the exporter itself.
        """
        sampler = sampler_of(environ, config.tracing.sample_ratio)
        endpoint = endpoint_of(environ, config.tracing.otlp_endpoint)
        if not endpoint:
            return cls(sampler, None, None)
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        own = {
            names.RESOURCE_SERVICE_NAME: config.service,
            names.RESOURCE_SERVICE_NAMESPACE: config.namespace,
        }
        if instance:
            own[names.RESOURCE_SERVICE_INSTANCE] = instance
        resource = Resource.create({**own, **resource_attributes_of(environ)})
        return cls(sampler, BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint)), resource)

    @property
    def is_exporting(self) -> bool:
        """Whether `span` does anything: ask before putting attributes together."""
        return self._processor is not None

    def begin(self, traceparent: bytes | None, rng: random.Random) -> TraceContext:
        """`begin_or_continue` with this sidecar's sampler."""
        return begin_or_continue(traceparent, rng, self._sampler.ratio, heeds_parent=self._sampler.heeds_parent)

    def span(
        self,
        context: TraceContext,
        *,
        name: str,
        kind: Literal["server", "client"],
        start: float,
        end: float,
        attributes: Mapping[str, Attribute],
        error: str = "",
    ) -> None:
        """Hand one finished span to the exporter's queue. Never waits; does nothing for a context not sampled.

        `start` and `end` in Unix seconds; `name` of few values ("GET", not a path); attributes named in `names`;
        `error` is the constant reason of a failure, "" if there was none.
        """
        if self._processor is None or not context.sampled:
            return
        from opentelemetry.sdk.trace import ReadableSpan
        from opentelemetry.sdk.util.instrumentation import InstrumentationScope
        from opentelemetry.trace import SpanKind
        from opentelemetry.trace.status import Status, StatusCode

        given = {**attributes, names.ATTR_ERROR_TYPE: error} if error else dict(attributes)
        self._processor.on_end(
            ReadableSpan(
                name=name,
                context=_span_context(context.trace_id, context.span_id, is_remote=False),
                parent=_span_context(context.trace_id, context.parent_id, is_remote=True)
                if context.parent_id
                else None,
                resource=self._resource,
                attributes=given,
                kind=SpanKind.SERVER if kind == "server" else SpanKind.CLIENT,
                status=Status(StatusCode.ERROR) if error else Status(StatusCode.UNSET),
                start_time=_nanoseconds(start),
                end_time=_nanoseconds(end),
                instrumentation_scope=InstrumentationScope(names.TRACER_NAME),
            )
        )

    async def aclose(self, timeout_s: float = CLOSE_TIMEOUT_S) -> None:
        """Send what is queued and stop the exporter's thread; give up after `timeout_s`. Call it last of all.

        The SDK's shutdown may block for half a minute when the collector is away and takes no bound of its own, so it
        waits on one of trio's (daemon) threads, which is left behind if it takes too long.
        """
        processor, self._processor = self._processor, None
        if processor is not None:
            with trio.move_on_after(timeout_s, shield=True):
                await trio.to_thread.run_sync(processor.shutdown, abandon_on_cancel=True)


def sampler_of(environ: Mapping[str, str], ratio: float) -> Sampler:
    """OTEL_TRACES_SAMPLER and _ARG (OpenTelemetry "SDK environment variables"), else the configured `ratio`.

    A value that cannot be used is reported and ignored, as that specification wants it.
    """
    argument = environ.get("OTEL_TRACES_SAMPLER_ARG", "")
    if argument:
        try:
            given = float(argument)
        except ValueError:
            given = -1.0
        if 0.0 <= given <= 1.0:
            ratio = given
        else:
            log.warning("OTEL_TRACES_SAMPLER_ARG is not a number from 0 to 1; ignored")
    name = environ.get("OTEL_TRACES_SAMPLER", "")
    if not name:
        return Sampler(ratio=ratio)
    known = {
        "always_on": Sampler(ratio=1.0, heeds_parent=False),
        "always_off": Sampler(ratio=0.0, heeds_parent=False),
        "traceidratio": Sampler(ratio=ratio, heeds_parent=False),
        "parentbased_always_on": Sampler(ratio=1.0),
        "parentbased_always_off": Sampler(ratio=0.0),
        "parentbased_traceidratio": Sampler(ratio=ratio),
    }
    if name not in known:
        log.warning("OTEL_TRACES_SAMPLER has an unknown value; ignored")
    return known.get(name, Sampler(ratio=ratio))


def endpoint_of(environ: Mapping[str, str], configured: str) -> str:
    """The URL spans go to, "" for none.

    OTLP exporter specification: OTEL_EXPORTER_OTLP_TRACES_ENDPOINT is used as it is, OTEL_EXPORTER_OTLP_ENDPOINT and
    the configuration's `otlp_endpoint` get /v1/traces (the latter unless it already ends so).
    """
    if environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return ""
    if environ.get("OTEL_TRACES_EXPORTER", "") == "none":
        return ""
    traces = environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "")
    if traces:
        return traces
    base = environ.get("OTEL_EXPORTER_OTLP_ENDPOINT", "")
    if base:
        return f"{base.rstrip('/')}/v1/traces"
    if configured and not configured.endswith("/v1/traces"):
        return f"{configured.rstrip('/')}/v1/traces"
    return configured


def resource_attributes_of(environ: Mapping[str, str]) -> dict[str, str]:
    """OTEL_RESOURCE_ATTRIBUTES ("key=value,key=value", percent-encoded) and OTEL_SERVICE_NAME, which goes before it."""
    attributes: dict[str, str] = {}
    for pair in environ.get("OTEL_RESOURCE_ATTRIBUTES", "").split(","):
        key, separator, value = pair.partition("=")
        if separator and key.strip():
            attributes[key.strip()] = unquote(value.strip())
    service_name = environ.get("OTEL_SERVICE_NAME", "")
    if service_name:
        attributes[names.RESOURCE_SERVICE_NAME] = service_name
    return attributes


def _span_context(trace_id: str, span_id: str, *, is_remote: bool) -> SpanContext:
    from opentelemetry.trace import SpanContext, TraceFlags

    return SpanContext(int(trace_id, 16), int(span_id, 16), is_remote, TraceFlags(FLAG_SAMPLED))


def _nanoseconds(seconds: float) -> int:
    """Whole microseconds: a float of this century holds no more."""
    return round(seconds * 1e6) * 1_000
