"""sidecar.net.trust: a pure function, so no sockets; certificates of the forge."""

from __future__ import annotations

import hashlib
from functools import cache

import pytest
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st

from certs.bundle import TrustBundle
from certs.errors import InvalidSvid
from certs.revocation import NOTHING_REVOKED, Revocations
from sidecar.net.errors import PeerRefused, PeerRevoked, TlsError
from sidecar.net.tls import PeerCertificate, authority_ids
from sidecar.net.trust import has_lost_nothing, why_not, why_not_ours
from tests.certs.forge import NOW, TD, WEB, Authority, ec_key, make_ca, make_leaf, uri
from tests.sidecar.mesh import ORDERS, unchecked_svid


@cache
def roots() -> tuple[Authority, ...]:
    return tuple(make_ca(f"root{number}", names=(uri(TD.uri),)) for number in range(3))


@cache
def under(number: int) -> tuple[bytes, ...]:
    """A chain to the root of that number."""
    intermediate = make_ca(f"i{number}", issuer=roots()[number])
    return make_leaf(intermediate), intermediate.der


def peer(number: int) -> PeerCertificate:
    der, *issuers = under(number)
    return PeerCertificate(
        identity=WEB,
        der=der,
        not_after=NOW + 60,
        sha256_hex=hashlib.sha256(der).hexdigest(),
        serial=x509.load_der_x509_certificate(der).serial_number,
        issuers_der=tuple(issuers),
        authority_ids=authority_ids(tuple(issuers)),
    )


def bundle(*numbers: int) -> TrustBundle:
    return TrustBundle.of(TD, [roots()[number].der for number in numbers])


subsets = st.sets(st.integers(0, 2), min_size=1).map(lambda numbers: bundle(*sorted(numbers)))


@given(number=st.integers(0, 2), before=subsets, now_in_force=subsets, revoked=st.sets(st.integers(0, 2)))
def test_what_was_verified_before_spares_work_and_changes_no_answer(
    number: int, before: TrustBundle, now_in_force: TrustBundle, revoked: set[int]
) -> None:
    """For every chain that was good under `before`: with and without remembering that, the answer is the same."""
    revocations = Revocations(authorities=frozenset(peer(one).authority_ids[0] for one in revoked))
    if why_not(peer(number), before, NOTHING_REVOKED, NOW) is not None:
        return
    plain = why_not(peer(number), now_in_force, revocations, NOW)
    remembered = why_not(peer(number), now_in_force, revocations, NOW, before)
    assert (type(plain), str(plain)) == (type(remembered), str(remembered))
    assert (plain is None) == (roots()[number].der in now_in_force.anchors_der and number not in revoked)


@pytest.mark.parametrize(
    ("revocations", "what"),
    [
        (Revocations(identities=frozenset({WEB})), "identity"),
        (Revocations(serials=frozenset({4711})), "serial"),
        (Revocations(authorities=frozenset(peer(0).authority_ids)), "authority"),
    ],
    ids=["identity", "serial", "authority"],
)
def test_f15_whatever_is_revoked_is_refused_although_the_chain_verifies(revocations: Revocations, what: str) -> None:
    """With the row, and what of it is revoked, for the log."""
    error = why_not(peer(0), bundle(0), revocations, NOW)
    assert isinstance(error, PeerRevoked)
    assert (error.row, error.reason, error.what) == ("F15", "peer_revoked", what)
    assert what in str(error)
    assert why_not(peer(1), bundle(1), Revocations(authorities=revocations.authorities), NOW) is None


def test_f15_revocations_of_others_and_taint_refuse_nobody() -> None:
    """Taint asks whoever holds the certificate to renew; others go on trusting it."""
    others = Revocations(
        identities=frozenset({ORDERS}),
        serials=frozenset({1}),
        authorities=frozenset(peer(1).authority_ids),
        tainted_authorities=frozenset(peer(0).authority_ids),
    )
    assert why_not(peer(0), bundle(0), others, NOW) is None


def test_f15_a_certificate_that_has_ended_meanwhile_is_refused_when_it_is_verified_again() -> None:
    """Time is the sweep's business, but whoever is verified again is verified whole."""
    error = why_not(peer(0), bundle(0, 1), NOTHING_REVOKED, NOW + 3600, bundle(0, 1, 2))
    assert isinstance(error, PeerRefused)
    assert error.row == "F01"


def test_a_bundle_of_another_trust_domain_keeps_nobody() -> None:
    """Not even with the same anchors."""
    other = TrustBundle(trust_domain=type(TD).parse("other.example"), anchors_der=bundle(0).anchors_der)
    assert has_lost_nothing(bundle(0), bundle(1, 0))
    assert not has_lost_nothing(bundle(0, 1), bundle(0))
    assert not has_lost_nothing(bundle(0), other)


@pytest.mark.parametrize(
    ("revocations", "anchors", "row"),
    [
        (NOTHING_REVOKED, (0,), None),
        (Revocations(authorities=frozenset(peer(0).authority_ids)), (0,), "F15"),
        (Revocations(serials=frozenset({4711})), (0,), "F15"),
        (NOTHING_REVOKED, (1,), "F02"),
    ],
    ids=["nothing", "authority", "serial", "anchor dropped"],
)
def test_f15_our_own_certificate_is_judged_as_others_judge_it(
    revocations: Revocations, anchors: tuple[int, ...], row: str | None
) -> None:
    """By what is revoked, and by whether its chain leads anywhere."""
    own = unchecked_svid(WEB, under(0), ec_key(), not_before=NOW - 60, not_after=NOW + 60)
    for before in (None, bundle(0)):
        error: TlsError | None = why_not_ours(own, bundle(*anchors), revocations, NOW, before)
        assert (error.row if error else None) == row


def test_identical_chains_are_kept_once() -> None:
    """However many connections there are; and what is no certificate is refused and not remembered."""
    first, second = peer(0), peer(0)
    assert first.authority_ids is second.authority_ids
    with pytest.raises(InvalidSvid):
        authority_ids((b"nonsense",))
