"""The attributes a `when` condition may name, by Istio's names
(https://istio.io/latest/docs/reference/config/security/conditions/).

    request.headers[NAME]            source.ip             destination.ip
    request.auth.principal           remote.ip             destination.port
    request.auth.audiences           source.principal      connection.sni
    request.auth.presenter           source.namespace
    request.auth.claims[A][B]...     source.serviceAccount

Whoever reads a policy and whoever compiles one ask here, so they cannot disagree.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum

from sidecar.rules.header_names import HEADER_NAME, why_not_seen

CLAIM_NAME = re.compile(r"[^\x00-\x20\x7f\[\]]{1,256}", re.ASCII)
CLAIM_DEPTH_MAX = 8


class Attribute(Enum):
    """What a condition looks at."""

    HEADER = "request.headers"
    REQUEST_PRINCIPAL = "request.auth.principal"
    AUDIENCES = "request.auth.audiences"
    PRESENTER = "request.auth.presenter"
    CLAIM = "request.auth.claims"
    SOURCE_IP = "source.ip"
    REMOTE_IP = "remote.ip"
    NAMESPACE = "source.namespace"
    PRINCIPAL = "source.principal"
    SERVICE_ACCOUNT = "source.serviceAccount"
    DESTINATION_IP = "destination.ip"
    DESTINATION_PORT = "destination.port"
    SNI = "connection.sni"

    @property
    def takes_a_name(self) -> bool:
        return self in (Attribute.HEADER, Attribute.CLAIM)

    @property
    def is_address(self) -> bool:
        """Values are CIDR blocks or addresses."""
        return self in (Attribute.SOURCE_IP, Attribute.REMOTE_IP, Attribute.DESTINATION_IP)


@dataclass(frozen=True, slots=True)
class Key:
    attribute: Attribute
    names: tuple[str, ...] = ()
    """One header's name in lower case, or the path to a claim."""

    def __str__(self) -> str:
        return self.attribute.value + "".join(f"[{name}]" for name in self.names)


_BY_NAME = {attribute.value: attribute for attribute in Attribute}
_KEY = re.compile(r"([a-zA-Z.]+)((?:\[[^\[\]]*\])*)")


def parse_key(text: str) -> Key:
    """Raises ValueError with what is wrong, in words for the author of a policy."""
    matched = _KEY.fullmatch(text)
    attribute = _BY_NAME.get(matched[1]) if matched else None
    if matched is None or attribute is None:
        raise ValueError("not an attribute known to this version")
    names = tuple(matched[2][1:-1].split("][")) if matched[2] else ()
    if not attribute.takes_a_name:
        if names:
            raise ValueError(f"{attribute.value} takes no [name]")
        return Key(attribute)
    if attribute is Attribute.HEADER:
        if len(names) != 1 or not HEADER_NAME.fullmatch(names[0]):
            raise ValueError("name one header: request.headers[x-token]")
        name = names[0].lower()
        if why := why_not_seen(name):
            raise ValueError(f"the header {name} cannot be looked at: {why}")
        return Key(attribute, (name,))
    if not 1 <= len(names) <= CLAIM_DEPTH_MAX or not all(map(CLAIM_NAME.fullmatch, names)):
        raise ValueError(f"name a claim, at most {CLAIM_DEPTH_MAX} deep: request.auth.claims[realm][roles]")
    return Key(attribute, names)
