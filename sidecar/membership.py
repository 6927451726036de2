"""A sidecar's membership of the mesh: how it gets in, stays in, and comes back, whatever happened meanwhile.

Theory of operation
-------------------
`enter` gives the first certificate, from the first of these that there is:

    the cache     of an earlier process, if the configuration wants one and its certificate has not ended
    the node key  in the state directory: rejoin
    the token     join, with a new node key, which is kept before the token is spent

`run` then keeps it: the rotator renews, tries what it got, and rejoins with the node key once the certificate has
ended. If the control plane will not have this node back, a new token is looked for where the old one was: an operator's
way out that needs no restart. What has to survive us is written whenever it changes, at most every `KEEP_EVERY_S`.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from dataclasses import replace

import trio

from certs.bundle import TrustBundle
from certs.spiffe_id import TrustDomain
from certs.svid import X509Svid
from protos.hauberk.v1 import discovery_pb2, identity_pb2
from sidecar.config import Config
from sidecar.control.watcher import ControlLink
from sidecar.errors import SidecarError
from sidecar.identity.bootstrap import JoinToken, join, read_token
from sidecar.identity.errors import (
    ControlPlaneUnreachable,
    IssuedRefused,
    JoinError,
    JoinRefused,
    StateError,
    TokenError,
    WrongPin,
)
from sidecar.identity.join_port import Joined
from sidecar.identity.rejoin import rejoin
from sidecar.identity.rotator import Rotator
from sidecar.identity.skew import ClockSkew
from sidecar.identity.source import IdentitySource
from sidecar.identity.state import Node, StateDir, new_node
from sidecar.net.backoff import Backoff
from sidecar.telemetry.metrics import Metrics

log = logging.getLogger(__name__)

CACHE_AFTER_S = 1.0
"""How long the control plane may take before the policy of the cache is used (row R02: serving within 2 s)."""
KEEP_EVERY_S = 2.0
RETRY_MAX_S = 3.0
"""Ready within 5 s of the control plane's arrival (row R01)."""
STDIN = "-"


class Membership:
    """One per process."""

    def __init__(
        self, config: Config, source: IdentitySource, *, clock: Callable[[], float], rng: random.Random
    ) -> None:
        """Opens the state directory, or reads the token. Raises StateError, TokenError."""
        self._config = config
        self._source = source
        self._clock = clock
        self._rng = rng
        self._state = StateDir(config.state_dir) if config.state_dir else None
        self._node: Node | None = None
        self._token: JoinToken | None = None
        try:
            self._node = self._state.load(config) if self._state else None
            # Standard input is read in any case, so that a token on it does not reach the app.
            if self._node is None or self._node.spiffe_id is None or config.join_token_file == STDIN:
                self._token = self._token_at_start()
        except BaseException:
            self.close()
            raise
        self._spent: set[str] = set()
        self._tried: tuple[str, Node] | None = None
        """Token and node key of a join whose end nobody knows."""
        self._received_at: float | None = None
        self._restored: bytes | None = None
        self._serves_cache = False
        self._sequence = 0
        self._snapshot: discovery_pb2.Snapshot | None = None
        self._changed = trio.Event()
        self._failed_to_keep = False
        self._link: ControlLink | None = None
        self._rotator: Rotator | None = None
        self.skew = ClockSkew()
        self.node_expires_at = 0.0

    def __repr__(self) -> str:
        return f"<Membership of {self._config.service}.{self._config.namespace}, {self._rotator!r}>"

    def close(self) -> None:
        if self._state is not None:
            self._state.close()

    # Getting in ---------------------------------------------------------------------------------------------------

    async def enter(self) -> None:
        """Until the source has a certificate. Raises what waiting does not help: JoinRefused, WrongPin, ..."""
        if not self._from_cache():
            found = await self._first()
            self._received_at = self._clock()
            self._source.set(svid=found.svid, bundle=found.bundle)
        self._keep()

    async def _first(self) -> Joined:
        backoff = Backoff(self._rng, max_s=RETRY_MAX_S)
        while True:
            try:
                return await self._come_in()
            except (JoinRefused, WrongPin):
                raise
            except ControlPlaneUnreachable as error:
                delay_s = backoff.next_delay_s()
                facts = {"error": str(error), "retry_in_s": delay_s}
                log.warning("cannot reach the control plane, trying again", extra=facts)
            await trio.sleep(delay_s)

    async def _come_in(self) -> Joined:
        """With the node key if it ever had a certificate, else (or if that is refused) with a token."""
        node = self._node
        if node is None or node.spiffe_id is None:
            if self._token is not None:
                return await self._join(self._token)
            assert node is not None  # else there is a token, or there was an error at the start
        try:
            return self._entered(node, await rejoin(self._config, node, self._clock, skew=self.skew))
        except (JoinRefused, WrongPin) as refusal:
            token = self._fresh_token()
            if token is None:
                raise
            log.warning("joining anew with a token", extra={"error": str(refusal)})
            return await self._join(token)

    async def _join(self, token: JoinToken) -> Joined:
        """Once. If it is not known whether an earlier try spent the token, the node key of that try says."""
        tried = self._tried if self._tried is not None and self._tried[0] == token.token_id else None
        unsure = self._node if self._node is not None and self._node.spiffe_id is None else None
        before = tried[1] if tried else unsure
        node = before or new_node(token.join_port, ())

        def spending(anchor: bytes) -> None:
            nonlocal node
            node = replace(node, join_port=token.join_port, anchors_der=(anchor,))
            self._write_node(node, with_key=True)
            self._tried = token.token_id, node

        try:
            found = await join(
                self._config, token, self._clock, node_key=node.key, skew=self.skew, before_spending=spending
            )
        except JoinRefused:
            self._spent.add(token.token_id)
            if before is None:
                raise
            try:
                found = await rejoin(self._config, node, self._clock, skew=self.skew)
            except JoinError:
                pass
            else:
                return self._entered(node, found)
            raise
        self._spent.add(token.token_id)
        return self._entered(node, found)

    def _entered(self, node: Node, found: Joined) -> Joined:
        """Raises IssuedRefused if we have become somebody else."""
        self._tried = None
        self._node = replace(node, anchors_der=found.bundle.anchors_der, spiffe_id=found.svid.spiffe_id)
        self.node_expires_at = found.node_expires_at
        self._write_node(self._node)
        held = self._source.svid
        if held is not None and held.spiffe_id != found.svid.spiffe_id:
            raise IssuedRefused(
                f"the new token is for {found.svid.spiffe_id}, this sidecar is {held.spiffe_id}; start it again"
            )
        return found

    def _token_at_start(self) -> JoinToken | None:
        """Raises TokenError if it is the only way in."""
        try:
            return read_token(self._config.join_token_file)
        except TokenError:
            if self._node is None:
                raise
            return None

    def _fresh_token(self) -> JoinToken | None:
        """One that was not used yet, perhaps put there while we run."""
        token = self._token
        if self._config.join_token_file not in ("", STDIN):
            try:
                token = read_token(self._config.join_token_file)
            except TokenError:
                token = None
        return token if token is not None and token.token_id not in self._spent else None

    # Staying in ---------------------------------------------------------------------------------------------------

    def attach(self, link: ControlLink) -> None:
        """What `run` renews through."""
        self._link = link
        self._rotator = Rotator(
            source=self._source,
            renew=self._renew,
            prove=link.confirm,
            rejoin=self._rejoin,
            clock=self._clock,
            rng=self._rng,
            received_at=self._received_at,
        )

    async def run(self) -> None:
        """Until cancelled, after `attach`."""
        assert self._rotator is not None
        unsubscribe = self._source.subscribe(self._changed_now)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._rotator.run)
                nursery.start_soon(self._restore)
                while True:
                    await self._changed.wait()
                    self._changed = trio.Event()
                    self._keep()
                    await trio.sleep(KEEP_EVERY_S)
        finally:
            unsubscribe()
            self._keep()

    def lifetime_wanted(self, lifetime_s: int) -> None:
        """What a snapshot says certificates should live."""
        if self._rotator is not None:
            self._rotator.lifetime_wanted(lifetime_s)

    def applied(self, message: discovery_pb2.Snapshot) -> None:
        """A snapshot is in force."""
        if self._config.cache:
            self._snapshot = message
            self._changed.set()

    async def _renew(self, csr_der: bytes) -> identity_pb2.SvidResponse:
        assert self._link is not None
        before = self._clock()
        response = await self._link.renew(csr_der)
        self.skew.heard(response.server_time, before=before, after=self._clock())
        return response

    async def _rejoin(self) -> tuple[X509Svid, TrustBundle]:
        assert self._node is not None
        if self._source.bundle is not None and self._node.spiffe_id is not None:
            self._node = replace(self._node, anchors_der=self._source.bundle.anchors_der)
        found = await self._come_in()
        return found.svid, found.bundle

    # What survives us ---------------------------------------------------------------------------------------------

    def _changed_now(self) -> None:
        self._changed.set()

    def _keep(self) -> None:
        """Write what has changed. A disk that is full costs the next start something, and traffic nothing (R31)."""
        node, svid, bundle = self._node, self._source.svid, self._source.bundle
        if node is None or svid is None or bundle is None:
            return
        try:
            if node.anchors_der != bundle.anchors_der and node.spiffe_id is not None:
                self._node = replace(node, anchors_der=bundle.anchors_der)
                if self._state is not None:
                    self._state.save(self._config, self._node)
            if self._state is not None and self._config.cache:
                self._keep_cache(self._state, node, svid, bundle)
            self._failed_to_keep = False
        except OSError as error:
            if not self._failed_to_keep:
                log.warning("state_dir cannot be written; a restart may need a token", extra={"error": str(error)})
            self._failed_to_keep = True

    def _keep_cache(self, state: StateDir, node: Node, svid: X509Svid, bundle: TrustBundle) -> None:
        from sidecar.identity.cache import CACHE_FILE, Cached, seal  # only for those who want one

        self._sequence += 1
        cached = Cached(
            svid=svid,
            bundle=bundle,
            snapshot=self._snapshot.SerializeToString() if self._snapshot is not None else self._restored or b"",
            received_at=(self._rotator.received_at if self._rotator else 0.0) or self._clock(),
            saved_at=self._clock(),
            sequence=self._sequence,
        )
        state.write(CACHE_FILE, seal(cached, node.key), durable=False)

    def _write_node(self, node: Node, *, with_key: bool = False) -> None:
        """Raises StateError: what is to come must not be done if it cannot be kept."""
        if self._state is None:
            return
        try:
            if with_key:
                self._state.save_key(node)
            self._state.save(self._config, node)
        except OSError as error:
            raise StateError(f"state_dir {self._state.path}: cannot be written: {error.strerror}") from None

    def _from_cache(self) -> bool:
        """Take the certificate of the process before, if it is ours and has not ended."""
        if self._state is None or not self._config.cache or self._node is None or self._node.spiffe_id is None:
            return False
        from sidecar.identity.cache import CACHE_FILE, CACHE_OCTETS_MAX, CacheRefused, unseal

        try:
            content = self._state.read(CACHE_FILE, CACHE_OCTETS_MAX)
            if content is None:
                return False
            cached = unseal(content, self._node.key, TrustDomain.parse(self._config.trust_domain), self._clock())
            if cached.svid.spiffe_id != self._node.spiffe_id:
                raise CacheRefused(f"it is {cached.svid.spiffe_id}'s")
            self._source.set(svid=cached.svid, bundle=cached.bundle)
        except (CacheRefused, SidecarError, OSError, ValueError) as refusal:
            log.warning("the cache in state_dir is ignored", extra={"error": str(refusal)})
            return False
        self._received_at, self._sequence = cached.received_at, cached.sequence
        self._restored = cached.snapshot or None
        log.info("certificate taken from the cache", extra={"not_after": cached.svid.not_after})
        return True

    async def _restore(self) -> None:
        """Serve by the policy of the cache if the control plane has not said anything yet."""
        if self._restored is None:
            return
        await trio.sleep(CACHE_AFTER_S)
        assert self._link is not None
        message = discovery_pb2.Snapshot.FromString(self._restored)
        if self._link.subscription.current is None and await self._link.restore(message):
            self._serves_cache = True
            facts = {"epoch": message.epoch, "version": message.version}
            log.warning("the control plane is away; serving by the policy of the cache", extra=facts)

    # For status and metrics ---------------------------------------------------------------------------------------

    @property
    def is_stale(self) -> bool:
        """What is served comes from the cache, and the control plane has not been heard of since the start."""
        return self._serves_cache and self._link is not None and not self._link.was_connected

    def missing(self) -> list[str]:
        """What a member must have and we have not, one word each."""
        svid = self._source.svid
        if svid is None:
            return ["certificate"]
        if not svid.not_before <= self._clock() < svid.not_after:
            return ["certificate_valid"]
        return ["certificate_stale"] if self._rotator is not None and self._rotator.is_stale else []

    def measure(self, metrics: Metrics) -> None:
        rotator = self._rotator
        metrics.membership(
            is_late=rotator is not None and rotator.is_late,
            is_stale=self.is_stale,
            failures=rotator.failures_total if rotator else 0,
            clock_skew_s=self.skew.skew_s,
        )

    def status(self) -> dict[str, object]:
        svid, rotator = self._source.svid, self._rotator
        return {
            "certificate_not_after": svid.not_after if svid else None,
            "certificate_serial": f"{svid.serial:x}" if svid else None,
            "certificate_late": bool(rotator and rotator.is_late),
            "renewals": rotator.renewals if rotator else 0,
            "rejoins": rotator.rejoins if rotator else 0,
            "renewal_error": rotator.last_error if rotator else "",
            "node_id": self._node.node_id if self._node else "",
            "node_expires_at": self.node_expires_at or None,
            "stale": self.is_stale,
            "clock_skew_s": self.skew.skew_s,
        }
