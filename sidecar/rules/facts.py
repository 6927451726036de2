"""What is known of one request when it is judged. Frozen values; nothing here decides."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from certs.spiffe_id import SpiffeId

Json = str | int | float | bool | None | tuple["Json", ...] | Mapping[str, "Json"]
"""A JSON value that nobody changes any more: arrays are tuples."""


@dataclass(frozen=True, slots=True)
class Peer:
    """What holds for a whole connection. Addresses in the canonical spelling of `ipaddress`, v4-mapped ones unwrapped
    (security.md C29); empty: not known."""

    principal: SpiffeId | None
    """From the verified certificate; None: nobody authenticated."""
    source_ip: str = ""
    """Of the connection's other end."""
    destination_ip: str = ""
    """Of our end."""
    sni: str = ""
    """The name the caller asked for in the TLS handshake (RFC 6066 section 3), lower case."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Token:
    """A verified JSON Web Token. Two are equal only if they are the same object, which the cache of tokens keeps."""

    issuer: str
    subject: str
    """Empty: the token has none, and then no principal."""
    audiences: tuple[str, ...]
    presenter: str
    """The claim `azp`; empty: none."""
    claims: Mapping[str, Json]
    expires_at: float
    """Unix seconds, without any leeway."""
    space_delimited: frozenset[str] = frozenset({"scope", "permission"})
    """Claims whose text is a list (RFC 8693 section 4.2)."""

    @property
    def principal(self) -> str:
        """ "issuer/subject", as `requestPrincipals` are written; empty if the token names nobody."""
        return f"{self.issuer}/{self.subject}" if self.issuer and self.subject else ""

    def claim(self, names: tuple[str, ...]) -> tuple[str, ...]:
        """The texts of a claim: itself, or the members of a list; nothing else matches anything."""
        value: Json = self.claims
        for name in names:
            if not isinstance(value, Mapping) or name not in value:
                return ()
            value = value[name]
        if isinstance(value, str):
            return tuple(value.split()) if len(names) == 1 and names[0] in self.space_delimited else (value,)
        if isinstance(value, tuple):
            return tuple(one for one in value if isinstance(one, str))
        return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """All that a decision may depend on, of one request. `Authorizer.authorize` and `explain` take it."""

    principal: SpiffeId | None
    """From the verified certificate; None: nobody authenticated."""
    host: str = ""
    """Lower case, no port."""
    port: int
    """The service's port that was asked for."""
    method: str = ""
    """Empty: not HTTP but an opaque TCP exchange; `host` and `path` are empty too."""
    path: str = ""
    """Canonical, no query."""
    source_ip: str = ""
    remote_ip: str | None = None
    """None: found as a sidecar finds it, from `source_ip`, `headers` and the count of trusted proxies."""
    destination_ip: str = ""
    sni: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    """(name in lower case, value), in their order."""
    token: Token | None = None

    @property
    def peer(self) -> Peer:
        return Peer(self.principal, self.source_ip, self.destination_ip, self.sni)
