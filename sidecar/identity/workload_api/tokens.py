"""JWT-SVIDs as the control plane issued them, kept for half of their life, one for each set of audiences.

Only the control plane signs them, so each new set of audiences costs a call to it. Callers who want the same wait for
one call together; few calls are under way at a time, because a workload that asks for ever new audiences must not keep
the sidecar from renewing its certificate over the same connection. While the control plane is away a token is handed
out until the last quarter of its life.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

import trio

from protos.hauberk.v1 import identity_pb2
from sidecar.control.errors import RpcError
from sidecar.control.rpc import Channel
from sidecar.errors import GRPC_INVALID_ARGUMENT, GRPC_PERMISSION_DENIED, GRPC_UNAVAILABLE, SidecarError

log = logging.getLogger(__name__)

KEPT_MAX = 256
CALLS_MAX = 4
WAITING_MAX = 64
ISSUE_TIMEOUT_S = 10.0
RECONNECTED_S, RETRY_S = 4.0, 0.25
"""The control link is made anew with each certificate: so long its absence is nobody's business but ours."""
TOKEN_OCTETS_MAX = 8_192

Audiences = tuple[str, ...]
"""Sorted, none twice."""
Issue = Callable[[Sequence[str]], Awaitable[identity_pb2.JwtSvidResponse]]
ISSUE_PATH = "/hauberk.v1.Identity/IssueJwtSvid"

_PASSED_ON = {GRPC_INVALID_ARGUMENT, GRPC_PERMISSION_DENIED}
"""What the control plane may say that concerns whoever asked; the rest is our own affair."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JwtSvid:
    token: str = field(repr=False)
    spiffe_id: str
    received_at: float
    expires_at: float
    """Unix seconds; the first by our own clock, so that one that is a little off makes no token old at once."""

    def is_usable(self, now: float, share: float) -> bool:
        """Whether less than `share` of its life is over."""
        return now < self.received_at + (self.expires_at - self.received_at) * share


class Issuer:
    """`Issue` over the connection that the control link has at that moment."""

    def __init__(self, channel: Callable[[], Channel | None]) -> None:
        self._channel = channel

    async def __call__(self, audiences: Sequence[str]) -> identity_pb2.JwtSvidResponse:
        """Raises RpcError."""
        channel = self._channel()
        if channel is None:
            raise RpcError(GRPC_UNAVAILABLE, "there is no connection to the control plane")
        request = identity_pb2.JwtSvidRequest(audiences=audiences)
        return await channel.unary(ISSUE_PATH, request, identity_pb2.JwtSvidResponse, ISSUE_TIMEOUT_S)


class _Asking:
    """A question to the control plane that is under way."""

    def __init__(self) -> None:
        self.done = trio.Event()
        self.error: RpcError | None = None
        """Set when it failed. None when it is done: it worked, or whoever asked gave up, so ask again."""


class Tokens:
    """See the module's docstring."""

    def __init__(self, issue: Issue, clock: Callable[[], float]) -> None:
        """`issue` asks the control plane; raises RpcError. `clock`: Unix seconds."""
        self._issue = issue
        self._clock = clock
        self._kept: dict[Audiences, JwtSvid] = {}
        self._asking: dict[Audiences, _Asking] = {}
        self._limiter = trio.CapacityLimiter(CALLS_MAX)
        self._generation = 0

    def __repr__(self) -> str:
        return f"<Tokens {len(self._kept)} kept, {len(self._asking)} being asked for>"

    def forget(self) -> None:
        """The identity, or the keys that sign, are others: so must the tokens be."""
        self._kept.clear()
        self._generation += 1

    def held(self, audiences: Audiences) -> JwtSvid | None:
        """The one that is there and may be handed out without a question."""
        found = self._kept.get(audiences)
        return found if found is not None and found.is_usable(self._clock(), 0.5) else None

    async def get(self, audiences: Audiences, spiffe_id: str) -> JwtSvid:
        """For `spiffe_id`, our own. Raises RpcError."""
        while (found := self.held(audiences)) is None or found.spiffe_id != spiffe_id:
            asking = self._asking.get(audiences)
            if asking is None:
                return await self._ask(audiences, spiffe_id)
            await asking.done.wait()
            if asking.error is not None:
                raise RpcError(asking.error.status, asking.error.message)
        return found

    async def _ask(self, audiences: Audiences, spiffe_id: str) -> JwtSvid:
        if len(self._asking) >= WAITING_MAX:
            raise RpcError(GRPC_UNAVAILABLE, "too many tokens are being asked for")
        asking = self._asking[audiences] = _Asking()
        generation = self._generation
        kept = self._kept.get(audiences)
        will_do = kept is not None and kept.is_usable(self._clock(), 0.75)
        try:
            token = await self._issued(audiences, spiffe_id, patience_s=0.0 if will_do else RECONNECTED_S)
        except RpcError as error:
            kept = self._kept.get(audiences)
            if error.status in _PASSED_ON or kept is None or not kept.is_usable(self._clock(), 0.75):
                asking.error = error
                raise
            return kept
        finally:
            del self._asking[audiences]
            asking.done.set()  # whoever waits runs after what follows
        if generation == self._generation:
            self._keep(audiences, token)
        return token

    async def _issued(self, audiences: Audiences, spiffe_id: str, *, patience_s: float) -> JwtSvid:
        """A new one. `patience_s`: how long nobody need be there to be asked. Raises RpcError."""
        try:
            with trio.fail_after(ISSUE_TIMEOUT_S):
                async with self._limiter:
                    answer = await self._patiently(audiences, trio.current_time() + patience_s)
            return self._checked(answer, spiffe_id)
        except RpcError as error:
            failure: Exception = error
            if error.status in _PASSED_ON:
                raise RpcError(error.status, error.message) from None
        except (SidecarError, OSError, trio.TooSlowError) as error:
            failure = error
        log.warning("no JWT-SVID from the control plane", extra={"error": str(failure) or type(failure).__name__})
        raise RpcError(GRPC_UNAVAILABLE, "the control plane cannot be asked for a token now")

    async def _patiently(self, audiences: Audiences, until: float) -> identity_pb2.JwtSvidResponse:
        while True:
            try:
                return await self._issue(audiences)
            except RpcError as error:
                if not error.is_unavailable or trio.current_time() >= until:
                    raise
            await trio.sleep(RETRY_S)

    def _checked(self, answer: identity_pb2.JwtSvidResponse, spiffe_id: str) -> JwtSvid:
        """Raises RpcError."""
        if answer.spiffe_id != spiffe_id:
            raise RpcError(GRPC_UNAVAILABLE, "the control plane issued a token for another identity")
        has_life = math.isfinite(answer.expires_at) and answer.expires_at > self._clock()
        if not has_life or not 0 < len(answer.token) <= TOKEN_OCTETS_MAX:
            raise RpcError(GRPC_UNAVAILABLE, "the control plane issued a token that cannot be used")
        return JwtSvid(
            token=answer.token,
            spiffe_id=answer.spiffe_id,
            received_at=self._clock(),
            expires_at=answer.expires_at,
        )

    def _keep(self, audiences: Audiences, token: JwtSvid) -> None:
        self._kept.pop(audiences, None)
        while len(self._kept) >= KEPT_MAX:
            del self._kept[next(iter(self._kept))]  # the oldest
        self._kept[audiences] = token
