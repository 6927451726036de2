"""What must hold after every step of the simulated mesh. True time and everybody's state are known here, as nobody in
the mesh knows them.

1. No valid workload without a usable certificate: who is up, in its right mind about the time, not revoked, and has
   been able to reach the control plane for `RECOVERY_S`, holds a certificate that has not ended; and every certificate
   that has not ended and was not revoked is taken by everybody who is up and holds one as well.
2. Nobody is trusted who should not be: from `REVOKED_S` after a revocation nobody who could hear of it takes the
   certificates it is about; nobody, at any time, takes one that has ended.

Both ends of "taken" are the functions that sidecars ask: `certs.verify.verify_chain` and `Revocations.refusal`.
An answer is remembered for each certificate and each view of whom to trust, for as long as no certificate in them
begins or ends.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from certs.authority_id import authority_ids
from certs.bundle import TrustBundle
from certs.errors import CertsError
from certs.revocation import Revocations
from certs.spiffe_id import SpiffeId
from certs.verify import verify_chain

RECOVERY_S = 86_400.0
"""A minute and a half at the pace of `in_memory.SCALE`."""
REVOKED_S = 5.0
SKEW_S = 30.0
"""A clock that is off by more is not in its right mind."""


class Broken(AssertionError):
    """An invariant does not hold. Says which, for whom, when, and with which seed it happens again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """A certificate as it is shown: by its holder, or by who stole it."""

    chain_der: tuple[bytes, ...]
    identity: SpiffeId
    serial: int
    not_before: float
    not_after: float
    authorities: tuple[str, ...]

    @classmethod
    def of(cls, chain_der: tuple[bytes, ...], identity: SpiffeId, serial: int) -> Shown:
        leaf = x509.load_der_x509_certificate(chain_der[0])
        return cls(
            chain_der=chain_der,
            identity=identity,
            serial=serial,
            not_before=leaf.not_valid_before_utc.timestamp(),
            not_after=leaf.not_valid_after_utc.timestamp(),
            authorities=authority_ids(chain_der[1:]),
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class View:
    """Whom somebody trusts."""

    number: int
    """The same for equal ones; see `Verifier.view`."""
    bundle: TrustBundle
    revocations: Revocations


class Edges:
    """Between which times nothing changes: no certificate begins or ends."""

    def __init__(self) -> None:
        self._known: dict[bytes, tuple[float, float]] = {}

    def around(self, ders: Sequence[bytes], now: float) -> tuple[float, float]:
        """Of these certificates: the last edge until `now`, and the next one."""
        edges = sorted(edge for der in ders for edge in self._validity(der))
        at = bisect.bisect_right(edges, now)
        return (edges[at - 1] if at else float("-inf")), (edges[at] if at < len(edges) else float("inf"))

    def _validity(self, der: bytes) -> tuple[float, float]:
        held = self._known.get(der)
        if held is None:
            one = x509.load_der_x509_certificate(der)
            held = self._known[der] = (one.not_valid_before_utc.timestamp(), one.not_valid_after_utc.timestamp())
        return held


class RememberedPaths:
    """`certs.verify._check_path`, asked once by a whole mesh in one process: a path that was found is found again until
    a certificate begins or ends. What is refused is asked anew."""

    def __init__(self, check: Callable[[x509.Certificate, Sequence[bytes], TrustBundle, float], None]) -> None:
        self._check = check
        self._edges = Edges()
        self._found: dict[tuple[x509.Certificate, tuple[bytes, ...], tuple[bytes, ...]], tuple[float, float]] = {}

    def __call__(
        self, leaf: x509.Certificate, intermediates_der: Sequence[bytes], bundle: TrustBundle, now: float
    ) -> None:
        key = (leaf, tuple(intermediates_der), bundle.anchors_der)
        since, until = self._found.get(key, (float("inf"), float("-inf")))
        if not since <= now < until:
            self._check(leaf, intermediates_der, bundle, now)
            ders = (leaf.public_bytes(Encoding.DER), *intermediates_der, *bundle.anchors_der)
            self._found[key] = self._edges.around(ders, now)


class Verifier:
    """Asks, and remembers for as long as the answer cannot change."""

    def __init__(self) -> None:
        self._views: dict[tuple[tuple[bytes, ...], Revocations], View] = {}
        self._edges = Edges()
        self._known: dict[tuple[int, int], tuple[float, float, str]] = {}
        self._paths: dict[tuple[tuple[bytes, ...], tuple[bytes, ...]], tuple[float, float, str]] = {}
        self.asked = self.verified = 0

    def view(self, bundle: TrustBundle, revocations: Revocations) -> View:
        key = (bundle.anchors_der, revocations)
        if key not in self._views:
            self._views[key] = View(number=len(self._views), bundle=bundle, revocations=revocations)
        return self._views[key]

    def refusal(self, shown: Shown, view: View, now: float) -> str:
        """Why `view` does not take it at `now`; empty: it does."""
        self.asked += 1
        key = (shown.serial, view.number)
        held = self._known.get(key)
        if held is None or not held[0] <= now < held[1]:
            held = self._known[key] = self._judge(shown, view, now)
        return held[2]

    def until(self, shown: Shown, view: View) -> float:
        """When the last answer ends, by the clock that was asked."""
        return self._known[shown.serial, view.number][1]

    def _judge(self, shown: Shown, view: View, now: float) -> tuple[float, float, str]:
        """As a sidecar does at a handshake: the path, then whether anything of it is revoked."""
        key = (shown.chain_der, view.bundle.anchors_der)
        held = self._paths.get(key)
        if held is None or not held[0] <= now < held[1]:
            held = self._paths[key] = self._verify(shown, view, now)
        since, until, why = held
        if not why and (revoked := view.revocations.refusal(shown.identity, shown.serial, shown.authorities)):
            why = f"revoked by {revoked}"
        return since, until, why

    def _verify(self, shown: Shown, view: View, now: float) -> tuple[float, float, str]:
        self.verified += 1
        why = ""
        try:
            verify_chain(shown.chain_der, view.bundle, now)
        except CertsError as error:
            why = str(error)
        return *self._edges.around((*shown.chain_der, *view.bundle.anchors_der), now), why
