"""What both sides are told: who calls whom, which 50 rules hold, which files are served, which headers are sent.

A caller `web` calls a service `orders`. Ten kinds of resource with twenty items each make 200 paths. Five callers times
ten kinds make 50 rules, each a principal, two methods, an exact path and a prefix; one in five is about `web`, so the
rule that allows a request stands anywhere between the first and the last.

h2load repeats headers as they are given and varies only the path. So that header blocks do not repeat, as they do not
in real traffic, every path ends in a query as long as a traceparent and a request id, and no two are the same.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

TRUST_DOMAIN = "mesh.local"
NAMESPACE = "shop"
CALLER = "web"
SERVICE = "orders"
SERVICE_PORT = 8080

CALLERS = (CALLER, "mobile", "backoffice", "reports", "partner")
KINDS = ("orders", "items", "customers", "invoices", "payments", "shipments", "returns", "prices", "stock", "offers")
ITEMS = 20
METHODS = ("GET", "POST")
BODY_OCTETS = 1_024
LARGE_OCTETS = 10_000_000
GRPC_OCTETS = 100
CROWD_RULES = 5_000
CROWD_SERVICES = 50
CROWD_ENDPOINTS = 10
"""Of each service."""
GRPC_EXTENSION = "grpc"
"""nghttpd tells the content type by the name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """Who may do what: all three must match."""

    principal: str
    """A SPIFFE ID without `spiffe://`."""
    methods: tuple[str, ...]
    path: str
    prefix: str


def principal(account: str) -> str:
    return f"{TRUST_DOMAIN}/ns/{NAMESPACE}/sa/{account}"


def rules() -> list[Rule]:
    """The 50, in the order they are given to everybody."""
    return [
        Rule(principal=principal(caller), methods=METHODS, path=f"/api/v1/{kind}", prefix=f"/api/v1/{kind}/")
        for kind in KINDS
        for caller in CALLERS
    ]


def idle_rules(count: int) -> list[Rule]:
    """Rules that match nothing that is sent: half of them other callers, half of them other paths."""
    return [
        Rule(
            principal=principal(CALLER if index % 2 else f"batch-{index}"),
            methods=METHODS,
            path=f"/internal/v{index}/jobs",
            prefix=f"/internal/v{index}/jobs/",
        )
        for index in range(count)
    ]


def stranger_ports(service: int) -> list[int]:
    """Where the endpoints of a service that nobody calls are said to be. Nobody listens there."""
    first = 20_000 + service * CROWD_ENDPOINTS
    return list(range(first, first + CROWD_ENDPOINTS))


def paths() -> list[str]:
    """The 200."""
    return [f"/api/v1/{kind}/{item}" for kind in KINDS for item in range(ITEMS)]


def grpc_paths() -> list[str]:
    return [f"{path}.{GRPC_EXTENSION}" for path in paths()]


def targets(choice: list[str], count: int, rng: random.Random) -> Iterator[str]:
    """Request targets over `choice` in random order; no two are the same."""
    for _ in range(count):
        request_id, trace, span = rng.getrandbits(128), rng.getrandbits(128), rng.getrandbits(64)
        yield f"{rng.choice(choice)}?request={request_id:032x}&trace=00-{trace:032x}-{span:016x}"


def headers(rng: random.Random) -> list[str]:
    """What a client sends beside method and path; a different one each time. The trace is not sampled, as most are."""
    request_id, trace, span = rng.getrandbits(128), rng.getrandbits(128), rng.getrandbits(64)
    return [
        "user-agent: orders-web/4.18.2 (linux; python 3.11) httpx/0.28.1",
        "accept: application/json, text/plain;q=0.9, */*;q=0.1",
        "accept-encoding: gzip, deflate, br",
        "accept-language: en-GB,en;q=0.8",
        f"cookie: session={rng.getrandbits(192):048x}; theme=dark",
        f"x-request-id: {request_id:032x}",
        f"traceparent: 00-{trace:032x}-{span:016x}-00",
    ]


def grpc_headers(rng: random.Random) -> list[str]:
    request_id, trace, span = rng.getrandbits(128), rng.getrandbits(128), rng.getrandbits(64)
    return [
        "content-type: application/grpc",
        "te: trailers",
        "user-agent: grpc-python/1.80.0 grpc-c/53.0.0 (linux; chttp2)",
        "grpc-accept-encoding: identity, deflate, gzip",
        "grpc-timeout: 5S",
        f"x-request-id: {request_id:032x}",
        f"traceparent: 00-{trace:032x}-{span:016x}-00",
    ]


DENIED_PATH = "/api/v1/salaries/1"
"""No rule is about it."""


def write_files(directory: Path) -> None:
    """What the app serves: 1 KiB for every path, a gRPC message of 100 octets beside it, and one file of 10 MB."""
    rng = random.Random(1)
    for path in paths():
        file = directory / path[1:]
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(rng.randbytes(BODY_OCTETS))
        file.with_name(f"{file.name}.{GRPC_EXTENSION}").write_bytes(grpc_message(rng))
    (directory / large_path()[1:]).write_bytes(rng.randbytes(LARGE_OCTETS))
    (directory / "mime.types").write_text(f"application/grpc {GRPC_EXTENSION}\n")
    (directory / "request.grpc").write_bytes(grpc_message(rng))
    (directory / "request.large").write_bytes(rng.randbytes(LARGE_OCTETS))


def large_path() -> str:
    return "/api/v1/orders/large"


def grpc_message(rng: random.Random) -> bytes:
    """Not compressed, its length, 100 octets (gRPC over HTTP2, Length-Prefixed-Message)."""
    return b"\0" + GRPC_OCTETS.to_bytes(4, "big") + rng.randbytes(GRPC_OCTETS)
