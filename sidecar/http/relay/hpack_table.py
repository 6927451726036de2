"""The tables header fields are looked up in (RFC 7541 sections 2.3 and 4): the static one, then the dynamic one."""

from __future__ import annotations

from sidecar.http.session import Field

ENTRY_OVERHEAD_OCTETS = 32
"""RFC 7541 section 4.1."""
TABLE_OCTETS_DEFAULT = 4_096
"""RFC 9113 section 6.5.2: SETTINGS_HEADER_TABLE_SIZE until a peer says otherwise."""

# RFC 7541 Appendix A.
STATIC: tuple[Field, ...] = (
    (b":authority", b""),
    (b":method", b"GET"),
    (b":method", b"POST"),
    (b":path", b"/"),
    (b":path", b"/index.html"),
    (b":scheme", b"http"),
    (b":scheme", b"https"),
    (b":status", b"200"),
    (b":status", b"204"),
    (b":status", b"206"),
    (b":status", b"304"),
    (b":status", b"400"),
    (b":status", b"404"),
    (b":status", b"500"),
    (b"accept-charset", b""),
    (b"accept-encoding", b"gzip, deflate"),
    (b"accept-language", b""),
    (b"accept-ranges", b""),
    (b"accept", b""),
    (b"access-control-allow-origin", b""),
    (b"age", b""),
    (b"allow", b""),
    (b"authorization", b""),
    (b"cache-control", b""),
    (b"content-disposition", b""),
    (b"content-encoding", b""),
    (b"content-language", b""),
    (b"content-length", b""),
    (b"content-location", b""),
    (b"content-range", b""),
    (b"content-type", b""),
    (b"cookie", b""),
    (b"date", b""),
    (b"etag", b""),
    (b"expect", b""),
    (b"expires", b""),
    (b"from", b""),
    (b"host", b""),
    (b"if-match", b""),
    (b"if-modified-since", b""),
    (b"if-none-match", b""),
    (b"if-range", b""),
    (b"if-unmodified-since", b""),
    (b"last-modified", b""),
    (b"link", b""),
    (b"location", b""),
    (b"max-forwards", b""),
    (b"proxy-authenticate", b""),
    (b"proxy-authorization", b""),
    (b"range", b""),
    (b"referer", b""),
    (b"refresh", b""),
    (b"retry-after", b""),
    (b"server", b""),
    (b"set-cookie", b""),
    (b"strict-transport-security", b""),
    (b"transfer-encoding", b""),
    (b"user-agent", b""),
    (b"vary", b""),
    (b"via", b""),
    (b"www-authenticate", b""),
)
FIRST_DYNAMIC = len(STATIC) + 1

# Names of which every value is a secret: what stands in a table can be guessed at (RFC 7541 section 7.1).
SECRETS = frozenset({b"authorization", b"proxy-authorization", b"cookie", b"set-cookie"})

# Names whose value belongs to one request only.
UNIQUE = frozenset(
    b"traceparent tracestate x-request-id x-correlation-id request-id x-amzn-trace-id x-cloud-trace-context"
    b" b3 x-b3-traceid x-b3-spanid x-b3-parentspanid idempotency-key x-idempotency-key".split()
)
# Names whose values seldom come twice; after nghttp2 (`hd_deflate_decide_indexing`), with what else names one moment
# or one thing. An entry for such a value would only push out others.
VOLATILE = UNIQUE | frozenset(
    b":path age content-length content-range content-md5 digest date etag expires if-match if-modified-since"
    b" if-none-match if-range if-unmodified-since last-modified location content-location link range referer"
    b" retry-after x-envoy-upstream-service-time x-response-time x-runtime server-timing grpc-timeout grpc-message"
    b" ratelimit-remaining x-ratelimit-remaining x-ratelimit-reset".split()
)


class NeverIndexed(tuple[bytes, bytes]):
    """A field that arrived as a never-indexed literal and must be sent on as one (RFC 7541 section 6.2.3).

    It is a field like any other: it unpacks and compares as a pair of bytes. Only its hash is another, so that what
    is remembered of equal fields, such as the encoder's ready encodings, is never found for it. Whoever makes a new
    pair of its parts (a filter that rewrites the value) loses what was said of it: send on the very same object.
    """

    __slots__ = ()

    def __hash__(self) -> int:
        return ~super().__hash__()


class Table:
    """Static and dynamic entries in one list, numbered as RFC 7541 section 2.3.3 does."""

    __slots__ = ("capacity", "fields", "octets", "sizes")

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        """Octets the dynamic entries may have, 32 for each included (RFC 7541 section 4.1)."""
        self.octets = 0
        self.fields: list[Field] = list(_FIELDS)
        """By index. At 0, which is no index, stands a placeholder."""
        self.sizes: list[int] = list(_SIZES)
        """Octets of each entry of `fields`."""

    def __repr__(self) -> str:
        return f"<hpack table, {len(self.fields) - FIRST_DYNAMIC} entries, {self.octets} of {self.capacity} octets>"

    def insert(self, field: Field, size: int) -> None:
        """Insert `field`, of `size` octets, as the newest entry, and evict the oldest. One larger than the whole
        table empties it (RFC 7541 section 4.4)."""
        self.octets += size
        # At most some 128 entries: moving them all up by one costs less than a structure that need not.
        self.fields.insert(FIRST_DYNAMIC, field)
        self.sizes.insert(FIRST_DYNAMIC, size)
        if self.octets > self.capacity:
            self._evict()

    def resize(self, capacity: int) -> None:
        """A dynamic table size update (RFC 7541 section 4.3)."""
        self.capacity = capacity
        self._evict()

    def _evict(self) -> None:
        while self.octets > self.capacity:
            self.fields.pop()
            self.octets -= self.sizes.pop()


_FIELDS: tuple[Field, ...] = ((b"", b""), *STATIC)
_SIZES = (0, *(len(name) + len(value) + ENTRY_OVERHEAD_OCTETS for name, value in STATIC))
