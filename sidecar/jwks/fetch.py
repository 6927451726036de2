"""One document by HTTPS from a host that may be asked: small, in time, without detours (security.md E23).

The addresses a name resolves to are judged and one of them is dialled, that very one: a name that resolves otherwise a
moment later gains nothing. Redirects are not followed, so nothing leads past that judgement.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Sequence
from dataclasses import dataclass

import trio

from sidecar.config import Limits
from sidecar.errors import RequestError
from sidecar.http.http1 import Http1Client
from sidecar.http.session import Fields
from sidecar.rules.jwt_keys import KEY_SET_OCTETS_MAX
from sidecar.rules.jwt_urls import IPNetwork, Url, may_dial, parse_url

DOCUMENT_OCTETS_MAX = KEY_SET_OCTETS_MAX
READ_OCTETS = 65_536
_MAX_AGE = re.compile(rb"(?:^|[ ,])max-age=([0-9]{1,9})(?:$|[ ,])", re.IGNORECASE)


class FetchFailed(Exception):
    """The text says why, for the log. It quotes nothing of what was received."""


@dataclass(frozen=True, slots=True)
class Document:
    body: bytes
    max_age_s: float | None
    """Of Cache-Control (RFC 9111 section 5.2.2.1)."""


def tls_context(ca_file: str) -> ssl.SSLContext:
    """For issuers' servers; they are no part of the mesh. Raises OSError if `ca_file` cannot be used."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # certificate and host name are checked
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    if ca_file:
        context.load_verify_locations(ca_file)
    else:
        context.load_default_certs()
    return context


async def fetch(url_text: str, context: ssl.SSLContext, allowed: Sequence[IPNetwork], timeout_s: float) -> Document:
    """Raises FetchFailed."""
    try:
        url = parse_url(url_text)
    except ValueError as e:
        raise FetchFailed(f"the URL {e}") from None
    try:
        with trio.fail_after(timeout_s):
            async with await _connected(url, context, allowed) as stream:
                return await _ask(stream, url)
    except trio.TooSlowError:
        raise FetchFailed(f"{url.authority} did not answer within {timeout_s:g} s") from None
    except ssl.SSLCertVerificationError as e:
        raise FetchFailed(f"the certificate of {url.authority} was refused: {e.verify_message}") from None
    except trio.BrokenResourceError as e:
        cause = e.__cause__
        if isinstance(cause, ssl.SSLCertVerificationError):
            raise FetchFailed(f"the certificate of {url.authority} was refused: {cause.verify_message}") from None
        raise FetchFailed(f"the connection to {url.authority} broke") from None
    except (OSError, UnicodeError) as e:
        raise FetchFailed(f"{url.authority} cannot be reached: {type(e).__name__}") from None


async def _connected(url: Url, context: ssl.SSLContext, allowed: Sequence[IPNetwork]) -> trio.abc.Stream:
    """A connection to the first address that may be dialled and answers. Raises OSError, FetchFailed."""
    found = await trio.socket.getaddrinfo(url.host, url.port, type=trio.socket.SOCK_STREAM)
    may = [(family, address) for family, _, _, _, address in found if may_dial(str(address[0]), allowed)]
    if not may:
        raise FetchFailed(f"{url.authority} is at an address outside the public Internet; jwks.allow_networks has none")
    failure: OSError = OSError("no address")
    for family, address in may:
        sock = trio.socket.socket(family, trio.socket.SOCK_STREAM)
        try:
            await sock.connect(address)
        except OSError as e:
            sock.close()
            failure = e
            continue
        except BaseException:
            sock.close()
            raise
        stream = trio.SocketStream(sock)
        if not url.is_https:
            return stream
        return trio.SSLStream(stream, context, server_hostname=url.host, https_compatible=True)
    raise failure


async def _ask(stream: trio.abc.Stream, url: Url) -> Document:
    """Raises FetchFailed."""
    session = Http1Client(limits=Limits())
    answer = _Answer(session)
    request: Fields = [
        (b":method", b"GET"),
        (b":scheme", b"https" if url.is_https else b"http"),
        (b":authority", url.authority.encode()),
        (b":path", url.target.encode()),
        (b"accept", b"application/json"),
        (b"accept-encoding", b"identity"),
        (b"user-agent", b"hauberk"),
    ]
    answer.stream = session.request(request, True, answer)
    await stream.send_all(session.take())
    session.sent(0)
    while not answer.is_over:
        data = await stream.receive_some(READ_OCTETS)
        if data:
            session.receive(bytes(data))
        else:
            session.eof()
            break
    if answer.problem or not answer.is_over:
        raise FetchFailed(f"{url.authority} {answer.problem or 'broke off its answer'}")
    return Document(bytes(answer.body), answer.max_age_s)


class _Answer:
    """`StreamSink` of the one request."""

    def __init__(self, session: Http1Client) -> None:
        self.stream = 0
        self.body = bytearray()
        self.max_age_s: float | None = None
        self.problem = ""
        self.is_over = False
        self._session = session

    def _fail(self, problem: str) -> None:
        self.problem, self.is_over = problem, True

    def informational(self, fields: Fields) -> None: ...

    def head(self, fields: Fields, end: bool) -> None:
        found = dict(fields)
        status = found.get(b":status", b"")
        if status != b"200":  # a redirect is not followed: it would lead where nobody judged
            self._fail(f"answered {status.decode('ascii', 'replace')[:3]}")
        elif found.get(b"content-encoding", b"identity").lower() != b"identity":
            self._fail("answered in a coding that was not asked for")
        else:
            if matched := _MAX_AGE.search(found.get(b"cache-control", b"")):
                self.max_age_s = float(matched[1])
            self.is_over = end

    def data(self, data: bytes, flow: int, end: bool) -> None:
        self._session.consumed(self.stream, flow)
        if self.problem:
            return
        self.body += data
        if len(self.body) > DOCUMENT_OCTETS_MAX:
            self._fail(f"answered with more than {DOCUMENT_OCTETS_MAX} octets")
        elif end:
            self.is_over = True

    def trailers(self, fields: Fields) -> None:
        self.is_over = True

    def reset(self, code: int, unprocessed: bool) -> None:
        fault: RequestError | None = self._session.fault
        self._fail("answered with what is not HTTP" if fault is not None else "broke off its answer")

    def writable(self) -> None: ...
