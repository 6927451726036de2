"""The control plane's own certificate: under whom it stands, what is shown with it, and what is when nobody signs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from certs.errors import InvalidSvid
from certs.spiffe_id import SpiffeId
from certs.verify import CHAIN_BYTES_MAX, verify_chain
from control_plane.api.credentials import OwnCertificate, ServerCertificate
from control_plane.ca.authority import CertificateAuthority
from control_plane.ca.slots import CaPolicy, Readiness
from control_plane.model import Level, Phase
from control_plane.store.sqlite import SqliteStore
from tests.control_plane.support import NOW, TD, ca_and_store

ME = SpiffeId.for_control_plane(TD)
BY = "operator alice"


class Own:
    """A CA and the certificate it gave itself."""

    def __init__(self, ca: CertificateAuthority, store: SqliteStore, now: float = NOW) -> None:
        self.ca = ca
        self.store = store
        self.certificate = OwnCertificate(ca, store, ca._book._audit, TD, now)

    @property
    def current(self) -> ServerCertificate:
        return self.certificate.current

    @property
    def shown(self) -> list[bytes]:
        return [one.public_bytes(Encoding.DER) for one in x509.load_pem_x509_certificates(self.current.chain_pem)]

    def rotate_root(self, now: float) -> None:
        new = self.ca.prepare(Level.ROOT, now, BY)
        self.ca.activate(new.authority_id, now, BY, Readiness(missing={new.authority_id: ()}))


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Own]:
    with ca_and_store(tmp_path / "cp") as (ca, store):
        yield Own(ca, store)


def test_leaf_intermediate_and_anchor_are_shown(own: Own) -> None:
    """In that order; and the certificate is on record with who signed it."""
    assert len(own.shown) == 3
    assert own.shown[-1] == own.ca.anchor_der
    assert verify_chain(own.shown, own.ca.bundle, NOW) == ME
    (record,) = own.store.live_certificates(NOW)
    assert (record.workload_id, record.issuer_id) == (None, own.ca.issuer_id)


def test_an_anchor_that_is_prepared_is_shown_with_the_same_certificate(own: Own) -> None:
    """Who joins with a token of either finds it; nothing is issued for that."""
    before = own.shown
    own.ca.prepare(Level.ROOT, NOW + 1, BY)
    own.certificate.renew(NOW + 1)
    assert own.shown[:3] == before
    assert len(own.shown) == 4
    assert own.current.roots_pem == own.ca.bundle.pem()
    unchanged = own.current
    own.certificate.renew(NOW + 2)
    assert own.current is unchanged


def test_it_is_issued_anew_when_others_sign(own: Own) -> None:
    """A new intermediate, a new root: at the next tick, whatever its own age."""
    first = own.shown
    new = own.ca.prepare(Level.INTERMEDIATE, NOW + 1, BY)
    own.ca.activate(new.authority_id, NOW + 1, BY, Readiness())
    own.certificate.renew(NOW + 2)
    second = own.shown
    assert second[0] != first[0]
    assert second[1] == new.certificate_der
    own.rotate_root(NOW + 3)
    own.certificate.renew(NOW + 4)
    assert own.shown[2] == own.ca.anchor_der != second[2]
    assert second[2] in own.shown
    assert verify_chain(own.shown, own.ca.bundle, NOW + 4) == ME


def test_the_last_of_its_certificates_does_not_hold_an_old_root(own: Own) -> None:
    """Its old ones are in nobody's hands: a root is revoked although they have not expired."""
    (old,) = [one for one in own.ca.authorities if one.level is Level.ROOT]
    own.rotate_root(NOW + 1)
    assert own.ca.live(NOW + 1).count(old.authority_id) == 1
    own.certificate.renew(NOW + 2)
    assert own.ca.live(NOW + 2).count(old.authority_id) == 0
    assert own.ca.revoke(old.authority_id, NOW + 3, BY).phase is Phase.REVOKED


def test_f22_the_chain_shown_is_no_longer_than_is_read(own: Own) -> None:
    """With as many anchors as a bundle may hold."""
    for step in range(14):
        own.ca.prepare(Level.ROOT, NOW + step, BY, force=True)
    own.certificate.renew(NOW + 20)
    assert len(own.ca.bundle.anchors_der) == 15
    assert sum(map(len, own.shown)) <= CHAIN_BYTES_MAX
    assert own.shown[2] == own.ca.anchor_der


def test_a_renewal_that_fails_keeps_the_certificate_and_is_tried_again(
    own: Own, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Every ten seconds, not at every tick."""
    before = own.current
    late = NOW + 8 * 86_400
    own.certificate.renew(late)
    own.certificate.renew(late + 1)
    assert own.current is before
    assert caplog.text.count("own certificate not renewed") == 1
    own.certificate.renew(late + 11)
    assert caplog.text.count("own certificate not renewed") == 2


def test_while_nobody_signs_it_is_one_that_nobody_trusts(tmp_path: Path) -> None:
    """The ports are there. As soon as there is an intermediate it is a real one."""
    with ExitStack() as stack:
        ca, store = stack.enter_context(ca_and_store(tmp_path / "a", policy=CaPolicy(is_root_offline=True)))
        own = Own(ca, store)
        with pytest.raises(InvalidSvid):
            verify_chain(own.shown, ca.bundle, NOW)
        own.certificate.renew(NOW + 11)
        assert store.live_certificates(NOW) == []
    late = NOW + 2 * 365 * 86_400
    with ca_and_store(tmp_path / "b"):
        pass
    with ca_and_store(tmp_path / "b", late) as (ca, store):
        own = Own(ca, store, late)
        with pytest.raises(InvalidSvid):
            verify_chain(own.shown, ca.bundle, late)
        ca.recover(late + 1, BY)
        own.certificate.renew(late + 2)
        assert verify_chain(own.shown, ca.bundle, late + 2) == ME


def test_the_key_is_in_no_repr(own: Own) -> None:
    """Objects get logged."""
    assert "PRIVATE" not in repr(own.current)
