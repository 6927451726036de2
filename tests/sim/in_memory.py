"""What stands in the place of sockets and of patience while a mesh is simulated: all that is replaced, in one list."""

from __future__ import annotations

import contextlib
import gc
import math
import random
from collections.abc import Callable, Generator, Iterator
from functools import lru_cache, partial

import pytest

from certs import verify
from certs.bundle import TrustBundle
from certs.der import load_certificate
from certs.svid import X509Svid
from control_plane.ca.slots import CaPolicy
from protos.hauberk.v1 import discovery_pb2
from sidecar.net.backoff import Backoff
from sidecar.rules.decode import decoding
from sidecar.rules.snapshot import Snapshot
from tests.sim.clock import JumpClock
from tests.sim.faults import DAY_S
from tests.sim.invariants import RememberedPaths
from tests.sim.network import Contexts, Network

SCALE = 960
"""Certificates live for forty days instead of an hour, so whoever waits and tries again does so 960 times slower."""
LEAF_S = 40 * DAY_S
SERVER_S = 10 * DAY_S
"""Of the control plane's own certificate; in life that lives longer than a leaf."""
SLICE_S = 2 * DAY_S
HEARTBEAT_S = 8 * DAY_S
READ_MAX = 1_024
"""Snapshots."""


@contextlib.contextmanager
def collected_seldom() -> Iterator[None]:
    """A mesh is hundreds of thousands of objects that stay; to look through them all the time is a tenth of a run."""
    before = gc.get_threshold()
    gc.set_threshold(200_000, 50, 1_000)
    try:
        yield
    finally:
        gc.set_threshold(*before)


class RememberedDecoding:
    """`sidecar.rules.decode.decoding`, which asks nobody but the message: what one message says is read once by a whole
    mesh in one process."""

    def __init__(self, decode: Callable[[discovery_pb2.Snapshot], Generator[None, None, Snapshot]]) -> None:
        self._decode = decode
        self._read: dict[bytes, Snapshot] = {}

    def __call__(self, message: discovery_pb2.Snapshot) -> Generator[None, None, Snapshot]:
        key = message.SerializeToString(deterministic=True)
        if key not in self._read:
            found = yield from self._decode(message)
            while len(self._read) >= READ_MAX:
                del self._read[next(iter(self._read))]
            self._read[key] = found
        return self._read[key]


@contextlib.contextmanager
def in_memory(network: Network, clock: JumpClock) -> Iterator[None]:
    """While the block runs, sidecars talk through `network`, and wait in longer slices."""

    def contexts(svid: X509Svid | None, bundle: TrustBundle) -> Contexts:
        return Contexts(svid=svid, bundle=bundle)

    replaced: dict[str, object] = {
        "trio.sleep": clock.pause,
        "certs.verify._check_path": RememberedPaths(verify._check_path),
        "certs.verify.load_certificate": lru_cache(maxsize=4_096)(load_certificate),
        "sidecar.control.identity_calls.open_channel": network.open_channel,
        "sidecar.control.identity_calls.client_context": contexts,
        "sidecar.control.watcher.client_context": contexts,
        "sidecar.control.watcher.HEARTBEAT_S": HEARTBEAT_S,
        "sidecar.identity.join_port.open_channel": network.open_channel,
        "sidecar.identity.join_port.open_unverified_channel": network.open_unverified_channel,
        "sidecar.identity.join_port.client_context": contexts,
        "sidecar.identity.bootstrap.client_context": contexts,
        "sidecar.identity.bootstrap._find_anchor": network.find_anchor,
        "sidecar.identity.source.client_context": contexts,
        "sidecar.identity.source.server_context": contexts,
        "sidecar.identity.rotator.SLICE_S": SLICE_S,
        "sidecar.identity.rotator.Backoff": slow_backoff,
        "sidecar.membership.Backoff": slow_backoff,
        "sidecar.control.watcher.Backoff": slow_backoff,
        "sidecar.net.slices.SLICE_S": math.inf,  # of real time, which no seed can say again
        "sidecar.control.subscription.decoding": RememberedDecoding(decoding),
        "sidecar.rules.decode.LIFETIME_S_MAX": LEAF_S,
        "control_plane.api.credentials.LIFETIME_S": SERVER_S,
        "control_plane.app.FORGET_EVERY_S": DAY_S,
        "control_plane.app.JUMPED_S": 2 * DAY_S,
        "control_plane.app.DOUBTED_S": 4 * DAY_S,
        "control_plane.config.CERTIFICATE_LIFETIME_S_MAX": LEAF_S,
        "control_plane.config_ca.CaPolicy": partial(CaPolicy, leaf_lifetime_max_s=LEAF_S),
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in replaced.items():
            patch.setattr(name, value)
        yield


def slow_backoff(rng: random.Random, *, base_s: float = 0.1, max_s: float = 10.0, jitter: float = 0.1) -> Backoff:
    return Backoff(rng, base_s=base_s * SCALE, max_s=max_s * SCALE, jitter=jitter)
