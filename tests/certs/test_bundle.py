"""Trust bundles: what may be an anchor."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import pytest
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st

from certs.bundle import TrustBundle, pin
from certs.errors import InvalidBundle
from certs.spiffe_id import TrustDomain
from tests.certs.forge import TD, make_ca, make_leaf, odd_rsa_key, root, uri, usage

NAME_CONSTRAINTS = x509.NameConstraints([uri("mesh.local")], None)

REFUSED: dict[str, tuple[str, str, Callable[[], list[bytes]]]] = {
    "f26 none": ("F26", "at least one", list),
    "f06 a leaf": ("F06", "CA:TRUE", lambda: [make_leaf(root())]),
    "f06 a good one and a leaf": ("F06", "CA:TRUE", lambda: [root().der, make_leaf(root())]),
    "f07 no keyCertSign": ("F07", "keyCertSign", lambda: [make_ca(key_usage=usage("digital_signature")).der]),
    "f03 another trust domain's": ("F03", "names itself", lambda: [make_ca(names=[uri("spiffe://other.local")]).der]),
    "f03 one with a path": ("F03", "names itself", lambda: [make_ca(names=[uri("spiffe://mesh.local/ca")]).der]),
    "f09 name constraints": ("F09", "name constraints", lambda: [make_ca(extra=[(NAME_CONSTRAINTS, True)]).der]),
    "f10 garbage": ("F10", "not a certificate", lambda: [b"garbage"]),
    "f10 bytes after it": ("F10", "not a certificate", lambda: [root().der + b"\0"]),
    "f22 seventeen": ("F22", "at most 16", lambda: [make_ca(f"root{i}").der for i in range(17)]),
    "f23 a weak key": ("F23", "1024 bits", lambda: [make_ca(key=odd_rsa_key(bits=1024)).der]),
}


@pytest.mark.parametrize(("row", "why", "make"), REFUSED.values(), ids=REFUSED.keys())
def test_f_what_cannot_be_an_anchor_is_refused(row: str, why: str, make: Callable[[], list[bytes]]) -> None:
    """SPIFFE X509-SVID sections 3.2 and 4; one bad anchor refuses the whole bundle."""
    with pytest.raises(InvalidBundle, match=why) as caught:
        TrustBundle.of(TD, make())
    assert caught.value.row == row


def test_a_bundle_holds_each_anchor_once_in_the_order_given() -> None:
    """Order matters to people, duplicates to nobody."""
    other = make_ca()
    bundle = TrustBundle.of(TD, [root().der, other.der, root().der])
    assert bundle.anchors_der == (root().der, other.der)
    assert bundle.trust_domain == TD
    assert bundle == TrustBundle.of(TrustDomain.parse("mesh.local"), iter([root().der, other.der]))


def test_the_pem_of_a_bundle_holds_all_its_anchors() -> None:
    """What `SSLContext.load_verify_locations(cadata=...)` is given."""
    other = make_ca()
    certificates = x509.load_pem_x509_certificates(TrustBundle.of(TD, [root().der, other.der]).pem())
    assert certificates == [root().certificate, other.certificate]


def test_a_pin_is_the_sha256_of_the_der() -> None:
    """As `openssl x509 -outform DER | sha256sum` prints it."""
    assert pin(root().der) == hashlib.sha256(root().der).digest()
    assert pin(root().der).hex()[:16] in repr(TrustBundle.of(TD, [root().der]))


@given(st.integers(0, 10_000), st.integers(0, 7))
def test_a_mutated_anchor_raises_nothing_but_invalid_bundle(index: int, bit: int) -> None:
    """An anchor's own signature is not what makes it trusted, so some mutations pass; none may crash."""
    data = bytearray(root().der)
    data[index % len(data)] ^= 1 << bit
    try:
        bundle = TrustBundle.of(TD, [bytes(data)])
    except InvalidBundle:
        return
    assert bundle.anchors_der == (bytes(data),)
