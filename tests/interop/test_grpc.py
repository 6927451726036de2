"""grpcio on both ends, two sidecars between them: every kind of call, and every way one can end."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from tests.e2e.apps.greeter import BINARY
from tests.e2e.clients import Greeter, grpc_channel
from tests.e2e.harness import eventually
from tests.interop.conftest import Shop


def refused(call: Any) -> tuple[grpc.StatusCode, str]:
    """Status and details."""
    return call.code(), call.details()


def test_unary_calls_carry_messages_and_metadata(greeter: Greeter) -> None:
    """Initial and trailing metadata, the latter in binary too."""
    answer, call = greeter.echo.with_call(b"hello", timeout=10)
    assert answer == b"hello"
    assert call.code() is grpc.StatusCode.OK
    assert ("initial", "first") in call.initial_metadata()
    trailing = dict(call.trailing_metadata())
    assert (trailing["trailing"], trailing["trailing-bin"]) == ("last", BINARY)


def test_metadata_arrives_as_it_was_sent(greeter: Greeter) -> None:
    """Text, binary, and a name given twice."""
    sent = [("x-text", "a b"), ("x-twice", "1"), ("x-twice", "2"), ("x-raw-bin", BINARY)]
    seen = json.loads(greeter.metadata(b"", metadata=sent, timeout=10))
    assert [value for key, value in seen if key == "x-raw-bin"] == [BINARY.hex()]
    assert [value for key, value in seen if key == "x-text"] == ["a b"]
    assert ",".join(value.replace(" ", "") for key, value in seen if key == "x-twice") == "1,2"


def test_the_server_learns_who_calls(greeter: Greeter) -> None:
    """From the sidecar, in the form Envoy gave it."""
    seen = dict(json.loads(greeter.metadata(b"", timeout=10)))
    assert seen["x-forwarded-client-cert"].endswith("URI=spiffe://mesh.local/ns/shop/sa/web")


@pytest.mark.parametrize("size", [0, 1, 65_536, 3_000_000])
def test_messages_of_any_size_arrive(greeter: Greeter, size: int) -> None:
    """Three megabytes are forty windows."""
    message = (b"%07d" % size) * (size // 7 + 1)
    assert greeter.echo(message[:size], timeout=30) == message[:size]


def test_server_streaming(greeter: Greeter) -> None:
    """In order, to the end."""
    assert [int(answer) for answer in greeter.count(b"1000", timeout=30)] == list(range(1_000))


def test_client_streaming(greeter: Greeter) -> None:
    """And one answer."""
    assert greeter.sum((b"%d" % number for number in range(1_000)), timeout=30) == b"499500"


def test_bidirectional_streaming_is_a_conversation(greeter: Greeter) -> None:
    """Each message is sent only after the answer to the one before: nothing on the way waits for more."""
    answers: Iterator[bytes] = iter(())
    heard: list[bytes] = []
    may_listen = threading.Event()

    def talk() -> Iterator[bytes]:
        yield b"0"
        may_listen.wait(20)
        for number in range(1, 50):
            heard.append(next(answers))
            yield b"%d" % number

    # grpcio takes from `talk` on a thread of its own, so `next(answers)` there and the list here do not meet.
    answers = greeter.chat(talk(), timeout=30)
    may_listen.set()
    eventually(lambda: len(heard) == 49, 20, "every message came back before the next was sent")
    assert [*heard, *answers] == [b"%d" % number for number in range(50)]


def test_an_empty_stream_is_answered(greeter: Greeter) -> None:
    """No message in either direction."""
    assert list(greeter.chat(iter(()), timeout=10)) == []
    assert list(greeter.count(b"0", timeout=10)) == []
    assert greeter.sum(iter(()), timeout=10) == b"0"


@pytest.mark.parametrize("name", ["NOT_FOUND", "FAILED_PRECONDITION", "UNAVAILABLE", "UNAUTHENTICATED", "DATA_LOSS"])
def test_an_error_arrives_with_its_details_and_metadata(greeter: Greeter, name: str) -> None:
    """grpcio sends such an answer as trailers alone: a head that is the end."""
    with pytest.raises(grpc.RpcError) as caught:
        greeter.fail(name.encode(), timeout=10)
    assert refused(caught.value) == (grpc.StatusCode[name], "because: 100 % so, und zwar \u00fcberall")
    call: Any = caught.value
    assert dict(call.trailing_metadata())["why-bin"] == b"\0\xff"


def test_an_unknown_method_is_unimplemented(greeter: Greeter) -> None:
    """As the server says it."""
    with pytest.raises(grpc.RpcError) as caught:
        greeter.channel.unary_unary("/test.Greeter/Nothing")(b"", timeout=10)
    assert refused(caught.value)[0] is grpc.StatusCode.UNIMPLEMENTED


def test_a_deadline_ends_the_call_on_both_sides(greeter: Greeter) -> None:
    """The caller hears DEADLINE_EXCEEDED, and the server's call is cancelled."""
    _, cancelled = json.loads(greeter.hanging(b"", timeout=10))
    with pytest.raises(grpc.RpcError) as caught:
        greeter.hang(b"", timeout=0.3)
    assert refused(caught.value)[0] is grpc.StatusCode.DEADLINE_EXCEEDED
    eventually(lambda: json.loads(greeter.hanging(b"")) == [0, cancelled + 1], 5, "the server's call was cancelled")


def test_the_deadline_is_told_to_the_server(greeter: Greeter) -> None:
    """grpc-timeout crosses; grpcio eats it, so the server's own deadline is what can be seen: it ends by itself."""
    _, cancelled = json.loads(greeter.hanging(b"", timeout=10))
    call = greeter.hang.future(b"", timeout=0.3)
    eventually(call.done, 5, "the deadline came")
    eventually(lambda: json.loads(greeter.hanging(b"")) == [0, cancelled + 1], 5, "and the server's too")


def test_a_cancelled_call_is_cancelled_at_the_server(greeter: Greeter) -> None:
    """RST_STREAM crosses both sidecars."""
    _, cancelled = json.loads(greeter.hanging(b"", timeout=10))
    call = greeter.hang.future(b"", timeout=30)
    eventually(lambda: json.loads(greeter.hanging(b""))[0] == 1, 5, "the call is at the server")
    call.cancel()
    eventually(lambda: json.loads(greeter.hanging(b"")) == [0, cancelled + 1], 5, "the server's call was cancelled")


def test_a_stream_that_is_left_ends_everywhere(greeter: Greeter, shop: Shop) -> None:
    """Millions of messages nobody reads any more."""
    call = greeter.count(b"5000000", timeout=30)
    assert next(call) == b"0"
    call.cancel()
    shop.eventually_idle(shop.web)


def test_a_tunnel_made_by_grpcio_itself(shop: Shop) -> None:
    """`hauberk run` sets HTTP_PROXY: grpcio then asks for a tunnel by CONNECT and speaks in it as it always does."""
    proxy = f"http://127.0.0.1:{shop.web.proxy}"
    with grpc_channel("dns:///greeter.shop:9090", enable_http_proxy=1, http_proxy=proxy) as channel:
        assert channel.unary_unary("/test.Greeter/Echo")(b"through", timeout=10, wait_for_ready=True) == b"through"


def test_a_service_that_does_not_exist_is_told_in_grpc_s_own_words(shop: Shop) -> None:
    """A gRPC client must not be given an HTTP error page."""
    listener = f"127.0.0.1:{shop.web.proxy}"
    with grpc_channel(listener, default_authority="nobody.shop") as channel, pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary("/test.Greeter/Echo")(b"", timeout=10)
    assert refused(caught.value)[0] is grpc.StatusCode.UNIMPLEMENTED
