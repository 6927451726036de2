"""One line per exchange that nobody can forge, and a writer that nobody can stop."""

from __future__ import annotations

import dataclasses
import json
import string
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from sidecar.telemetry.access_log import (
    CHUNK_OCTETS_MAX,
    PATH_CHARACTERS_MAX,
    AccessLog,
    Exchange,
    RefusedConnection,
    render,
    rfc3339,
)
from tests.trio_support import trio_test

NOW = 1_777_863_721.25

texts = st.one_of(st.text(max_size=6_000), st.binary(max_size=6_000))
exchanges = st.builds(
    Exchange,
    now=st.floats(min_value=0, max_value=4e9),
    direction=st.sampled_from(["inbound", "outbound"]),
    method=texts,
    path=texts,
    authority=texts,
    status=st.integers(0, 599),
    grpc_status=st.none() | st.integers(0, 16),
    source=st.text(max_size=3_000),
    destination=st.text(max_size=3_000),
    decision=st.sampled_from(["", "allow", "deny"]),
    rule=st.text(max_size=1_000),
    snapshot=st.integers(0, 2**63),
    decision_id=st.text(max_size=64),
    audit=st.lists(st.text(max_size=300), max_size=20).map(tuple),
    shadow=st.sampled_from(["", "allow", "deny"]),
    shadow_rule=st.text(max_size=1_000),
    duration_s=st.floats(min_value=0, max_value=1e6),
    bytes_received=st.integers(0, 2**63),
    bytes_sent=st.integers(0, 2**63),
    trace_id=st.text(max_size=64),
    endpoint=st.text(max_size=200),
)


class Lines:
    """A `write` that keeps what it gets, and can be told to stand still or to fail."""

    def __init__(self) -> None:
        self.chunks: list[bytes] = []
        self.open = trio.Event()
        self.open.set()
        self.error: OSError | None = None

    async def write(self, chunk: bytes) -> None:
        await self.open.wait()
        await trio.lowlevel.checkpoint()
        if self.error:
            raise self.error
        self.chunks.append(chunk)

    @property
    def lines(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in b"".join(self.chunks).splitlines()]


class Dropped:
    def __init__(self) -> None:
        self.count = 0

    def __call__(self, count: int) -> None:
        self.count += count


def entry(path: str = "/", decision: str = "allow", **more: Any) -> Exchange:
    return Exchange(now=NOW, direction="inbound", method="GET", path=path, status=200, decision=decision, **more)


def test_a_line_holds_what_was_decided_and_how_it_ended() -> None:
    """The fields of the design, by their names."""
    line = json.loads(
        render(
            Exchange(
                now=NOW,
                direction="inbound",
                method=b"POST",
                path=b"/orders/1",
                authority=b"orders.shop",
                status=403,
                grpc_status=7,
                source="spiffe://mesh.local/ns/shop/sa/web",
                destination="spiffe://mesh.local/ns/shop/sa/orders",
                decision="deny",
                rule="shop/orders#0",
                snapshot=12,
                decision_id="0123456789abcdef",
                duration_s=0.0015,
                bytes_received=10,
                bytes_sent=20,
                end="denied",
                trace_id="4bf92f3577b34da6a3ce929d0e0e4736",
                endpoint="10.0.0.7:15008",
            )
        )
    )
    assert line == {
        "time": "2026-05-04T03:02:01.250Z",
        "event": "exchange",
        "direction": "inbound",
        "method": "POST",
        "path": "/orders/1",
        "authority": "orders.shop",
        "status": 403,
        "grpc_status": 7,
        "source": "spiffe://mesh.local/ns/shop/sa/web",
        "destination": "spiffe://mesh.local/ns/shop/sa/orders",
        "decision": "deny",
        "rule": "shop/orders#0",
        "snapshot": 12,
        "decision_id": "0123456789abcdef",
        "duration_ms": 1.5,
        "bytes_received": 10,
        "bytes_sent": 20,
        "end": "denied",
        "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736",
        "endpoint": "10.0.0.7:15008",
    }


def test_d08_a_record_has_no_place_for_header_values() -> None:
    """What cannot be given cannot be logged: authorization, cookie, tokens, queries, bodies."""
    fields = {field.name for field in dataclasses.fields(Exchange)}
    assert not fields & {"headers", "authorization", "cookie", "query", "token", "body"}


@given(exchanges)
def test_d07_any_input_gives_one_short_line_of_printable_ascii(exchange: Exchange) -> None:
    """CR, LF, ESC, quotes, DEL, broken UTF-8 and megabytes: one line of JSON that fits one atomic write."""
    line = render(exchange)
    assert len(line) <= CHUNK_OCTETS_MAX
    assert line.endswith(b"\n")
    assert set(line[:-1]) <= set(string.printable.encode()) - set(b"\r\n\t\x0b\x0c\x7f")
    assert json.loads(line)["status"] == exchange.status


@given(exchanges)
def test_the_longest_legal_fields_still_fit_one_write(exchange: Exchange) -> None:
    """Even if every field of text is at its worst at the same time."""
    worst = dict.fromkeys(("method", "path", "authority"), b"\xff" * 9_000)
    names = dict.fromkeys(
        ("source", "destination", "rule", "shadow_rule", "decision_id", "trace_id", "endpoint"), "\xff" * 9_000
    )
    line = render(dataclasses.replace(exchange, **worst, **names))  # type: ignore[arg-type]  # mixed keywords
    assert len(line) <= CHUNK_OCTETS_MAX
    assert json.loads(line)["truncated"] is True


def test_a_long_path_is_cut_and_says_so() -> None:
    """2,048 characters of it are kept."""
    line = json.loads(render(entry("/" + "a" * 3_000)))
    assert line["path"] == "/" + "a" * (PATH_CHARACTERS_MAX - 1)
    assert line["truncated"] is True
    assert "truncated" not in json.loads(render(entry("/short")))


def test_d07_a_server_name_that_is_none_is_shown_as_hex() -> None:
    """SNI comes before anybody is authenticated; only a plain host name is shown as text."""
    refused = RefusedConnection(now=NOW, direction="inbound", remote="10.0.0.1:5", reason="tls", row="F01")
    named = json.loads(render(dataclasses.replace(refused, sni=b"orders.shop")))
    assert (named["sni"], named["event"], named["row"]) == ("orders.shop", "connection_refused", "F01")
    forged = json.loads(render(dataclasses.replace(refused, sni=b'a"\r\n\x1b[2J')))
    assert forged["sni_hex"] == b'a"\r\n\x1b[2J'.hex()
    assert "sni" not in forged
    assert "sni" not in json.loads(render(refused))
    assert json.loads(render(dataclasses.replace(refused, sni=b"a" * 254)))["sni_hex"]


def test_times_are_rfc_3339_in_utc() -> None:
    """Milliseconds and a Z."""
    assert rfc3339(0.0) == "1970-01-01T00:00:00.000Z"


@trio_test
async def test_lines_are_written_in_order_and_whole() -> None:
    """Several lines share a write, none is torn, none is larger than a pipe takes at once."""
    lines, dropped = Lines(), Dropped()
    log = AccessLog("all", lines.write, on_drop=dropped)
    for number in range(300):
        log.record(entry(f"/{number}"))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(log.run)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert [line["path"] for line in lines.lines] == [f"/{number}" for number in range(300)]
    assert all(len(chunk) <= CHUNK_OCTETS_MAX and chunk.endswith(b"\n") for chunk in lines.chunks)
    assert len(lines.chunks) < 100
    assert dropped.count == 0


@trio_test
async def test_i08_a_reader_that_stands_still_costs_lines_and_nothing_else() -> None:
    """The queue is bounded, what does not fit is counted, `record` returns at once, and the rest comes through."""
    lines, dropped = Lines(), Dropped()
    lines.open = trio.Event()
    log = AccessLog("all", lines.write, on_drop=dropped, queue_lines_max=10)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(log.run)
        await trio.testing.wait_all_tasks_blocked()
        with trio.testing.assert_no_checkpoints():
            for number in range(25):
                log.record(entry(f"/{number}"))
        assert dropped.count == 15
        lines.open.set()
        await trio.testing.wait_all_tasks_blocked()
        assert [line["path"] for line in lines.lines] == [f"/{number}" for number in range(10)]
        log.record(entry("/after"))
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert lines.lines[-1]["path"] == "/after"
    assert dropped.count == 15


@trio_test
async def test_i08_a_reader_that_is_gone_ends_nothing() -> None:
    """EPIPE or a full disk: lines are counted as lost, the task goes on and recovers."""
    lines, dropped = Lines(), Dropped()
    lines.error = BrokenPipeError()
    log = AccessLog("all", lines.write, on_drop=dropped)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(log.run)
        log.record(entry("/lost"))
        await trio.testing.wait_all_tasks_blocked()
        assert dropped.count == 1
        lines.error = None
        log.record(entry("/kept"))
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert [line["path"] for line in lines.lines] == ["/kept"]


@trio_test
async def test_what_is_queued_at_the_end_is_still_written() -> None:
    """The last exchanges before a stop are the interesting ones."""
    lines, dropped = Lines(), Dropped()
    log = AccessLog("all", lines.write, on_drop=dropped)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(log.run)
        await trio.testing.wait_all_tasks_blocked()
        log.record(entry("/last"))
        nursery.cancel_scope.cancel()
    assert [line["path"] for line in lines.lines] == ["/last"]


@trio_test(autojump=True)
async def test_a_reader_that_stands_still_cannot_keep_the_sidecar_from_ending() -> None:
    """After a second of waiting what is left is counted as lost."""
    lines, dropped = Lines(), Dropped()
    lines.open = trio.Event()
    log = AccessLog("all", lines.write, on_drop=dropped)
    for number in range(500):
        log.record(entry(f"/{number}"))
    started = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(log.run)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert trio.current_time() - started == pytest.approx(1.0)
    assert dropped.count == 500


@pytest.mark.parametrize(
    ("mode", "kept"),
    [("all", ["/allowed", "/denied", "/undecided", None]), ("denied", ["/denied", None]), ("off", [])],
)
def test_modes_say_which_exchanges_are_kept(mode: str, kept: list[str | None]) -> None:
    """Refused connections count as denials."""

    async def main() -> list[object]:
        lines = Lines()
        log = AccessLog(mode, lines.write, on_drop=Dropped())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(log.run)
            log.record(entry("/allowed"))
            log.record(entry("/denied", decision="deny"))
            log.record(entry("/undecided", decision=""))
            log.record(RefusedConnection(now=NOW, direction="inbound", remote="r", reason="tls"))
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        return [line.get("path") for line in lines.lines]

    assert trio.run(main) == kept


@pytest.mark.parametrize(
    ("mode", "kept"),
    [("all", ["/shadow", "/audit", "/plain"]), ("denied", ["/shadow", "/audit"]), ("off", ["/audit"])],
)
def test_what_policies_ask_to_be_logged_is_logged(mode: str, kept: list[str]) -> None:
    """AUDIT is for nothing else; what shadow policies would do is for whoever reads of denials."""

    async def main() -> list[object]:
        lines = Lines()
        log = AccessLog(mode, lines.write, on_drop=Dropped())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(log.run)
            log.record(entry("/shadow", decision="allow", shadow="deny", shadow_rule="shop/new#0"))
            log.record(entry("/audit", decision="allow", audit=("shop/seen#0", "shop/seen#1")))
            log.record(entry("/plain", decision="allow"))
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        for line in lines.lines:
            assert (line.get("shadow"), line.get("shadow_rule")) in ((None, None), ("deny", "shop/new#0"))
            assert line.get("audit") in (None, ["shop/seen#0", "shop/seen#1"])
        return [line.get("path") for line in lines.lines]

    assert trio.run(main) == kept


def test_as_many_audit_rules_are_named_as_there_is_room_for() -> None:
    """And the line says that there were more."""
    line = json.loads(render(entry("/", audit=tuple(f"shop/{number}#0" for number in range(1_000)))))
    assert 100 < len(line["audit"]) < 1_000
    assert line["truncated"] is True


def test_an_unknown_mode_is_refused() -> None:
    """A slip of the pen must not turn the log off."""
    with pytest.raises(ValueError, match="unknown access log mode"):
        AccessLog("none", Lines().write, on_drop=Dropped())
