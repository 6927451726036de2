"""One trace across an app, two sidecars and another app; sampled spans reach an OTLP collector, linked."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.e2e.clients import ask
from tests.e2e.harness import ALLOW_ALL, WEB_APP, Inbound, Member, Mesh, eventually

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
CLIENT, SERVER = Span.SPAN_KIND_CLIENT, Span.SPAN_KIND_SERVER


class Collector(http.server.ThreadingHTTPServer):
    """Takes what OTLP over HTTP brings."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Export)
        self.spans: list[tuple[str, Span]] = []
        """(service.name, span)"""
        self._thread = threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def of_trace(self, trace_id: str) -> dict[str, Span]:
        return {service: span for service, span in self.spans if span.trace_id.hex() == trace_id}

    def __exit__(self, *exc: object) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()


class _Export(http.server.BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        request = ExportTraceServiceRequest.FromString(self.rfile.read(int(self.headers["content-length"])))
        for resource in request.resource_spans:
            names = {one.key: one.value.string_value for one in resource.resource.attributes}
            for scope in resource.scope_spans:
                self.server.spans += [(names["service.name"], span) for span in scope.spans]
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the name is the standard library's
        """Quiet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shop:
    collector: Collector
    web: Member


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    with Collector() as collector, Mesh(tmp_path_factory.mktemp("trace")) as mesh:
        mesh.start_control_plane()
        mesh.apply(ALLOW_ALL)
        environ = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{collector.server_address[1]}",
            "OTEL_BSP_SCHEDULE_DELAY": "50",
            "OTEL_TRACES_SAMPLER": "parentbased_always_off",
        }
        orders = mesh.run("orders", WEB_APP, inbound=[Inbound(8080)], environ=environ)
        web = mesh.sidecar("web", calls={"orders": 8080}, environ=environ)
        mesh.wait_ready(orders, web)
        mesh.wait_reached(web, "orders")
        yield Shop(collector=collector, web=web)


def seen_by_app(shop: Shop, **headers: str) -> dict[str, str]:
    answer = ask(shop.web.ports["orders"], "/echo", headers=headers)
    return dict(json.loads(answer.body)["headers"])


def test_a_sampled_trace_goes_through_with_a_span_of_each_sidecar(shop: Shop) -> None:
    """caller -> web (client) -> orders (server) -> app: each names the one before as its parent."""
    got = seen_by_app(shop, traceparent=f"00-{TRACE}-{PARENT}-01", tracestate="vendor=1")
    version, trace_id, parent_id, flags = got["traceparent"].split("-")
    assert (version, trace_id, flags, got["tracestate"]) == ("00", TRACE, "01", "vendor=1")
    eventually(lambda: len(shop.collector.of_trace(TRACE)) == 2, 10, "both spans were exported")
    spans = shop.collector.of_trace(TRACE)
    web, orders = spans["web"], spans["orders"]
    assert (web.kind, orders.kind) == (CLIENT, SERVER)
    assert web.parent_span_id.hex() == PARENT
    assert orders.parent_span_id == web.span_id
    assert parent_id == orders.span_id.hex()
    said = {one.key: one.value for one in orders.attributes}
    assert said["hauberk.decision"].string_value == "allow"
    assert said["hauberk.rule"].string_value.endswith("#0")
    assert said["hauberk.snapshot.version"].int_value > 0
    assert (
        web.start_time_unix_nano <= orders.start_time_unix_nano <= orders.end_time_unix_nano <= web.end_time_unix_nano
    )


def test_a_trace_that_is_not_sampled_goes_through_untouched(shop: Shop) -> None:
    """And nothing of it is exported: the spans of a later, sampled one come, its own do not."""
    quiet = TRACE.replace("0af7", "1111")
    assert seen_by_app(shop, traceparent=f"00-{quiet}-{PARENT}-00")["traceparent"] == f"00-{quiet}-{PARENT}-00"
    loud = TRACE.replace("0af7", "2222")
    seen_by_app(shop, traceparent=f"00-{loud}-{PARENT}-01")
    eventually(lambda: len(shop.collector.of_trace(loud)) == 2, 10, "the later trace was exported")
    assert shop.collector.of_trace(quiet) == {}


def test_a_request_without_a_trace_begins_one(shop: Shop) -> None:
    """One id for both sidecars and the app; a tracestate without its trace goes no further."""
    got = seen_by_app(shop, tracestate="vendor=1", traceparent="00-zz-1-01")
    assert len(got["traceparent"]) == 55
    assert "tracestate" not in got
    assert got["traceparent"].endswith("-00")  # parentbased_always_off


def test_a_collector_that_is_away_is_nobody_s_trouble(tmp_path: Path) -> None:
    """Requests go on, and the sidecar still stops in time."""
    with Mesh(tmp_path) as mesh:
        mesh.start_control_plane()
        mesh.apply(ALLOW_ALL)
        away = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{mesh.free_port()}",
            "OTEL_TRACES_SAMPLER": "always_on",
        }
        orders = mesh.run("orders", WEB_APP, inbound=[Inbound(8080)], environ=away)
        web = mesh.sidecar("web", calls={"orders": 8080}, environ=away)
        mesh.wait_ready(orders, web)
        mesh.wait_reached(web, "orders")
        assert [ask(web.ports["orders"]).status for _ in range(50)] == [200] * 50
        assert web.process.stop(8) == 0
