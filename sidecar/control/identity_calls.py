"""Calls about the sidecar's own certificate, and how a connection to the control plane is made with it."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

from certs.bundle import TrustBundle
from certs.spiffe_id import SpiffeId
from certs.svid import X509Svid
from protos.hauberk.v1 import identity_pb2
from sidecar.config import Config
from sidecar.control.errors import RpcError
from sidecar.control.rpc import Channel, ChannelLimits, open_channel
from sidecar.errors import GRPC_UNIMPLEMENTED
from sidecar.identity.source import IdentitySource
from sidecar.net.tls import client_context

RENEW_PATH = "/hauberk.v1.Identity/Renew"
CONFIRM_PATH = "/hauberk.v1.Identity/Confirm"
CONNECT_TIMEOUT_S = 3.0


class IdentityCalls:
    """Of one sidecar."""

    def __init__(
        self,
        config: Config,
        identity: SpiffeId,
        source: IdentitySource,
        clock: Callable[[], float],
        limits: ChannelLimits | None,
    ) -> None:
        self._config = config
        self._identity = identity
        self._source = source
        self._clock = clock
        self._limits = limits

    def open_channel(self, context: ssl.SSLContext | None = None) -> AbstractAsyncContextManager[Channel]:
        """To the control plane; without a `context` with the certificate in use. Raises RpcError, TlsError."""
        return open_channel(
            self._config.control_plane,
            context or self._source.client_context(),
            self._identity.trust_domain,
            SpiffeId.for_control_plane(self._identity.trust_domain),
            clock=self._clock,
            connect_timeout_s=CONNECT_TIMEOUT_S,
            limits=self._limits,
            trust=self._source,
        )

    async def renew(self, csr_der: bytes, channel: Channel | None) -> identity_pb2.SvidResponse:
        """Ask for a new certificate. `channel` must have been made with the certificate in use: with an older one the
        control plane would take us for somebody who has stolen it (row G24). Raises RpcError, TlsError."""
        request = identity_pb2.RenewRequest(csr_der=csr_der)
        if channel is not None and channel.is_usable:
            return await channel.unary(RENEW_PATH, request, identity_pb2.SvidResponse)
        async with self.open_channel() as fresh:
            return await fresh.unary(RENEW_PATH, request, identity_pb2.SvidResponse)

    async def confirm(self, svid: X509Svid, bundle: TrustBundle) -> None:
        """Over a connection of its own, made with `svid`, which is not in use yet: does the control plane take it?

        Raises RpcError, TlsError, ssl.SSLError."""
        async with self.open_channel(client_context(svid, bundle)) as fresh:
            try:
                await fresh.unary(CONFIRM_PATH, identity_pb2.ConfirmRequest(), identity_pb2.ConfirmResponse)
            except RpcError as error:
                # A control plane of before Confirm says so; the certificate has carried the question and the answer.
                if error.status != GRPC_UNIMPLEMENTED:
                    raise
