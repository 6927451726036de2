"""What we write, a parser nobody here wrote reads: h11, which uvicorn and httpx stand on."""

from __future__ import annotations

import h11
from hypothesis import given
from hypothesis import strategies as st

from sidecar.http.session import Fields
from tests.sidecar.http.playback import Recorder, client, get, server
from tests.sidecar.http.playback import Requests as Handler

BODIES = st.lists(st.binary(max_size=40), max_size=4)


def events(peer: h11.Connection, raw: bytes) -> tuple[list[object], bytes, list[tuple[bytes, bytes]]]:
    """Heads, body and trailers h11 finds in `raw`."""
    peer.receive_data(raw)
    heads: list[object] = []
    body = b""
    while True:
        event = peer.next_event()
        if isinstance(event, h11.Data):
            body += bytes(event.data)
        elif isinstance(event, h11.EndOfMessage):
            return heads, body, list(event.headers)
        else:
            assert isinstance(event, h11.Request | h11.Response | h11.InformationalResponse)
            heads.append(event)


@given(BODIES, st.booleans())
def test_h11_reads_our_requests(pieces: list[bytes], known: bool) -> None:
    """Chunked with trailers, or of known length."""
    session = client()
    extra: Fields = [(b"content-length", b"%d" % sum(map(len, pieces)))] if known else []
    session.request(get(b"/a?b", (b"x", b"y"), *extra, method=b"PUT"), False, Recorder())
    for piece in pieces:
        session.data(1, piece, False)
    session.trailers(1, [(b"x-sum", b"1")])
    heads, body, trailers = events(h11.Connection(h11.SERVER), session.take())
    head = heads[0]
    assert isinstance(head, h11.Request)
    assert (head.method, head.target, head.http_version) == (b"PUT", b"/a?b", b"1.1")
    assert list(head.headers)[:2] == [(b"host", b"app"), (b"x", b"y")]
    assert body == b"".join(pieces)
    assert trailers == ([] if known else [(b"x-sum", b"1")])


@given(BODIES, st.booleans())
def test_h11_reads_our_responses_and_we_read_its_requests(pieces: list[bytes], known: bool) -> None:
    """With an interim response before."""
    peer, handler = h11.Connection(h11.CLIENT), Handler()
    session = server(handler)
    session.receive(
        peer.send(h11.Request(method="POST", target="/x", headers=[("Host", "a"), ("Transfer-Encoding", "chunked")]))
        or b""
    )
    for piece in pieces:
        session.receive(peer.send(h11.Data(data=piece)) or b"")
    session.receive(peer.send(h11.EndOfMessage(headers=[("X-Sum", "1")])) or b"")
    assert handler.sinks[0].body == b"".join(pieces)
    assert handler.sinks[0].trailer == [(b"x-sum", b"1")]
    extra: Fields = [(b"content-length", b"%d" % sum(map(len, pieces)))] if known else []
    session.informational(1, [(b":status", b"103"), (b"link", b"a")])
    session.head(1, [(b":status", b"200"), *extra], False)
    for piece in pieces:
        session.data(1, piece, False)
    session.trailers(1, [(b"x-sum", b"2")])
    heads, body, trailers = events(peer, session.take())
    assert [head.status_code for head in heads if isinstance(head, h11.Response | h11.InformationalResponse)] == [
        103,
        200,
    ]
    assert body == b"".join(pieces)
    assert trailers == ([] if known else [(b"x-sum", b"2")])
