"""From what an app asked for to a service and a port of it.

An app writes `orders` (its own namespace), `orders.shop`, `orders.shop.svc` or `orders.shop.svc.cluster.local`, as in
Kubernetes. Everything else is not in the mesh.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from functools import lru_cache
from typing import NoReturn

from sidecar.rules.errors import RoutingError
from sidecar.rules.match import host_of

DNS_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
"""RFC 1123 section 2.1, lower case; to be used with `fullmatch`."""

HOST_OCTETS_MAX = 253
PORT_MAX = 65_535
HTTP_PORT = 80


@dataclass(frozen=True, slots=True)
class ServiceName:
    name: str
    namespace: str

    def __str__(self) -> str:
        return f"{self.name}.{self.namespace}"

    @property
    def long_names(self) -> frozenset[str]:
        """All that name it wherever the asker is."""
        return frozenset({str(self), f"{self}.svc", f"{self}.svc.cluster.local"})


@lru_cache(maxsize=1024)  # of pure values; hosts are short by then, and failures are not kept
def resolve(authority_host: str, port: int | None, own_namespace: str) -> ServiceName:
    """The service meant by `authority_host` (any case, a trailing dot allowed, no port). Raises RoutingError.

    `port` takes no part in the choice yet; it is only checked to be one."""
    if port is not None and not 1 <= port <= PORT_MAX:
        raise RoutingError(f"{port} is not a port")
    if len(authority_host) > HOST_OCTETS_MAX:
        raise RoutingError("the host is longer than a name can be")
    match host_of(authority_host).split("."):
        case [name]:
            namespace = own_namespace
        case [name, namespace] | [name, namespace, "svc"] | [name, namespace, "svc", "cluster", "local"]:
            pass
        case _:
            _not_in_the_mesh(authority_host)
    if not (DNS_LABEL.fullmatch(name) and DNS_LABEL.fullmatch(namespace)):
        _not_in_the_mesh(authority_host)
    return ServiceName(name, namespace)


def is_named(service: str, namespace: str, host: str) -> bool:
    """Does `host` (no port) name this service, for whoever is in its namespace?"""
    try:
        return resolve(host, None, namespace) == ServiceName(service, namespace)
    except RoutingError:
        return False


def pick_port(ports: Collection[int], port: int | None) -> int:
    """Which of a service's `ports` is meant by `port` (None: none was named). Raises RoutingError. In this order:

    1  a named port must be one of them;
    2  80, if it is one of them;
    3  the only one."""
    if port is not None:
        if port not in ports:
            raise RoutingError(f"the service has no port {port}, it has {_listed(ports)}")
        return port
    if HTTP_PORT in ports:
        return HTTP_PORT
    if len(ports) == 1:
        return next(iter(ports))
    raise RoutingError(f"name one of the service's ports: it has {_listed(ports)}")


def _listed(ports: Collection[int]) -> str:
    return ", ".join(map(str, sorted(ports))) or "none"


def _not_in_the_mesh(host: str) -> NoReturn:
    raise RoutingError(f"{host!a} names no service of the mesh; write name or name.namespace")
