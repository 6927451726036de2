"""SPIFFE IDs as values: `spiffe://<trust-domain>/<path>` (SPIFFE-ID section 2).

An ID is checked once, where it enters, and compared byte for byte afterwards. Nothing is ever normalised: what is not
written in the one legal way is refused, because two parties who normalise differently see two identities in one text.
For the same reason an ID is not a `str`: it is equal only to another `SpiffeId`, so that an unchecked text cannot be
compared with a checked one by accident.

An ID always has a path. The path-less ID of the trust domain itself (SPIFFE X509-SVID section 3.2, only signing
certificates carry it) is `TrustDomain.uri`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from certs.errors import InvalidSpiffeId

SCHEME = "spiffe://"
URI_BYTES_MAX = 2048
TRUST_DOMAIN_BYTES_MAX = 255
"""SPIFFE-ID section 2.3, for both."""

_TRUST_DOMAIN = re.compile(r"[a-z0-9._-]+")
_SEGMENT = re.compile(r"[A-Za-z0-9._-]+")
_CONTROL_PLANE_PATH = "/hauberk/control-plane"
_OPERATOR_PREFIX = "/hauberk/operator/"


def _refuse(text: object, why: str) -> InvalidSpiffeId:
    shown = ascii(text)
    if len(shown) > 100:
        shown = shown[:97] + "..."
    return InvalidSpiffeId(f"{shown}: {why}", row="F05")


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class TrustDomain:
    """Name of a trust domain, such as `mesh.local`."""

    name: str

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise _refuse(self.name, "a trust domain has a name")
        if len(self.name) > TRUST_DOMAIN_BYTES_MAX:
            raise _refuse(self.name, f"a trust domain has at most {TRUST_DOMAIN_BYTES_MAX} bytes")
        if _TRUST_DOMAIN.fullmatch(self.name) is None:
            raise _refuse(self.name, "a trust domain is written with a-z, 0-9, '.', '-' and '_' only")

    @classmethod
    def parse(cls, text: str) -> TrustDomain:
        """Raises InvalidSpiffeId."""
        return cls(name=text)

    @property
    def uri(self) -> str:
        """The trust domain's own ID, as signing certificates carry it."""
        return SCHEME + self.name

    def __str__(self) -> str:
        return self.name

    def __repr__(self) -> str:
        return f"TrustDomain({self.name})"


def _check_path(path: str) -> None:
    if not isinstance(path, str) or not path.startswith("/"):
        raise _refuse(path, "a SPIFFE ID has a path, which begins with '/'")
    for segment in path.split("/")[1:]:
        if not segment:
            raise _refuse(path, "the path has an empty segment ('//' or a '/' at its end)")
        if segment in {".", ".."}:
            raise _refuse(path, "the path has a segment '.' or '..'")
        if _SEGMENT.fullmatch(segment) is None:
            raise _refuse(path, "the path is written with A-Z, a-z, 0-9, '.', '-' and '_' only")


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class SpiffeId:
    """Who somebody is. Cannot exist unless it is legal."""

    trust_domain: TrustDomain
    path: str
    """With its leading "/"; never empty."""
    uri: str = field(init=False, compare=False)
    principal: str = field(init=False, compare=False)
    """As policies write it, without the scheme: "mesh.local/ns/shop/sa/web"."""
    namespace: str | None = field(init=False, compare=False)
    service_account: str | None = field(init=False, compare=False)
    """Both None unless the path is /ns/<namespace>/sa/<service-account>."""

    def __post_init__(self) -> None:
        _check_path(self.path)
        principal = self.trust_domain.name + self.path
        uri = SCHEME + principal
        if len(uri) > URI_BYTES_MAX:
            raise _refuse(uri, f"a SPIFFE ID has at most {URI_BYTES_MAX} bytes")
        match self.path.split("/"):
            case ["", "ns", namespace, "sa", service_account]:
                pair: tuple[str | None, str | None] = (namespace, service_account)
            case _:
                pair = (None, None)
        object.__setattr__(self, "uri", uri)
        object.__setattr__(self, "principal", principal)
        object.__setattr__(self, "namespace", pair[0])
        object.__setattr__(self, "service_account", pair[1])

    @classmethod
    def parse(cls, text: str) -> SpiffeId:
        """Reads `spiffe://td/path`. Raises InvalidSpiffeId, and nothing else, whatever it is given."""
        if not isinstance(text, str):
            raise _refuse(text, "a SPIFFE ID is text")
        if len(text) > URI_BYTES_MAX:
            raise _refuse(text, f"a SPIFFE ID has at most {URI_BYTES_MAX} bytes")
        if not text.startswith(SCHEME):
            raise _refuse(text, f"a SPIFFE ID begins with {SCHEME}")
        name, slash, rest = text.removeprefix(SCHEME).partition("/")
        if not slash:
            raise _refuse(text, "a SPIFFE ID has a path after the trust domain")
        return cls(trust_domain=TrustDomain(name=name), path=slash + rest)

    @classmethod
    def for_workload(cls, trust_domain: TrustDomain, namespace: str, service_account: str) -> SpiffeId:
        """`spiffe://td/ns/<namespace>/sa/<service-account>`. Raises InvalidSpiffeId (a name that holds '/' too)."""
        made = cls(trust_domain=trust_domain, path=f"/ns/{namespace}/sa/{service_account}")
        if (made.namespace, made.service_account) != (namespace, service_account):
            raise _refuse(made.path, "a namespace and a service account are one path segment each")
        return made

    @classmethod
    def for_control_plane(cls, trust_domain: TrustDomain) -> SpiffeId:
        return cls(trust_domain=trust_domain, path=_CONTROL_PLANE_PATH)

    @classmethod
    def for_operator(cls, trust_domain: TrustDomain, name: str) -> SpiffeId:
        """`spiffe://td/hauberk/operator/<name>`. Raises InvalidSpiffeId."""
        made = cls(trust_domain=trust_domain, path=_OPERATOR_PREFIX + name)
        if not made.is_operator:
            raise _refuse(made.path, "an operator's name is one path segment")
        return made

    @property
    def is_workload(self) -> bool:
        return self.namespace is not None

    @property
    def is_control_plane(self) -> bool:
        return self.path == _CONTROL_PLANE_PATH

    @property
    def is_operator(self) -> bool:
        return self.path.startswith(_OPERATOR_PREFIX) and self.path.count("/") == _OPERATOR_PREFIX.count("/")

    def __str__(self) -> str:
        return self.uri

    def __repr__(self) -> str:
        return f"SpiffeId({self.uri})"
