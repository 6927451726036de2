"""The CA as others see it: who gets which certificate, for how long, and who gets none."""

from __future__ import annotations

import math
import ssl
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from hypothesis import given
from hypothesis import strategies as st

from certs.bundle import pin
from certs.csr import make_csr
from certs.errors import InvalidCsr
from certs.spiffe_id import SpiffeId, TrustDomain
from certs.svid import X509Svid, new_private_key
from certs.verify import verify_chain
from control_plane.ca.authority import CertificateAuthority
from control_plane.ca.errors import CaError, CaExpired, IdentityMismatch
from control_plane.ca.slots import CaPolicy
from control_plane.model import Level
from tests.certs.forge import ec_key, odd_rsa_key, rsa_key, uri, usage
from tests.control_plane.support import open_ca

NOW = 1_800_000_000.25
YEAR = 365 * 24 * 3600
TD = TrustDomain.parse("mesh.local")
WEB = SpiffeId.for_workload(TD, "shop", "web")
ORDERS = SpiffeId.for_workload(TD, "shop", "orders")


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> CertificateAuthority:
    return open_ca(tmp_path_factory.mktemp("ca") / "data", NOW)


def pem(der: bytes) -> bytes:
    return x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM)


def test_an_issued_svid_is_legal_and_for_the_key_of_the_request(ca: CertificateAuthority) -> None:
    """Read back by those who will use it."""
    key = new_private_key()
    issued = ca.issue(WEB, make_csr(key, WEB), 3600, NOW)
    assert verify_chain(issued.chain_der, ca.bundle, NOW) == WEB
    svid = X509Svid.of(issued.chain_der, key, TD, NOW)
    assert (svid.not_before, svid.not_after, svid.serial) == (issued.not_before, issued.not_after, issued.serial)
    assert ca.anchor_der not in issued.chain_der


def test_the_root_says_what_spiffe_asks_of_a_signing_certificate(ca: CertificateAuthority) -> None:
    """SPIFFE X509-SVID sections 3.2 and 4; P-256, one year, path length 1."""
    root = x509.load_der_x509_certificate(ca.anchor_der)
    extensions = {type(one.value): one for one in root.extensions}
    assert extensions[x509.BasicConstraints].value == x509.BasicConstraints(ca=True, path_length=1)
    assert extensions[x509.BasicConstraints].critical
    assert extensions[x509.KeyUsage].value == usage("key_cert_sign", "crl_sign")
    assert extensions[x509.KeyUsage].critical
    assert extensions[x509.SubjectAlternativeName].value == x509.SubjectAlternativeName([uri("spiffe://mesh.local")])
    assert x509.SubjectKeyIdentifier in extensions
    assert x509.AuthorityKeyIdentifier in extensions
    key = root.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    assert isinstance(key.curve, ec.SECP256R1)
    name = root.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value
    assert str(name).startswith("hauberk root ")
    assert root.issuer == root.subject
    assert ca.anchor_not_after == math.ceil(NOW + YEAR)
    assert root.not_valid_before_utc == datetime.fromtimestamp(int(NOW) - 60, UTC)


def test_pin_and_bundle_speak_of_the_same_anchor(ca: CertificateAuthority) -> None:
    """What join tokens carry and what sidecars trust."""
    assert ca.bundle.anchors_der == (ca.anchor_der,)
    assert ca.pin == pin(ca.anchor_der)
    assert len(ca.pin) == 32


@pytest.mark.parametrize("purpose", ["sslclient", "sslserver"])
def test_openssl_agrees_that_an_issued_svid_is_legal(purpose: str, ca: CertificateAuthority, tmp_path: Path) -> None:
    """An independent check, strict, for both ends of a connection."""
    (tmp_path / "root.pem").write_bytes(ca.bundle.pem())
    leaf, intermediate = ca.issue(WEB, make_csr(ec_key(), None), 2, NOW).chain_der
    (tmp_path / "leaf.pem").write_bytes(pem(leaf))
    (tmp_path / "intermediate.pem").write_bytes(pem(intermediate))
    command = ["openssl", "verify", "-x509_strict", "-purpose", purpose, "-attime", str(int(NOW)), "-no-CApath"]
    run = subprocess.run(
        [*command, "-CAfile", "root.pem", "-untrusted", "intermediate.pem", "leaf.pem"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr


def test_two_issued_svids_make_a_tls_connection(ca: CertificateAuthority, tmp_path: Path) -> None:
    """TLS 1.3, both ends authenticated, in memory. The clock here is the real one, because OpenSSL's is."""
    now = datetime.now(UTC).timestamp()
    real = open_ca(tmp_path / "data", now)
    contexts = []
    for side, identity in ((ssl.PROTOCOL_TLS_CLIENT, WEB), (ssl.PROTOCOL_TLS_SERVER, ORDERS)):
        key = new_private_key()
        svid = X509Svid.of(real.issue(identity, make_csr(key, None), 60, now).chain_der, key, TD, now)
        (tmp_path / "pem").write_bytes(svid.key_pem() + svid.chain_pem())
        context = ssl.SSLContext(side)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_REQUIRED
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.load_cert_chain(tmp_path / "pem")
        context.load_verify_locations(cadata=real.bundle.pem().decode())
        contexts.append(context)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = contexts[0].wrap_bio(to_client, to_server)
    server = contexts[1].wrap_bio(to_server, to_client, server_side=True)
    for _ in range(3):
        for end in (client, server):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                pass
    for end, peer in ((client, ORDERS), (server, WEB)):
        der = end.getpeercert(binary_form=True)
        assert der
        chain = (der, *real.issue(WEB, make_csr(ec_key(), None), 60, now).chain_der[1:])
        assert verify_chain(chain, real.bundle, now) == peer


def test_g01_a_request_that_names_somebody_else_is_refused(ca: CertificateAuthority) -> None:
    """Row G01: the identity is the caller's; a mix-up is not papered over."""
    with pytest.raises(IdentityMismatch) as caught:
        ca.issue(WEB, make_csr(ec_key(), ORDERS), 60, NOW)
    assert caught.value.row == "G01"
    assert not isinstance(caught.value, InvalidCsr)


@pytest.mark.parametrize("named", [WEB, None])
def test_g01_the_identity_is_the_callers_whether_or_not_the_request_names_it(
    named: SpiffeId | None, ca: CertificateAuthority
) -> None:
    """Row G01, the way it should go."""
    issued = ca.issue(WEB, make_csr(ec_key(), named), 60, NOW)
    assert issued.spiffe_id == verify_chain(issued.chain_der, ca.bundle, NOW) == WEB


def test_f03_nobody_of_another_trust_domain_is_served(ca: CertificateAuthority) -> None:
    """Row F03, at the source."""
    stranger = SpiffeId.parse("spiffe://other.local/ns/shop/sa/web")
    for name in (None, stranger):
        with pytest.raises(IdentityMismatch):
            ca.issue(stranger, make_csr(ec_key(), name), 60, NOW)


def test_g05_the_control_planes_own_key_is_judged_like_any_other(ca: CertificateAuthority) -> None:
    """Row G05: no way around the request is a way around the check."""
    me = SpiffeId.for_control_plane(TD)
    assert ca.issue_for_key(me, ec_key().public_key(), 60, NOW).spiffe_id == me
    for weak in (odd_rsa_key(bits=1024), ec_key(ec.SECP521R1).public_key()):
        with pytest.raises(InvalidCsr):
            ca.issue_for_key(me, weak, 60, NOW)


@pytest.mark.parametrize(
    ("asked", "given_s"),
    [
        (3600.0, 3600),
        (2.0, 2),
        (1.0, 1),
        (0.0, 1),
        (-5.0, 1),
        (0.5, 1),
        (math.nan, 1),
        (-math.inf, 1),
        (math.inf, 24 * 3600),
        (10 * YEAR, 24 * 3600),
        (24 * 3600 + 0.01, 24 * 3600),
    ],
)
def test_g07_lifetimes_are_clamped(asked: float, given_s: int, ca: CertificateAuthority) -> None:
    """Row G07: from one second to one day; whole seconds, rounded up."""
    issued = ca.issue(WEB, make_csr(ec_key(), None), asked, NOW)
    assert issued.not_after == math.ceil(NOW + given_s)
    assert issued.not_before == math.floor(NOW) - 60
    assert not issued.is_cut


def test_g08_no_leaf_outlives_who_signs_it(ca: CertificateAuthority) -> None:
    """Row G08: cut to the intermediate's end, and said so; after that nothing is issued."""
    end = next(one.not_after for one in ca.authorities if one.level is Level.INTERMEDIATE)
    late = end - 10
    issued = ca.issue(WEB, make_csr(ec_key(), None), 3600, late)
    assert issued.not_after == end < ca.anchor_not_after
    assert issued.is_cut
    assert not ca.issue(WEB, make_csr(ec_key(), None), 10, late).is_cut
    for now in (end, end + 1):
        with pytest.raises(CaExpired):
            ca.issue(WEB, make_csr(ec_key(), None), 3600, now)


def test_g07_the_longest_life_of_a_leaf_can_be_set(tmp_path: Path) -> None:
    """A parameter of the policy; a day unless it says otherwise."""
    ca = open_ca(tmp_path / "data", NOW, policy=CaPolicy(leaf_lifetime_max_s=100.0))
    assert ca.issue(WEB, make_csr(ec_key(), None), 3600, NOW).not_after == math.ceil(NOW + 100)


def test_serials_are_128_random_bits(tmp_path: Path) -> None:
    """From the source of randomness given; positive whatever it says."""
    sizes: list[int] = []

    def zeros(size: int) -> bytes:
        sizes.append(size)
        return bytes(size)

    ca = open_ca(tmp_path / "data", NOW, token_bytes=zeros)
    sizes.clear()
    issued = ca.issue(WEB, make_csr(ec_key(), None), 60, NOW)
    assert (issued.serial, sizes) == (1, [16])


def test_serials_do_not_repeat(ca: CertificateAuthority) -> None:
    """Row J07 counts on it."""
    serials = {ca.issue(WEB, make_csr(ec_key(), None), 60, NOW).serial for _ in range(20)}
    assert len(serials) == 20


def test_nothing_secret_is_in_a_repr(ca: CertificateAuthority) -> None:
    """Objects get logged."""
    for thing in (ca, ca.authorities[0], ca._vault, ca.issue(WEB, make_csr(ec_key(), None), 60, NOW)):
        assert "PRIVATE" not in repr(thing)
        assert "private_key" not in repr(thing)
        assert "sealed" not in repr(thing)
    assert repr(ca).startswith("CertificateAuthority(mesh.local, root ")


# What a request may hold, good and bad, in any combination.
keys: list[Callable[[], Any]] = [
    ec_key,
    lambda: ec_key(ec.SECP384R1),
    lambda: ec_key(ec.SECP521R1),
    lambda: ec_key(ec.SECP256K1),
    lambda: rsa_key(1024),
    lambda: rsa_key(2048),
]
names = st.lists(
    st.sampled_from(
        [uri(str(WEB)), uri(str(ORDERS)), uri("https://x/"), x509.DNSName("web.shop"), x509.RFC822Name("a@b.c")]
    ),
    max_size=2,
)
wishes = st.lists(
    st.sampled_from(
        [
            x509.BasicConstraints(ca=True, path_length=None),
            usage("key_cert_sign", "crl_sign", "digital_signature"),
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]),
            x509.NameConstraints([uri("mesh.local")], None),
            x509.InhibitAnyPolicy(0),
        ]
    ),
    max_size=3,
    unique_by=type,
)
lifetimes = st.one_of(st.floats(), st.floats(0, 2 * YEAR), st.integers(-10, 10).map(float))


@given(
    st.sampled_from(keys),
    names,
    wishes,
    st.sampled_from([None, str(WEB), "web"]),
    lifetimes,
    st.one_of(st.none(), st.tuples(st.integers(0, 3000), st.integers(0, 255))),
)
def test_no_request_obtains_a_certificate_that_is_not_a_legal_svid_of_the_caller(
    ca: CertificateAuthority,
    make_key: Callable[[], Any],
    san: list[x509.GeneralName],
    wanted: list[x509.ExtensionType],
    common_name: str | None,
    lifetime_s: float,
    mutation: tuple[int, int] | None,
) -> None:
    """Rows G01 to G08 at once: refused with one of our errors, or what the template says and nothing else."""
    subject = [] if common_name is None else [x509.NameAttribute(NameOID.COMMON_NAME, common_name)]
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name(subject))
    if san:
        builder = builder.add_extension(x509.SubjectAlternativeName(san), critical=False)
    for wish in wanted:
        builder = builder.add_extension(wish, critical=True)
    csr = bytearray(builder.sign(make_key(), hashes.SHA256()).public_bytes(Encoding.DER))
    if mutation is not None:
        csr[mutation[0] % len(csr)] = mutation[1]
    try:
        issued = ca.issue(WEB, bytes(csr), lifetime_s, NOW)
    except (InvalidCsr, CaError):
        return
    assert verify_chain(issued.chain_der, ca.bundle, NOW) == WEB
    leaf = x509.load_der_x509_certificate(issued.chain_der[0])
    assert {type(one.value) for one in leaf.extensions} == {
        x509.BasicConstraints,
        x509.KeyUsage,
        x509.ExtendedKeyUsage,
        x509.SubjectAlternativeName,
        x509.SubjectKeyIdentifier,
        x509.AuthorityKeyIdentifier,
    }
    assert leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca is False
    assert leaf.extensions.get_extension_for_class(x509.KeyUsage).value == usage("digital_signature")
    assert leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).critical
    assert leaf.subject == x509.Name([])
    assert NOW + 1 <= issued.not_after <= math.ceil(NOW + 24 * 3600)
    assert san in ([], [uri(str(WEB))])
