"""The one place that knows the current SVID, the trust bundle, and what of it is revoked."""

from __future__ import annotations

import ssl
from collections.abc import Callable

import trio

from certs.bundle import TrustBundle
from certs.revocation import NOTHING_REVOKED, Revocations
from certs.svid import X509Svid
from sidecar.errors import GRPC_PERMISSION_DENIED
from sidecar.identity.errors import NoIdentityYet
from sidecar.net.tls import client_context, server_context


class IdentitySource:
    """Current SVID, bundle and their TLS contexts, replaced together.

    Contexts are made once per generation, when `set` is called: what OpenSSL does not take is refused there, and
    the old identity stays whole. Connections made with an old context live on until their owner replaces them
    (F14, F15)."""

    def __init__(self) -> None:
        self._svid: X509Svid | None = None
        self._bundle: TrustBundle | None = None
        self._revocations = NOTHING_REVOKED
        self._denied = ""
        self._contexts: tuple[ssl.SSLContext, ssl.SSLContext] | None = None
        self._subscribers: dict[int, Callable[[], object]] = {}
        self._subscribed = 0
        self._ready = trio.Event()
        self.generation = 0
        """Grows by one with every change; 0 while there is nothing."""

    def __repr__(self) -> str:
        who = str(self._svid.spiffe_id) if self._svid else "nobody yet"
        return f"<IdentitySource {who}, generation {self.generation}>"

    @property
    def svid(self) -> X509Svid | None:
        return self._svid

    @property
    def bundle(self) -> TrustBundle | None:
        return self._bundle

    @property
    def revocations(self) -> Revocations:
        """What is not trusted although the bundle would have it; asked after every handshake, and again on change."""
        return self._revocations

    @property
    def denied(self) -> str:
        """Why the control plane will not have us any more, in its own words; empty: it will, as far as we know. Who is
        revoked hears it so: no snapshot comes any more."""
        return self._denied

    @denied.setter
    def denied(self, why: str) -> None:
        if why != self._denied:
            self._denied = why
            self._tell()

    def note_refusal(self, status: int, text: str) -> str:
        """The control plane ended our stream with this gRPC status. Returns `text`."""
        if status == GRPC_PERMISSION_DENIED:
            self.denied = text
        return text

    @property
    def is_ready(self) -> bool:
        return self._contexts is not None

    def set(
        self,
        *,
        svid: X509Svid | None = None,
        bundle: TrustBundle | None = None,
        revocations: Revocations | None = None,
    ) -> None:
        """Replace what is given, then tell the subscribers. Equal values change nothing.

        Raises ValueError if they are of different trust domains, ssl.SSLError if OpenSSL does not take them; then
        nothing has changed."""
        svid, bundle = svid or self._svid, bundle or self._bundle
        revocations = self._revocations if revocations is None else revocations
        is_same = svid == self._svid and bundle == self._bundle
        if is_same and revocations == self._revocations:
            return
        contexts = self._contexts if is_same else None
        if contexts is None and svid is not None and bundle is not None:
            if svid.spiffe_id.trust_domain != bundle.trust_domain:
                raise ValueError(f"{svid.spiffe_id} is not of the trust domain {bundle.trust_domain}")
            contexts = server_context(svid, bundle), client_context(svid, bundle)
        self._svid, self._bundle, self._contexts, self._revocations = svid, bundle, contexts, revocations
        self.generation += 1
        if contexts is not None:
            self._ready.set()
        self._tell()

    def _tell(self) -> None:
        for callback in list(self._subscribers.values()):
            callback()

    def server_context(self) -> ssl.SSLContext:
        """For accepting. Raises NoIdentityYet: never listen before there is something to verify against (F26)."""
        return self._both()[0]

    def client_context(self) -> ssl.SSLContext:
        """For dialling. Raises NoIdentityYet."""
        return self._both()[1]

    def subscribe(self, callback: Callable[[], object]) -> Callable[[], None]:
        """Call `callback` after every change; it must not raise. Returns a function that ends the subscription."""
        self._subscribed += 1
        key = self._subscribed
        self._subscribers[key] = callback

        def unsubscribe() -> None:
            self._subscribers.pop(key, None)

        return unsubscribe

    async def wait_ready(self) -> None:
        """Until there are both an SVID and a bundle."""
        await self._ready.wait()

    def _both(self) -> tuple[ssl.SSLContext, ssl.SSLContext]:
        if self._contexts is None:
            raise NoIdentityYet("there is no certificate or no trust bundle yet")
        return self._contexts
