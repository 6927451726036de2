"""What can go wrong on the control channel."""

from __future__ import annotations

from sidecar.errors import GRPC_UNAVAILABLE, SidecarError


class ControlError(SidecarError):
    """Anything the control channel raises on purpose."""


class RpcError(ControlError):
    """A call did not succeed. `status` is a gRPC status code, `message` is for people (bounded, printable)."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"gRPC status {status}: {message}")
        self.status = status
        self.message = message

    @property
    def is_unavailable(self) -> bool:
        """The control plane could not be reached or the connection broke; worth another try."""
        return self.status == GRPC_UNAVAILABLE


class SubscriptionsFull(ControlError):
    """No more services can be subscribed to (`limits.subscriptions_max`)."""
