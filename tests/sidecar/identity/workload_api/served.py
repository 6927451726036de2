"""The endpoint on a real socket, with a source of identities that the test turns, and clients written by others."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TypeVar

import grpc
import trio
from google.protobuf.message import Message
from joserfc import jwt
from joserfc.jwk import ECKey

from protos.hauberk.v1 import identity_pb2
from protos.spiffe import workload_pb2 as pb
from sidecar.aging import Aging
from sidecar.config import Config, Timeouts
from sidecar.control.errors import RpcError
from sidecar.errors import GRPC_UNAVAILABLE
from sidecar.identity.source import IdentitySource
from sidecar.identity.workload_api.endpoint import Endpoint, bind_endpoint
from sidecar.net.connection import Driver
from tests.sidecar.mesh import WEB, Mesh

M = TypeVar("M", bound=Message)
HEADER = (("workload.spiffe.io", "true"),)
CALL_TIMEOUT_S = 20.0


class Issuer:
    """Stands for the control plane: signs tokens with a key that it publishes."""

    def __init__(self) -> None:
        self.key = ECKey.generate_key("P-256", {"kid": "one"})
        self.is_away = False
        self.issued = 0
        self.life_s = 300.0

    @property
    def jwt_keys(self) -> str:
        return json.dumps({"keys": [{**self.key.as_dict(private=False), "use": "jwt-svid", "alg": "ES256"}]})

    async def __call__(self, audiences: Sequence[str]) -> identity_pb2.JwtSvidResponse:
        await trio.lowlevel.checkpoint()
        if self.is_away:
            raise RpcError(GRPC_UNAVAILABLE, "away")
        self.issued += 1
        now = time.time()
        claims = {"sub": str(WEB), "aud": list(audiences), "iat": int(now), "exp": int(now + self.life_s)}
        token = jwt.encode({"alg": "ES256", "kid": self.key.kid, "typ": "JWT"}, claims, self.key)
        return identity_pb2.JwtSvidResponse(
            token=token, spiffe_id=str(WEB), issued_at=int(now), expires_at=int(now + self.life_s)
        )


class Served:
    """What the test turns, and what was refused."""

    def __init__(self, path: Path, source: IdentitySource, endpoint: Endpoint, issuer: Issuer, driver: Driver) -> None:
        self.path = path
        self.source = source
        self.endpoint = endpoint
        self.issuer = issuer
        self.driver = driver
        self.mesh = Mesh()
        self.refused: list[tuple[str, str]] = []
        self.later_s = 0.0
        """How far the wall clock is ahead."""

    def join(self) -> None:
        self.source.set(svid=self.mesh.svid(WEB), bundle=self.mesh.bundle)
        self.endpoint.jwt_keys_changed(self.issuer.jwt_keys)


@asynccontextmanager
async def serving(
    directory: Path, *, engine: str = "relay", mode: str = "0600", timeouts: Timeouts | None = None
) -> AsyncIterator[Served]:
    """Has no identity yet: see `Served.join`."""
    path = directory / "agent.sock"
    config = Config(
        service="web", workload_api=str(path), http2_engine=engine, timeouts=timeouts or Timeouts(headers_s=5.0)
    )
    served: Served
    async with trio.open_nursery() as nursery:
        driver, source, issuer = Driver(nursery, config.limits), IdentitySource(), Issuer()
        endpoint = Endpoint(
            config,
            driver,
            source,
            issuer,
            lambda: time.time() + served.later_s,
            lambda row, reason: served.refused.append((row, reason)),
        )
        served = Served(path, source, endpoint, issuer, driver)
        nursery.start_soon(endpoint.run, bind_endpoint(str(path), mode))
        nursery.start_soon(sweep, driver, config.timeouts)
        yield served
        nursery.cancel_scope.cancel()


async def sweep(driver: Driver, timeouts: Timeouts) -> None:
    """As the data plane does, for the connections of all of its listeners."""
    aging = Aging(driver, timeouts)
    while True:
        await trio.sleep(0.1)
        now = driver.tick()
        for connection in driver.connections:
            aging.look_at(connection, now)
        driver.flush()


class Client:
    """grpcio. Blocks, so it is used in threads."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._channel = channel

    def unary(self, method: str, request: Message, answer: type[M], *, header: bool = True) -> M:
        """Raises grpc.RpcError."""
        call = self._channel.unary_unary(
            f"/SpiffeWorkloadAPI/{method}",
            request_serializer=type(request).SerializeToString,
            response_deserializer=answer.FromString,
        )
        found: M = call(request, metadata=HEADER if header else (), timeout=CALL_TIMEOUT_S)
        return found

    def stream(self, method: str, request: Message, answer: type[M], *, header: bool = True) -> Iterator[M]:
        """Raises grpc.RpcError while it is read."""
        call = self._channel.unary_stream(
            f"/SpiffeWorkloadAPI/{method}",
            request_serializer=type(request).SerializeToString,
            response_deserializer=answer.FromString,
        )
        yield from call(request, metadata=HEADER if header else (), timeout=CALL_TIMEOUT_S)

    def x509_svids(self) -> Iterator[pb.X509SVIDResponse]:
        return self.stream("FetchX509SVID", pb.X509SVIDRequest(), pb.X509SVIDResponse)

    def x509_bundles(self) -> Iterator[pb.X509BundlesResponse]:
        return self.stream("FetchX509Bundles", pb.X509BundlesRequest(), pb.X509BundlesResponse)

    def jwt_bundles(self) -> Iterator[pb.JWTBundlesResponse]:
        return self.stream("FetchJWTBundles", pb.JWTBundlesRequest(), pb.JWTBundlesResponse)

    def jwt_svid(self, *audiences: str, spiffe_id: str = "") -> pb.JWTSVID:
        request = pb.JWTSVIDRequest(audience=audiences, spiffe_id=spiffe_id)
        (one,) = self.unary("FetchJWTSVID", request, pb.JWTSVIDResponse).svids
        return one

    def validate(self, audience: str, svid: str) -> pb.ValidateJWTSVIDResponse:
        request = pb.ValidateJWTSVIDRequest(audience=audience, svid=svid)
        return self.unary("ValidateJWTSVID", request, pb.ValidateJWTSVIDResponse)


@contextmanager
def client(path: Path) -> Iterator[Client]:
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)]
    with grpc.insecure_channel(f"unix://{path}", options=options) as channel:
        yield Client(channel)
