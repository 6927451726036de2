"""A connection and a request as the conditions see them: attributes by scope (`conditions.Scope`)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import final

from sidecar.rules.addresses import canonical_address, remote_address
from sidecar.rules.conditions import OperationAttributes, PeerAttributes
from sidecar.rules.facts import Peer, Token
from sidecar.rules.header_names import folded, folded_octets
from sidecar.rules.keys import Attribute, Key
from sidecar.rules.match import host_of, one_spelling, without_query

Field = tuple[bytes, bytes]
"""(name in lower case, value)."""

_host = lru_cache(maxsize=256)(host_of)  # of a pure value, short by then; most callers know few names


def peer_attributes(peer: Peer, remote_ip: str | None = None) -> PeerAttributes:
    """`remote_ip`: None, the connection's."""
    identity = peer.principal
    namespace = (identity.namespace or "") if identity else ""
    account = f"{namespace}/{identity.service_account}" if identity and identity.service_account else ""
    source_ip = canonical_address(peer.source_ip)
    return (
        identity.principal if identity else "",
        namespace,
        account,
        source_ip,
        canonical_address(peer.destination_ip),
        peer.sni,
        source_ip if remote_ip is None else canonical_address(remote_ip),
    )


def operation_attributes(host: str, port: int, method: str, path: str) -> OperationAttributes:
    if not method:
        return "", str(port), "", ""
    # The border has done all this. Done again it costs little, and a border that forgets opens no hole (C10, C15-C17).
    path = without_query(path)
    if "%" in path or "*" in path:  # a `*` of a policy is a wildcard, so policies write that character encoded
        path = one_spelling(path).replace("*", "%2A")
    return _host(host), str(port), method, path


@final
class RequestFacts:
    """Attributes of scope REQUEST, found when they are asked for."""

    __slots__ = ("_fields", "_remote_ip", "_token", "_trusted_proxies_count")

    def __init__(
        self,
        fields: Sequence[Field],
        token: Token | None,
        *,
        trusted_proxies_count: int = 0,
        remote_ip: str | None = None,
    ) -> None:
        """`remote_ip`: None, as the trusted proxies say."""
        self._fields = fields
        self._token = token
        self._trusted_proxies_count = trusted_proxies_count
        self._remote_ip = remote_ip

    def value(self, key: Key) -> str | tuple[str, ...]:
        """Several texts for headers, audiences and claims; "" or () if the request has none."""
        attribute, token = key.attribute, self._token
        if attribute is Attribute.HEADER:
            # Many apps take `x_role` for `x-role`: whoever may not send one must not send the other (row D02).
            name = folded(key.names[0]).encode("ascii")
            return tuple([value.decode("latin-1") for n, value in self._fields if folded_octets(n) == name])
        if attribute is Attribute.REMOTE_IP:
            return self._remote()
        if attribute is Attribute.REQUEST_PRINCIPAL:
            return token.principal if token else ""
        if attribute is Attribute.PRESENTER:
            return token.presenter if token else ""
        if attribute is Attribute.AUDIENCES:
            return token.audiences if token else ()
        assert attribute is Attribute.CLAIM, f"{key} is no attribute of a request"
        return token.claim(key.names) if token else ()

    def _remote(self) -> str:
        if self._remote_ip is not None:
            return canonical_address(self._remote_ip)
        forwarded = [value.decode("latin-1") for name, value in self._fields if name == b"x-forwarded-for"]
        return remote_address(forwarded, self._trusted_proxies_count)
