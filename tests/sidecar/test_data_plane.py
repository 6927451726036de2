"""Two sidecars' data planes between real clients and real apps, over loopback TLS."""

from __future__ import annotations

import hashlib
import json
import os
import re
import socket
import ssl
from functools import partial

import h2.connection
import h2.events
import h11
import httpx
import pytest
import trio
import trio.testing

from certs.spiffe_id import SpiffeId
from sidecar.aging import SWEEP_S
from sidecar.config import Limits, OutboundPort, Timeouts
from sidecar.http.session import ErrorCode
from sidecar.net.listener import Gate, bind, bound_address, serve
from sidecar.net.tls import handshake, server_context
from sidecar.rules.snapshot import Protocol
from tests.sidecar.h2c_app import H2App, H2Request, serving_h2c
from tests.sidecar.mesh import ORDERS, TD, WEB, Mesh
from tests.sidecar.net.support import settled
from tests.sidecar.support import (
    ANY,
    ORDERS_NAME,
    PORT,
    App,
    AppRequest,
    Pair,
    Side,
    allow,
    calling,
    closed_port,
    deny,
    serving,
    two_sides,
)
from tests.trio_support import trio_test

BILLING = SpiffeId.for_workload(TD, "shop", "billing")
TWENTY_MB = 20 * 1_000_000


async def fetch(
    pair: Pair, path: str = "/", *, method: str = "GET", name: str = ORDERS_NAME, **kwargs: object
) -> httpx.Response:
    """A real client, with the sidecar as its proxy."""

    def call() -> httpx.Response:
        with httpx.Client(proxy=pair.proxy, trust_env=False, timeout=20) as client:
            return client.request(method, pair.url(path, name), **kwargs)  # type: ignore[arg-type]

    return await trio.to_thread.run_sync(call)


async def curl(*args: str, data: bytes = b"") -> str:
    """What curl says; it must succeed."""
    command = ["curl", "--silent", "--show-error", "--max-time", "20", *args]
    env = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    done = await trio.run_process(command, stdin=data, capture_stdout=True, capture_stderr=True, env=env)
    return done.stdout.decode()


# Allowed and denied


@trio_test
async def test_an_allowed_call_reaches_the_app_and_its_answer_the_caller() -> None:
    """httpx -> web's sidecar -> mTLS -> orders' sidecar -> app; both ends tell of it once."""
    async with serving(App()) as app, two_sides(app) as pair:
        answer = await fetch(pair, "/a?q=1", method="POST", content=b"hello")
        assert (answer.status_code, answer.content) == (200, b"hello")
        outbound, inbound = await pair.web.log_lines(1), await pair.orders.log_lines(1)
        assert outbound[0]["destination"] == inbound[0]["destination"] == str(ORDERS)
        assert outbound[0]["source"] == inbound[0]["source"] == str(WEB)
        assert inbound[0]["rule"] == "shop/allow#0"
        assert inbound[0]["path"] == "/a"
        assert inbound[0]["snapshot"] == 1
        assert (inbound[0]["bytes_received"], inbound[0]["bytes_sent"]) == (5, 5)
        assert len(pair.web.records) == len(pair.orders.records) == 1


@trio_test
@pytest.mark.parametrize("path", ["/secret/plans", "/secret/a;b", "/x/../secret/plans"])
async def test_a_denied_call_is_told_why_to_ask_and_nothing_more(path: str) -> None:
    """403 problem+json with the decision id of the log line; the app never hears of it."""
    app = App()
    policies = (allow(WEB), deny("/secret/*"))
    async with serving(app) as address, two_sides(address, policies=policies) as pair:
        output = await curl("--path-as-is", "-D", "-", "--proxy", pair.proxy, pair.url(path))
        head, _, body = output.partition("\r\n\r\n")
        assert head.startswith("HTTP/1.1 403")
        decision_id = re.search(r"hauberk-decision-id: ([0-9a-f]{16})", head)
        assert decision_id is not None
        problem = json.loads(body)
        assert problem == {
            "type": "about:blank",
            "title": "Access denied by policy.",
            "status": 403,
            "decision_id": decision_id[1],
        }
        (line,) = await pair.orders.log_lines(1)
        assert (line["decision"], line["rule"], line["decision_id"]) == ("deny", "shop/deny#0", decision_id[1])
        assert "secret" not in body
        assert app.requests == []


@trio_test
async def test_an_app_cannot_answer_with_the_id_of_a_decision() -> None:
    """The id a caller is told is its sidecar's peer's: the app's own word for it does not cross."""

    class Forger(App):
        async def serve_one(self, request: AppRequest) -> None:
            await request.body()
            fields = [(b"hauberk-decision-id", b"00c0ffee00c0ffee"), (b"x-app", b"1")]
            await request.answer(b"no", status=403, fields=fields)

    async with serving(Forger()) as app, two_sides(app) as pair:
        answer = await fetch(pair)
        assert (answer.status_code, answer.content, answer.headers["x-app"]) == (403, b"no", "1")
        assert "hauberk-decision-id" not in answer.headers


@trio_test
async def test_who_is_not_allowed_is_denied_by_default() -> None:
    """No policy means no."""
    async with serving(App()) as app, two_sides(app, policies=()) as pair:
        assert (await fetch(pair)).status_code == 403
    async with serving(App()) as app, two_sides(app, policies=(allow(BILLING),)) as pair:
        assert (await fetch(pair)).status_code == 403


@trio_test
async def test_a_denied_grpc_call_gets_permission_denied() -> None:
    """Trailers-only: HTTP status 200, grpc-status 7, also through HTTP/1.1-free h2c.

    Without a body: some curls take the RST_STREAM(NO_ERROR) that says "no more, please" (RFC 9113 section 8.1) for a
    failure if they still have something to send."""
    async with serving_h2c(H2App()) as app, two_sides(app, protocol=Protocol.HTTP2, policies=()) as pair:
        output = await curl(
            "-D", "-", "--http2-prior-knowledge", "-X", "POST", "-H", "content-type: application/grpc",
            "-H", "te: trailers", "-H", f"host: {ORDERS_NAME}:{PORT}", f"http://{pair.web.app_address}/p.S/M",
        )  # fmt: skip
        assert output.startswith("HTTP/2 200")
        assert "grpc-status: 7\r\n" in output
        assert "grpc-message: Access denied by policy. (decision " in output
        (line,) = await pair.orders.log_lines(1)
        assert (line["status"], line["grpc_status"]) == (403, 7)


@trio_test
async def test_an_allowed_grpc_call_streams_with_its_trailers() -> None:
    """curl over h2c, an app on h2c: head, body, trailers."""
    async with serving_h2c(H2App()) as app, two_sides(app, protocol=Protocol.HTTP2) as pair:
        output = await curl(
            "-D", "-", "--http2-prior-knowledge", "-H", "content-type: application/grpc", "-H", "te: trailers",
            "-H", f"host: {ORDERS_NAME}:{PORT}", "--data-binary", "@-", f"http://{pair.web.app_address}/p.S/M",
            data=b"\0\0\0\0\3abc",
        )  # fmt: skip
        assert output.startswith("HTTP/2 200")
        assert "\0\0\0\0\3abc" in output
        assert "grpc-status: 0\r\n" in output
        assert pair.orders.records[0][0].grpc_status == 0


@trio_test
async def test_head_no_content_and_not_modified_have_no_body_and_the_connection_lives() -> None:
    """One connection of the caller and one to the app serve all."""

    class Bodiless(App):
        async def serve_one(self, request: AppRequest) -> None:
            if request.method == b"HEAD":
                await request.head(200, [(b"content-length", b"999")])
            else:
                await request.head(int(request.target[1:]))
            await request.end()

    app = Bodiless()
    async with serving(app) as address, two_sides(address) as pair:
        with httpx.Client(proxy=pair.proxy, trust_env=False) as client:

            def calls() -> list[tuple[int, str | None, bytes]]:
                asked = [("HEAD", "/"), ("GET", "/204"), ("GET", "/304"), ("HEAD", "/")]
                answers = [client.request(method, pair.url(path)) for method, path in asked]
                return [(a.status_code, a.headers.get("content-length"), a.content) for a in answers]

            found = await trio.to_thread.run_sync(calls)
        assert found == [(200, "999", b""), (204, None, b""), (304, None, b""), (200, "999", b"")]
        assert app.connections == 1


# Who may be reached


@trio_test
async def test_a_service_nobody_ever_joined_as_is_not_found() -> None:
    """404, and the answer names nothing internal."""
    async with serving(App()) as app, two_sides(app) as pair:
        pair.web.apply(services={"nobody.shop": None})
        answer = await fetch(pair, name="nobody.shop")
        assert answer.status_code == 404
        assert answer.json()["title"] == "There is no such service or port in the mesh."
        assert (await fetch(pair, name="www.example.com")).status_code == 404


@trio_test
async def test_a_service_nobody_serves_now_is_unavailable() -> None:
    """503: it exists, and will be back."""
    async with serving(App()) as app, two_sides(app) as pair:
        pair.web.apply(services={ORDERS_NAME: []})
        assert (await fetch(pair)).status_code == 503
        assert pair.web.records[0][0].how_ended == "no_endpoint"


@trio_test
async def test_a_port_the_service_does_not_have_is_not_found() -> None:
    """An explicit port must exist."""
    async with serving(App()) as app, two_sides(app) as pair:
        output = await curl("-w", "%{http_code}", "-o", "/dev/null", "--proxy", pair.proxy, f"http://{ORDERS_NAME}:9/")
        assert output == "404"


@trio_test
async def test_before_the_first_snapshot_nothing_passes() -> None:
    """Not ready: 503 to the local app, and the same from the other end to a caller who is."""
    async with serving(App()) as app, two_sides(app, apply=False) as pair:
        assert (await fetch(pair)).status_code == 503
        assert pair.web.records[0][0].how_ended == "not_ready"
        pair.web.apply(services={ORDERS_NAME: [pair.orders.endpoint()]})
        assert (await fetch(pair)).status_code == 503
        assert pair.orders.records[0][0].how_ended == "not_ready"


@trio_test
async def test_an_unknown_name_is_looked_up_and_its_first_requests_wait_for_it() -> None:
    """They are parked, and go on with the snapshot that answers."""
    async with serving(App()) as app, two_sides(app) as pair:
        pair.web.apply()
        answers: list[int] = []

        async def one() -> None:
            answers.append((await fetch(pair)).status_code)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(one)
            nursery.start_soon(one)
            await settled(lambda: pair.web.runtime.live_count == 2)
            assert pair.web.lookups[0] == ORDERS_NAME
            pair.web.apply(services={"other.shop": []})  # answers for somebody else
            assert pair.web.runtime.live_count == 2
            pair.web.apply(services={ORDERS_NAME: [pair.orders.endpoint()]})
        assert answers == [200, 200]


@trio_test
async def test_a_lookup_nobody_answers_ends_in_503() -> None:
    """The control plane is slow or gone: the request does not wait for ever."""
    async with serving(App()) as app, two_sides(app) as pair:
        pair.web.apply()
        async with calling(pair.web.app_address) as caller:
            await caller.ask()
            await settled(lambda: pair.web.runtime.live_count)
            pair.web.plane._outbound.sweep(pair.web.driver.tick() + 60)
            assert (await caller.head()).status_code == 503


@trio_test
async def test_those_who_wait_for_a_name_still_get_it_when_a_later_one_cannot_ask() -> None:
    """The control plane went away in between: the newcomer is told, the earlier ones are not forgotten."""
    async with serving(App()) as app, two_sides(app) as pair:
        pair.web.apply()
        async with calling(pair.web.app_address) as first, calling(pair.web.app_address) as second:
            await first.ask("/first")
            await settled(lambda: pair.web.runtime.live_count == 1)
            pair.web._answers_lookups = False
            await second.ask("/second")
            assert (await second.head()).status_code == 503
            pair.web.apply(services={ORDERS_NAME: [pair.orders.endpoint()]})
            assert (await first.head()).status_code == 200
            assert await first.rest() == b"/first"
            await second.rest()


@trio_test
async def test_a_named_port_means_its_service_whatever_host_says() -> None:
    """And the app sees the service's own name."""
    app = App()
    async with serving(app) as address, two_sides(address) as pair:
        local = pair.web.listen_for_apps(OutboundPort(listen=ANY, service="orders", port=PORT))
        assert await curl(f"http://{local}/named") == "/named"
        assert app.requests[0].values(b"host") == [f"{ORDERS_NAME}:{PORT}".encode()]


@trio_test
async def test_f11_another_identity_at_the_endpoints_address_gets_not_a_byte() -> None:
    """A legal SVID of the mesh, but not the one the control plane named: no request reaches it."""
    mesh = Mesh()
    heard = bytearray()
    connections = 0

    async def rogue(sock: socket.socket) -> None:
        nonlocal connections
        tls = await handshake(sock, server_context(mesh.svid(BILLING), mesh.bundle), server_side=True)
        connections += 1
        while True:
            try:
                data = tls.recv(100)
            except ssl.SSLWantReadError:
                await trio.lowlevel.wait_readable(tls)
                continue
            if not data:
                break
            heard.extend(data)
        tls.close()

    async with trio.open_nursery() as nursery:
        web = Side(nursery, mesh, WEB)
        listener = bind(ANY, "rogue")
        nursery.start_soon(serve, listener, Gate(10), rogue)
        orders = Side(nursery, mesh, ORDERS)
        web.apply(services={ORDERS_NAME: [orders.endpoint(address=bound_address(listener))]})
        async with calling(web.app_address) as caller:
            await caller.ask("/secret")
            answer = await caller.head()
            assert answer.status_code == 503
            await caller.rest()
        (record,) = web.records
        assert record[0].how_ended == "connect_failed"
        assert "billing" in str(record[0].error)
        assert connections > 0
        assert heard == b""
        nursery.cancel_scope.cancel()


@trio_test
async def test_f20_plain_http_on_the_mesh_port_is_refused_and_told() -> None:
    """The connection ends without an answer; the log has a line with its row and where it came from."""
    async with serving(App()) as app, two_sides(app) as pair:
        where = pair.orders.mesh_address
        stream = await trio.open_tcp_stream(where.host, where.port)
        async with stream:
            own_port = stream.socket.getsockname()[1]
            await stream.send_all(b"GET / HTTP/1.1\r\nhost: orders\r\n\r\n")
            try:
                while await stream.receive_some(100):
                    pass
            except trio.BrokenResourceError:
                pass
        (line,) = await pair.orders.log_lines(1)
        assert line["row"] == "F20"
        assert line["remote"] == f"127.0.0.1:{own_port}"


# What the app is told


@trio_test
async def test_d01_identity_comes_from_the_certificate_and_from_nothing_else() -> None:
    """x-forwarded-client-cert is set; a forged one, in any spelling, and x-hauberk-* never arrive."""
    app = App()
    async with serving(app) as address, two_sides(address) as pair:
        forged = {
            "X-Forwarded-Client-Cert": "URI=spiffe://mesh.local/ns/shop/sa/admin",
            "X_Forwarded_Client_Cert": "URI=spiffe://mesh.local/ns/shop/sa/admin",
            "X-Hauberk-Anything": "1",
        }
        assert (await fetch(pair, headers=forged)).status_code == 200
        (request,) = app.requests
        svid = pair.web.identity.svid
        assert svid is not None
        digest = hashlib.sha256(svid.chain_der[0]).hexdigest()
        expected = f"By={ORDERS};Hash={digest};URI={WEB}".encode()
        assert request.values(b"x-forwarded-client-cert") == [expected]
        assert b"admin" not in b"".join(v for _, v in request.fields)
        assert not any(n.startswith(b"x-hauberk") for n, _ in request.fields)


@trio_test
async def test_a_trace_is_passed_on_or_begun() -> None:
    """W3C Trace Context; both sidecars log the same trace."""
    app = App()
    async with serving(app) as address, two_sides(address) as pair:
        given = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00"
        await fetch(pair, headers={"traceparent": given, "tracestate": "a=1"})
        await fetch(pair)
        first, second = app.requests
        assert first.values(b"traceparent") == [given.encode()]
        assert first.values(b"tracestate") == [b"a=1"]
        (begun,) = second.values(b"traceparent")
        assert re.fullmatch(rb"00-[0-9a-f]{32}-[0-9a-f]{16}-00", begun)
        outbound, inbound = await pair.web.log_lines(2), await pair.orders.log_lines(2)
        assert outbound[0]["trace_id"] == inbound[0]["trace_id"] == "4bf92f3577b34da6a3ce929d0e0e4736"
        assert outbound[1]["trace_id"] == inbound[1]["trace_id"] == begun.decode().split("-")[1]


@trio_test
async def test_an_app_that_does_not_listen_is_a_503_and_one_that_breaks_off_a_502() -> None:
    """The caller can tell them apart from a denial."""

    class Breaking(App):
        async def serve_one(self, request: AppRequest) -> None:
            raise trio.BrokenResourceError

    async with two_sides(closed_port()) as pair:
        assert (await fetch(pair)).status_code == 503
        assert pair.orders.plane.app_failures > 0
    async with serving(Breaking()) as app, two_sides(app) as pair:
        assert (await fetch(pair, method="POST", content=b"x")).status_code == 502


# Policy changes while requests are open


class Streaming(App):
    """Sends a piece, then one more each time it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.go_on = trio.Event()
        self.broken_off: list[bytes] = []

    async def serve_one(self, request: AppRequest) -> None:
        await request.head(200)
        await request.data(b"first")
        try:
            await self.go_on.wait()
            await request.data(b"last")
            await request.end()
        except (trio.BrokenResourceError, trio.Cancelled):
            self.broken_off.append(request.target)
            raise


@trio_test
async def test_h15_a_right_that_is_revoked_ends_what_is_open_and_only_that() -> None:
    """A new snapshot judges every open exchange again; others go on undisturbed."""
    app = Streaming()
    async with (
        serving(app) as address,
        two_sides(address) as pair,
        calling(pair.web.app_address) as lost,
        calling(pair.web.app_address) as kept,
    ):
        for caller, path in ((lost, "/secret/a"), (kept, "/open/b")):
            await caller.ask(path)
            assert (await caller.head()).status_code == 200
            assert await caller.read() == b"first"
        pair.orders.apply(policies=(allow(WEB), deny("/secret/*")))
        with pytest.raises(h11.RemoteProtocolError):
            await lost.rest()
        (ended,) = pair.orders.records
        assert ended[0].how_ended == "denied"
        assert ended[1].denied is not None
        assert ended[1].denied.rule == "shop/deny#0"
        app.go_on.set()
        assert await kept.rest() == b"last"
        kept.next_request()
        await kept.ask("/open/again")
        assert (await kept.head()).status_code == 200
        await kept.rest()


@trio_test
async def test_a_right_that_is_granted_holds_for_the_next_request() -> None:
    """Without a new connection."""
    async with serving(App()) as app, two_sides(app, policies=()) as pair, calling(pair.web.app_address) as caller:
        statuses = []
        for policies in ((), (allow(WEB),), ()):
            pair.orders.apply(policies=policies)
            await caller.ask()
            statuses.append((await caller.head()).status_code)
            await caller.rest()
            caller.next_request()
        assert statuses == [403, 200, 403]


# Big bodies


@trio_test(timeout_s=60)
async def test_i15_a_large_upload_to_a_slow_app_waits_at_its_sender() -> None:
    """20 MB: what the two sidecars hold stays within windows and bounds at every moment, and all arrives."""
    digest = hashlib.sha256()

    class Slow(App):
        async def serve_one(self, request: AppRequest) -> None:
            await trio.testing.wait_all_tasks_blocked()  # whoever can send has sent
            while piece := await request.read():
                digest.update(piece)
                pair.check_bounds()
                await trio.lowlevel.checkpoint()
            await request.answer(b"got it")

    sent = hashlib.sha256()
    async with serving(Slow()) as app, two_sides(app) as pair:
        async with calling(pair.web.app_address) as caller:
            await caller.ask("/upload", method="POST", fields=[("content-length", str(TWENTY_MB))])
            for number in range(TWENTY_MB // 100_000):
                piece = number.to_bytes(4, "big") * 25_000
                sent.update(piece)
                await caller.send(piece)
                pair.check_bounds()
            await caller.end()
            assert (await caller.head()).status_code == 200
            assert await caller.rest() == b"got it"
        assert digest.digest() == sent.digest()
        assert pair.orders.records[0][0].request.octets == TWENTY_MB


@trio_test(timeout_s=60)
async def test_r20_a_large_download_to_a_slow_client_waits_at_its_sender() -> None:
    """The same the other way; a second stream on the same connection is not held up by it."""

    class Large(App):
        async def serve_one(self, request: AppRequest) -> None:
            if request.target == b"/small":
                await request.answer(b"quick")
                return
            await request.head(200, [(b"content-length", b"%d" % TWENTY_MB)])
            for number in range(TWENTY_MB // 100_000):
                piece = number.to_bytes(4, "big") * 25_000
                sent.update(piece)
                await request.data(piece)
            await request.end()

    sent, digest = hashlib.sha256(), hashlib.sha256()
    async with serving(Large()) as app, two_sides(app) as pair:
        async with calling(pair.web.app_address) as caller:
            await caller.ask("/large")
            assert (await caller.head()).status_code == 200
            await trio.testing.wait_all_tasks_blocked()
            pair.check_bounds()
            assert (await fetch(pair, "/small")).content == b"quick"
            assert sum(c.kind == "mesh_client" for c in pair.web.driver.connections) == 1
            while piece := await caller.read():
                digest.update(piece)
                pair.check_bounds()
        assert digest.digest() == sent.digest()


@trio_test(timeout_s=60)
async def test_a_large_body_passes_through_h2c_both_ways() -> None:
    """curl over HTTP/2 to an app over HTTP/2; 5 MB up and down at once."""
    async with serving_h2c(H2App()) as app, two_sides(app, protocol=Protocol.HTTP2) as pair:
        body = bytes(range(256)) * 20_000
        done = await trio.run_process(
            ["curl", "--silent", "--max-time", "50", "--http2-prior-knowledge", "--data-binary", "@-",
             "-H", f"host: {ORDERS_NAME}:{PORT}", f"http://{pair.web.app_address}/echo"],
            stdin=body, capture_stdout=True,
        )  # fmt: skip
        assert done.stdout == body
        pair.check_bounds()


@trio_test
async def test_an_upload_that_is_refused_is_answered_before_it_has_arrived() -> None:
    """403 reaches a client that is still sending, and the app hears nothing."""
    app = App()
    async with serving(app) as address, two_sides(address, policies=()) as pair:
        async with calling(pair.web.app_address) as caller:
            await caller.ask("/upload", method="POST", fields=[("content-length", "1000000")])
            await caller.send(b"x" * 10_000)
            assert (await caller.head()).status_code == 403
            assert (await caller.rest()).startswith(b'{"type"')
        assert app.requests == []


@trio_test
async def test_expect_100_continue_reaches_the_app_and_its_go_ahead_the_client() -> None:
    """curl waits for it with a body of this size."""
    app = App()
    async with serving(app) as address, two_sides(address) as pair:
        body = b"z" * 2_000_000
        output = await curl(
            "-D", "-", "-o", "/dev/null", "-H", "expect: 100-continue", "--proxy", pair.proxy, "--data-binary", "@-",
            pair.url("/big"), data=body,
        )  # fmt: skip
        assert output.startswith("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200")
        assert len(app.requests) == 1


@trio_test
async def test_a_client_that_gives_up_is_given_up_for_everywhere() -> None:
    """The app's connection ends too, so that it can stop working."""
    app = Streaming()
    async with serving(app) as address, two_sides(address) as pair:
        async with calling(pair.web.app_address) as caller:
            await caller.ask()
            await caller.head()
            await caller.read()
        await settled(lambda: pair.orders.records and pair.web.records)
        assert [side.records[0][0].how_ended for side in (pair.web, pair.orders)] == ["client_reset"] * 2
        app.go_on.set()


# Endpoints and certificates


@trio_test
async def test_an_endpoint_that_cannot_be_reached_is_passed_over() -> None:
    """Nothing was sent, so trying elsewhere is always safe: no request fails."""
    async with serving(App()) as app, two_sides(app) as pair:
        dead = pair.orders.endpoint(address=closed_port())
        pair.web.apply(services={ORDERS_NAME: [dead, pair.orders.endpoint()]})
        statuses = [(await fetch(pair)).status_code for _ in range(8)]
        assert statuses == [200] * 8
        assert pair.web.plane._outbound.is_failing(ORDERS_NAME, dead)
        pair.web.driver.now += 60  # ... but not for ever
        assert not pair.web.plane._outbound.is_failing(ORDERS_NAME, dead)


@trio_test
async def test_an_endpoint_that_is_gone_finishes_what_it_has_and_gets_no_more() -> None:
    """A new snapshot without it: the open stream ends in order, the next request goes to the other endpoint."""
    first_app, second_app = Streaming(), App()
    async with (
        serving(first_app) as one,
        serving(second_app) as two,
        two_sides(one) as pair,
        trio.open_nursery() as nursery,
    ):
        inbound = [type(pair.orders.config.inbound[0])(port=PORT, app=two, protocol=Protocol.HTTP1)]
        second = Side(nursery, pair.web.mesh, ORDERS, inbound=inbound)
        second.apply(policies=(allow(WEB),))
        async with calling(pair.web.app_address) as caller:
            await caller.ask()
            await caller.head()
            assert await caller.read() == b"first"
            pair.web.apply(services={ORDERS_NAME: [second.endpoint()]})
            assert (await fetch(pair, "/elsewhere")).content == b"/elsewhere"
            assert [r.target for r in second_app.requests] == [b"/elsewhere"]
            first_app.go_on.set()
            assert await caller.rest() == b"last"
        await settled(
            lambda: not any(c.kind == "mesh_client" and c.session.draining for c in pair.web.driver.connections)
        )
        await settled(lambda: not second.runtime.live_count)
        nursery.cancel_scope.cancel()


@trio_test(timeout_s=60)
async def test_certificates_change_under_load_without_one_failed_request() -> None:
    """New requests go out under the new certificate, streams that are open finish on the old."""
    app = App()
    rotations = 20
    async with serving(app) as address, two_sides(address) as pair:
        statuses: list[int] = []
        stop = trio.Event()

        async def load(path: str) -> None:
            async with calling(pair.web.app_address) as caller:
                while not stop.is_set():
                    await caller.ask(path)
                    statuses.append((await caller.head()).status_code)
                    await caller.rest()
                    caller.next_request()

        async with trio.open_nursery() as nursery:
            for number in range(3):
                nursery.start_soon(load, f"/{number}")
            for number in range(rotations):
                side = pair.web if number % 2 else pair.orders
                side.identity.set(svid=side.mesh.svid(side.spiffe_id))
                target = len(statuses) + 5
                await settled(partial(lambda target: len(statuses) >= target, target))
            stop.set()
        assert set(statuses) == {200}
        hashes = {value.split(b";")[1] for r in app.requests for value in r.values(b"x-forwarded-client-cert")}
        assert len(hashes) == 1 + rotations // 2
        await settled(lambda: sum(c.kind == "mesh_client" for c in pair.web.driver.connections) == 1)


@trio_test
async def test_f15_a_connection_ends_with_the_certificate_it_was_made_with() -> None:
    """At its NotAfter, whatever is open on it; and it is looked at then, not a part of a second later."""
    app = Streaming()
    async with serving(app) as address, two_sides(address) as pair:
        async with calling(pair.web.app_address) as caller:
            await caller.ask()
            await caller.head()
            assert await caller.read() == b"first"
            (connection,) = [c for c in pair.orders.driver.connections if c.kind == "mesh_server"]
            assert connection.expires_at is not None
            aging, end = pair.orders.plane._aging, connection.expires_at
            assert aging.next_look_s(end - 0.125) == pytest.approx(0.125)
            assert aging.next_look_s(end - 60) == aging.next_look_s(end) == SWEEP_S
            aging.look_at(connection, end - 1)
            assert not connection.session.draining
            aging.look_at(connection, end)
            pair.orders.driver.flush()
            with pytest.raises(h11.RemoteProtocolError):
                await caller.rest()
        app.go_on.set()


@trio_test
async def test_r14_draining_lets_requests_finish_and_turns_new_ones_elsewhere() -> None:
    """GOAWAY to every caller; what is open ends in order; `drain` says whether all did."""
    app = Streaming()
    async with serving(app) as address, two_sides(address) as pair, calling(pair.web.app_address) as caller:
        await caller.ask()
        await caller.head()
        assert await caller.read() == b"first"
        assert not await pair.orders.plane.drain(0.0)
        drained: list[bool] = []

        async def drain() -> None:
            drained.append(await pair.orders.plane.drain(20.0))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(drain)
            await settled(
                lambda: all(c.session.draining for c in pair.web.driver.connections if c.kind == "mesh_client")
            )
            answer = await fetch(pair)
            assert answer.status_code == 503  # nobody else serves it
            app.go_on.set()
            assert await caller.rest() == b"last"
        assert drained == [True]


# Limits


@trio_test
async def test_more_requests_than_may_wait_are_refused() -> None:
    """One connection to the app, one request waiting: the third is told 429; the others are served."""
    app = Streaming()
    limits = Limits(app_connections_max=1, waiting_exchanges_max=1)
    async with (
        serving(app) as address,
        two_sides(address, limits=limits) as pair,
        calling(pair.web.app_address) as one,
        calling(pair.web.app_address) as two,
    ):
        await one.ask("/one")
        await one.head()
        assert await one.read() == b"first"
        await two.ask("/two")
        await settled(lambda: pair.orders.runtime.live_count == 2)
        assert (await fetch(pair)).status_code == 429
        app.go_on.set()
        assert await one.rest() == b"last"
        assert (await two.head()).status_code == 200
        assert await two.rest() == b"firstlast"
        assert app.connections == 1


@trio_test
async def test_one_connection_carries_many_requests_at_once() -> None:
    """50 open requests between the sidecars, on one mTLS connection."""

    class Meeting(App):
        async def serve_one(self, request: AppRequest) -> None:
            if len(self.requests) == 50:
                everybody.set()
            await everybody.wait()
            await request.answer(request.target)

    everybody = trio.Event()
    app = Meeting()
    async with serving(app) as address, two_sides(address) as pair:
        answers: list[bytes] = []

        async def one(number: int) -> None:
            async with calling(pair.web.app_address) as caller:
                await caller.ask(f"/{number}")
                assert (await caller.head()).status_code == 200
                answers.append(await caller.rest())

        async with trio.open_nursery() as nursery:
            for number in range(50):
                nursery.start_soon(one, number)
        assert sorted(answers) == sorted(f"/{n}".encode() for n in range(50))
        assert sum(c.kind == "mesh_server" for c in pair.orders.driver.connections) == 1


@trio_test
async def test_an_app_that_does_not_answer_in_time_is_a_504() -> None:
    """The sweep ends what is overdue; the app's connection is given up."""

    class Silent(App):
        async def serve_one(self, request: AppRequest) -> None:
            await trio.sleep_forever()

    timeouts = Timeouts(request_s=30)
    async with serving(Silent()) as app, two_sides(app, timeouts=timeouts) as pair:
        async with calling(pair.web.app_address) as caller:
            await caller.ask()
            await settled(lambda: any(c.kind == "app_client" for c in pair.orders.driver.connections))
            pair.orders.runtime.sweep(pair.orders.driver.tick() + 29)
            assert pair.orders.runtime.live_count == 1
            pair.orders.runtime.sweep(pair.orders.driver.tick() + 31)
            assert (await caller.head()).status_code == 504
            await caller.rest()
        assert pair.orders.records[0][0].how_ended == "upstream_timeout"


@trio_test
async def test_a_connection_that_says_nothing_or_rubbish_is_no_request() -> None:
    """Nothing is recorded, nothing is left behind."""
    async with serving(App()) as app, two_sides(app) as pair:
        for first in (b"", b"PRI * HTTP/2.0\r\n\r\nXX", b"\x16\x03\x01\x00\x05hello"):
            stream = await trio.open_tcp_stream(pair.web.app_address.host, pair.web.app_address.port)
            async with stream:
                if first:
                    await stream.send_all(first)
                await stream.send_eof()
                try:
                    while await stream.receive_some(1_000):
                        pass
                except trio.BrokenResourceError:
                    pass
        await settled(lambda: not pair.web.driver.connections)
        assert pair.web.records == []


class Duplex(H2App):
    """Answers each piece before the next one comes, as a bidirectional gRPC stream does."""

    async def serve_one(self, request: H2Request) -> None:
        await request.head([(b":status", b"200")])
        while piece := await request.read():
            await request.data(piece.upper())
        await request.data(b"", end=True)


@trio_test
async def test_a_stream_goes_both_ways_at_once() -> None:
    """The answer begins before the request is over, also through HTTP/1.1 at the caller's side."""
    async with (
        serving_h2c(Duplex()) as app,
        two_sides(app, protocol=Protocol.HTTP2) as pair,
        calling(pair.web.app_address) as caller,
    ):
        await caller.ask("/chat", method="POST", fields=[("transfer-encoding", "chunked")])
        assert (await caller.head()).status_code == 200
        for word in (b"one", b"two", b"three"):
            await caller.send(word)
            assert await caller.read() == word.upper()
        await caller.end()
        assert await caller.rest() == b""


@trio_test
async def test_a_connection_that_waits_for_use_keeps_no_policy_that_is_no_longer_in_force() -> None:
    """A large policy would stay in memory as often as there were versions of it."""
    async with serving(App()) as app, two_sides(app) as pair:
        async with calling(pair.web.app_address) as caller:
            await caller.ask("/")
            await caller.head()
            await caller.rest()
        pair.orders.apply(policies=(allow(WEB),))
        assert pair.orders.runtime.callers
        assert [caller._in_force for caller in pair.orders.runtime.callers] == [None]


@trio_test
async def test_an_answer_that_overtakes_the_end_of_its_request_resets_nobody() -> None:
    """An app that knows the length need not wait for END_STREAM. Its client is not reset between its last octet and
    that, over both hops, and the app's connection is kept; a client that never ends its stream is not waited for."""
    post = [
        (":method", "POST"),
        (":scheme", "http"),
        (":authority", ORDERS_NAME),
        (":path", "/"),
        ("content-length", "5"),
    ]
    async with serving(App()) as app, two_sides(app) as pair:
        address = pair.web.app_address
        async with await trio.open_tcp_stream(address.host, address.port) as stream:
            client = h2.connection.H2Connection()
            client.initiate_connection()

            async def until(kind: type[h2.events.Event]) -> list[h2.events.Event]:
                seen: list[h2.events.Event] = []
                while not any(isinstance(one, kind) for one in seen):
                    await stream.send_all(client.data_to_send())
                    seen += client.receive_data(bytes(await stream.receive_some(65_536)))
                return seen

            for number in (1, 3):
                client.send_headers(number, post)
                client.send_data(number, b"whole")
                seen = await until(h2.events.StreamEnded)
                assert [type(one) for one in seen if isinstance(one, h2.events.StreamReset)] == []
                assert pair.web.runtime.live_count == pair.orders.runtime.live_count == 1
                if number == 1:
                    client.end_stream(number)
                    await stream.send_all(client.data_to_send())
                    await settled(lambda: not pair.web.runtime.live_count and not pair.orders.runtime.live_count)
                    assert [c.kind for c in pair.orders.driver.connections].count("app_client") == 1
            pair.web.runtime.sweep(pair.web.driver.tick() + 0.9)
            assert pair.web.runtime.live_count == 1
            pair.web.runtime.sweep(pair.web.driver.tick() + 1.1)
            (reset,) = [one for one in await until(h2.events.StreamReset) if isinstance(one, h2.events.StreamReset)]
            assert reset.error_code == ErrorCode.NO_ERROR
        await settled(lambda: not pair.orders.runtime.live_count)
        assert [exchange.how_ended for exchange, _ in pair.web.records] == ["complete"] * 2
