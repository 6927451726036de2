"""What a legal SVID is: the accept and reject tables of the catalogue's section F, and mutated certificates."""

from __future__ import annotations

import math
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import example, given
from hypothesis import strategies as st

from certs.bundle import TrustBundle
from certs.errors import InvalidSvid
from certs.spiffe_id import SpiffeId, TrustDomain
from certs.verify import check_leaf, verify_chain
from tests.certs.forge import (
    NOW,
    TD,
    WEB,
    Authority,
    ec_key,
    make_ca,
    make_leaf,
    odd_rsa_key,
    raw_names,
    root,
    rsa_key,
    uri,
    usage,
)

ORDERS = "spiffe://mesh.local/ns/shop/sa/orders"
SHA256_WITH_RSA = bytes.fromhex("2a864886f70d01010b")
SHA1_WITH_RSA = bytes.fromhex("2a864886f70d010105")


def leaf(**changes: object) -> bytes:
    return make_leaf(root(), **changes)  # type: ignore[arg-type]


def bundle(*authorities: Authority) -> TrustBundle:
    return TrustBundle.of(TD, [authority.der for authority in authorities or (root(),)])


def unknown(*, critical: bool) -> tuple[x509.UnrecognizedExtension, bool]:
    return x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.99999.1"), b"\x05\x00"), critical


def _with_exponent_one() -> bytes:
    der = leaf(key=odd_rsa_key(exponent=3))
    assert der.count(b"\x02\x01\x03\xa3") == 1  # the exponent ends the public key; the extensions follow
    return der.replace(b"\x02\x01\x03\xa3", b"\x02\x01\x01\xa3")


def _with_curve(oid: str) -> bytes:
    p256 = bytes.fromhex("2a8648ce3d030107")
    der = leaf()
    assert der.count(p256) == 1
    return der.replace(p256, bytes.fromhex(oid))


def _signed_with_sha1() -> bytes:
    """`cryptography` does not sign with SHA-1 any more, so the algorithm's name is exchanged afterwards."""
    issuer = x509.CertificateBuilder().subject_name(x509.Name([])).issuer_name(x509.Name([]))
    genuine = x509.load_der_x509_certificate(leaf())
    builder = issuer.public_key(genuine.public_key()).serial_number(1)
    builder = builder.not_valid_before(genuine.not_valid_before_utc).not_valid_after(genuine.not_valid_after_utc)
    for extension in genuine.extensions:
        builder = builder.add_extension(extension.value, extension.critical)
    der = builder.sign(rsa_key(2048), hashes.SHA256()).public_bytes(Encoding.DER)
    assert der.count(SHA256_WITH_RSA) == 2
    return der.replace(SHA256_WITH_RSA, SHA1_WITH_RSA)


ACCEPTED: dict[str, Callable[[], bytes]] = {
    "as the mesh issues it": leaf,
    "P-384": lambda: leaf(key=ec_key(ec.SECP384R1).public_key()),
    "RSA 2048": lambda: leaf(key=rsa_key(2048).public_key()),
    "RSA 4096": lambda: leaf(key=odd_rsa_key(bits=4096)),
    "signed with SHA-384": lambda: leaf(digest=hashes.SHA384()),
    "no basic constraints (not a CA by default)": lambda: leaf(constraints=None),
    "key encipherment too": lambda: leaf(key_usage=usage("digital_signature", "key_encipherment", "key_agreement")),
    "a DNS name beside the ID": lambda: leaf(names=[uri(str(WEB)), x509.DNSName("web.shop")]),
    "another purpose beside the two": lambda: leaf(
        purposes=[
            ExtendedKeyUsageOID.SERVER_AUTH,
            ExtendedKeyUsageOID.CLIENT_AUTH,
            ExtendedKeyUsageOID.CODE_SIGNING,
        ]
    ),
    "an unknown extension that is not critical": lambda: leaf(extra=[unknown(critical=False)]),
    "a serial number of 20 octets": lambda: leaf(serial=2**159 - 1),
}

# id: (row, part of the message, certificate)
REFUSED: dict[str, tuple[str, str, Callable[[], bytes]]] = {
    "F01 expired": ("F01", "expired at 2027-01-15T07:59:59Z", lambda: leaf(not_after=NOW - 1)),
    "F01 not yet valid": ("F01", "not valid before", lambda: leaf(not_before=NOW + 1)),
    "F03 another trust domain": (
        "F03",
        "not of the trust domain mesh.local",
        lambda: leaf(names=[uri("spiffe://other.local/ns/shop/sa/web")]),
    ),
    "F03 a trust domain that only begins alike": (
        "F03",
        "not of the trust domain",
        lambda: leaf(names=[uri("spiffe://mesh.local.evil/ns/shop/sa/web")]),
    ),
    "F04 two URIs": ("F04", "2 URIs", lambda: leaf(names=[uri(str(WEB)), uri(ORDERS)])),
    "F04 the same URI twice": ("F04", "2 URIs", lambda: leaf(names=[uri(str(WEB)), uri(str(WEB))])),
    "F04 an ID and a web address": (
        "F04",
        "2 URIs",
        lambda: leaf(names=[uri(str(WEB)), uri("https://example.com/")]),
    ),
    "F05 no alternative name": ("F05", "no subject alternative name", lambda: leaf(names=None)),
    "F05 no URI": ("F05", "no URI", lambda: leaf(names=[x509.DNSName("web.shop")])),
    "F05 no path": ("F05", "has a path", lambda: leaf(names=[uri("spiffe://mesh.local")])),
    "F05 root path": ("F05", "empty segment", lambda: leaf(names=[uri("spiffe://mesh.local/")])),
    "F05 another scheme": ("F05", "begins with", lambda: leaf(names=[uri("https://mesh.local/ns/shop/sa/web")])),
    "F05 upper case trust domain": ("F05", "a-z", lambda: leaf(names=[uri("spiffe://Mesh.local/ns/shop/sa/web")])),
    "F05 query": ("F05", "path is written", lambda: leaf(names=[uri(str(WEB) + "?x")])),
    "F05 fragment": ("F05", "path is written", lambda: leaf(names=[uri(str(WEB) + "#x")])),
    "F05 percent": ("F05", "path is written", lambda: leaf(names=[uri("spiffe://mesh.local/ns/shop/sa/%77eb")])),
    "F05 userinfo": ("F05", "a-z", lambda: leaf(names=[uri("spiffe://x@mesh.local/ns/shop/sa/web")])),
    "F05 port": ("F05", "a-z", lambda: leaf(names=[uri("spiffe://mesh.local:1/ns/shop/sa/web")])),
    "F05 double slash": ("F05", "empty segment", lambda: leaf(names=[uri("spiffe://mesh.local//ns/shop/sa/web")])),
    "F05 dot dot": ("F05", "'..'", lambda: leaf(names=[uri("spiffe://mesh.local/ns/x/../shop/sa/web")])),
    "F05 slash at the end": ("F05", "empty segment", lambda: leaf(names=[uri(str(WEB) + "/")])),
    "F05 2049 bytes": ("F05", "at most 2048", lambda: leaf(names=[uri(str(WEB) + "x" * (2049 - len(str(WEB))))])),
    "F06 a signing certificate with an ID": (
        "F06",
        "CA:TRUE",
        lambda: leaf(constraints=x509.BasicConstraints(ca=True, path_length=None)),
    ),
    "F06 an intermediate": ("F06", "CA:TRUE", lambda: make_ca("inter", issuer=root(), names=[uri(str(WEB))]).der),
    "F06 the root itself": ("F06", "CA:TRUE", lambda: root().der),
    "F07 keyCertSign": ("F07", "signing", lambda: leaf(key_usage=usage("digital_signature", "key_cert_sign"))),
    "F07 cRLSign": ("F07", "signing", lambda: leaf(key_usage=usage("digital_signature", "crl_sign"))),
    "F07 no key usage": ("F07", "key usage is missing", lambda: leaf(key_usage=None)),
    "F07 no digitalSignature": ("F07", "lacks digitalSignature", lambda: leaf(key_usage=usage("key_agreement"))),
    "F08 no extended key usage": ("F08", "is missing", lambda: leaf(purposes=None)),
    "F08 serverAuth only": ("F08", "lacks clientAuth", lambda: leaf(purposes=[ExtendedKeyUsageOID.SERVER_AUTH])),
    "F08 clientAuth only": ("F08", "lacks serverAuth", lambda: leaf(purposes=[ExtendedKeyUsageOID.CLIENT_AUTH])),
    "F08 any purpose is not these two": (
        "F08",
        "lacks serverAuth",
        lambda: leaf(purposes=[ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE]),
    ),
    "F10 NUL in the ID": ("F05", "path is written", lambda: leaf(names=raw_names((6, str(WEB).encode() + b"\0.x")))),
    "F10 UTF-8 in the ID": (
        "F05",
        "path is written",
        lambda: leaf(names=raw_names((6, str(WEB).encode() + b"\xc3\xa9"))),
    ),
    "F10 Latin-1 in the ID": (
        "F10",
        "not a certificate",
        lambda: leaf(names=raw_names((6, str(WEB).encode() + b"\xe9"))),
    ),
    "F10 otherName beside the ID": (
        "F10",
        "kind OtherName",
        lambda: leaf(names=[uri(str(WEB)), x509.OtherName(x509.ObjectIdentifier("1.2.3.4"), b"\x0c\x01x")]),
    ),
    "F10 e-mail beside the ID": (
        "F10",
        "kind RFC822Name",
        lambda: leaf(names=[uri(str(WEB)), x509.RFC822Name("a@b.c")]),
    ),
    "F10 an ID in a DNS name": ("F05", "no URI", lambda: leaf(names=raw_names((2, str(WEB).encode())))),
    "F10 an unknown critical extension": ("F10", "not understood", lambda: leaf(extra=[unknown(critical=True)])),
    "F10 bytes after the certificate": ("F10", "not a certificate", lambda: leaf() + b"\0"),
    "F10 PEM": (
        "F10",
        "not a certificate",
        lambda: x509.load_der_x509_certificate(leaf()).public_bytes(Encoding.PEM),
    ),
    "F10 empty": ("F10", "no certificate", lambda: b""),
    "F22 a certificate of more than 16 KiB": (
        "F22",
        "at most 16384",
        lambda: leaf(
            extra=[
                (
                    x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x04\x82\x3f\xff" + bytes(16383)),
                    False,
                )
            ]
        ),
    ),
    "F22 hundreds of DNS names": (
        "F22",
        "DNS names",
        lambda: leaf(names=[uri(str(WEB)), *(x509.DNSName(f"h{i}") for i in range(300))]),
    ),
    "F23 RSA 1024": ("F23", "RSA key of 1024 bits", lambda: leaf(key=rsa_key(1024).public_key())),
    "F23 RSA 2047": ("F23", "RSA key of 2047 bits", lambda: leaf(key=odd_rsa_key(bits=2047))),
    "F23 RSA 8192": ("F23", "RSA key of 8192 bits", lambda: leaf(key=odd_rsa_key(bits=8192))),
    "F23 RSA with e=3": ("F23", "RSA exponent", lambda: leaf(key=odd_rsa_key(exponent=3))),
    "F23 RSA with e=1": ("F23", "cannot be read", _with_exponent_one),
    "F23 RSA with a small factor": ("F23", "small factor", lambda: leaf(key=odd_rsa_key(small_factor=751))),
    "F23 P-521": ("F23", "EC key on secp521r1", lambda: leaf(key=ec_key(ec.SECP521R1).public_key())),
    "F23 P-192": ("F23", "key", lambda: _with_curve("2a8648ce3d030101")),
    "F23 an unknown curve": ("F23", "cannot be read", lambda: _with_curve("2a8648ce3d030177")),
    "F23 Ed25519": (
        "F23",
        "neither EC nor RSA",
        lambda: leaf(key=ed25519.Ed25519PrivateKey.generate().public_key()),
    ),
    "F23 SHA-1": ("F23", "signed with sha1", _signed_with_sha1),
}


@pytest.mark.parametrize("make", ACCEPTED.values(), ids=ACCEPTED.keys())
def test_a_legal_svid_proves_its_identity(make: Callable[[], bytes]) -> None:
    """SPIFFE X509-SVID sections 2 to 5, alone and in a chain."""
    assert check_leaf(make(), TD, NOW) == WEB
    assert verify_chain([make()], bundle(), NOW) == WEB


@pytest.mark.parametrize(("row", "why", "make"), REFUSED.values(), ids=REFUSED.keys())
def test_f_an_illegal_svid_is_refused(row: str, why: str, make: Callable[[], bytes]) -> None:
    """Rows F01, F03 to F08, F10, F22, F23: each refusal says why, alone and in a chain."""
    with pytest.raises(InvalidSvid) as alone:
        check_leaf(make(), TD, NOW)
    with pytest.raises(InvalidSvid) as in_a_chain:
        verify_chain([make()], bundle(), NOW)
    for caught in (alone, in_a_chain):
        assert why in str(caught.value)
        assert caught.value.row == row


@pytest.mark.parametrize("serial", [b"\x00", b"\xff"])
def test_f10_a_serial_number_that_is_not_positive_is_refused(serial: bytes) -> None:
    """RFC 5280 section 4.1.2.2."""
    der = leaf(serial=0x7F)
    field = b"\xa0\x03\x02\x01\x02\x02\x01"  # version, then the serial's tag and length
    assert der.count(field + b"\x7f") == 1
    with pytest.raises(InvalidSvid):
        check_leaf(der.replace(field + b"\x7f", field + serial), TD, NOW)


def test_f01_validity_ends_where_openssl_ends_it() -> None:
    """Half open: valid in the first second, expired at NotAfter itself."""
    der = leaf(not_before=1000, not_after=2000)
    for now in (1000.0, 1000.5, 1999.999):
        assert check_leaf(der, TD, now) == WEB
    for now in (999.999, 2000.0, 2000.001):
        with pytest.raises(InvalidSvid, match=r"not valid before|expired"):
            check_leaf(der, TD, now)


@pytest.mark.parametrize("now", [math.nan, math.inf, -math.inf, -1e30, 1e30])
def test_f01_without_a_time_nothing_is_valid(now: float) -> None:
    """NaN compares false with everything, which must not mean valid."""
    with pytest.raises(InvalidSvid) as caught:
        verify_chain([leaf()], bundle(), now)
    assert caught.value.row == "F01"


def test_f02_another_root_is_refused() -> None:
    """Even one with the same name and the same claims."""
    with pytest.raises(InvalidSvid, match="no path to a trust anchor") as caught:
        verify_chain([leaf()], bundle(make_ca(names=[uri(TD.uri)])), NOW)
    assert caught.value.row == "F02"


def test_f02_one_of_several_anchors_is_enough() -> None:
    """During a rotation two roots are trusted."""
    other = make_ca(names=[uri(TD.uri)])
    assert verify_chain([leaf()], bundle(other, root()), NOW) == WEB
    assert verify_chain([make_leaf(other)], bundle(other, root()), NOW) == WEB


def test_f01_an_expired_anchor_vouches_for_nobody() -> None:
    """Validity is asked of every certificate of the path."""
    old = make_ca(not_before=NOW - 200, not_after=NOW - 100)
    with pytest.raises(InvalidSvid, match="no path"):
        verify_chain([make_leaf(old)], bundle(old), NOW)


def test_f01_an_expired_intermediate_vouches_for_nobody() -> None:
    """Validity is asked of every certificate of the path."""
    inter = make_ca("inter", issuer=root(), not_before=NOW - 200, not_after=NOW - 100)
    with pytest.raises(InvalidSvid, match="no path"):
        verify_chain([make_leaf(inter), inter.der], bundle(), NOW)


def test_f09_a_leaf_cannot_sign_a_leaf() -> None:
    """X509-SVID section 4: only signing certificates sign."""
    signer_key = ec_key()
    middle = make_leaf(root(), key=signer_key.public_key(), extra=[ski(signer_key.public_key())])
    forged = make_leaf(
        Authority(key=signer_key, certificate=x509.load_der_x509_certificate(middle)), names=[uri(ORDERS)]
    )
    with pytest.raises(InvalidSvid, match="no path"):
        verify_chain([forged, middle], bundle(), NOW)


def ski(key: ec.EllipticCurvePublicKey) -> tuple[x509.SubjectKeyIdentifier, bool]:
    return x509.SubjectKeyIdentifier.from_public_key(key), False


def test_f09_a_path_longer_than_its_anchor_allows_is_refused() -> None:
    """RFC 5280 section 4.2.1.9: a path length of 0 allows no intermediate."""
    short = make_ca("short", constraints=x509.BasicConstraints(ca=True, path_length=0))
    inter = make_ca("inter", issuer=short)
    assert verify_chain([make_leaf(short)], bundle(short), NOW) == WEB
    with pytest.raises(InvalidSvid, match="no path"):
        verify_chain([make_leaf(inter), inter.der], bundle(short), NOW)


def test_f09_a_signer_without_the_right_to_sign_is_refused() -> None:
    """An intermediate whose key usage lacks keyCertSign."""
    inter = make_ca("inter", issuer=root(), key_usage=usage("digital_signature"))
    with pytest.raises(InvalidSvid, match="no path"):
        verify_chain([make_leaf(inter), inter.der], bundle(), NOW)


@pytest.mark.parametrize("critical", [True, False])
@pytest.mark.parametrize("subtree", [uri("other.local"), uri("mesh.local"), uri(".local"), x509.DNSName("shop")])
def test_f09_a_signer_with_name_constraints_is_refused(subtree: x509.GeneralName, critical: bool) -> None:
    """Constraints that nobody evaluates must not be passed over, whether or not they would permit the name."""
    for constraint in (x509.NameConstraints([subtree], None), x509.NameConstraints(None, [subtree])):
        inter = make_ca("inter", issuer=root(), extra=[(constraint, critical)])
        with pytest.raises(InvalidSvid, match="name constraints") as caught:
            verify_chain([make_leaf(inter), inter.der], bundle(), NOW)
        assert caught.value.row == "F09"


def intermediates(count: int) -> list[Authority]:
    chain = [root()]
    for number in range(count):
        chain.append(make_ca(f"inter{number}", issuer=chain[-1]))
    return chain


@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_f22_up_to_three_intermediates_are_followed(count: int) -> None:
    """With or without the anchor at the end."""
    chain = intermediates(count)
    shown = [make_leaf(chain[-1]), *(one.der for one in reversed(chain[1:]))]
    assert verify_chain(shown, bundle(), NOW) == WEB
    assert verify_chain([*shown, root().der], bundle(), NOW) == WEB


@pytest.mark.parametrize("count", [4, 12])
def test_f22_longer_chains_are_refused_before_any_work_is_done(count: int) -> None:
    """Row F22: verification time is an attacker's to spend otherwise."""
    chain = intermediates(count)
    with pytest.raises(InvalidSvid, match="at most 3 are followed") as caught:
        verify_chain([make_leaf(chain[-1]), *(one.der for one in reversed(chain[1:]))], bundle(), NOW)
    assert caught.value.row == "F22"


def test_f22_a_chain_has_a_total_size() -> None:
    """Three certificates, each below the bound of one certificate, together above it."""
    padding = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x04\x82\x17\x70" + bytes(6000))
    bulky = make_ca("bulky", issuer=root(), extra=[(padding, False)])
    with pytest.raises(InvalidSvid, match="at most 16384 are read") as caught:
        verify_chain([make_leaf(bulky), bulky.der, bulky.der, bulky.der], bundle(), NOW)
    assert caught.value.row == "F22"


def test_f22_an_intermediate_that_is_missing_breaks_the_path() -> None:
    """Nothing is fetched."""
    chain = intermediates(2)
    with pytest.raises(InvalidSvid, match="no path"):
        verify_chain([make_leaf(chain[-1]), chain[-1].der], bundle(), NOW)


def test_f23_an_intermediate_with_a_weak_key_is_refused() -> None:
    """A chain is as strong as its weakest key."""
    weak = make_ca("weak", issuer=root(), key=odd_rsa_key(bits=1024))
    with pytest.raises(InvalidSvid, match="1024 bits") as caught:
        verify_chain([leaf(), weak.der], bundle(), NOW)
    assert caught.value.row == "F23"


def test_f19_no_certificate_at_all_is_refused() -> None:
    """Row F19: an empty chain is nobody."""
    with pytest.raises(InvalidSvid, match="no certificate was presented"):
        verify_chain([], bundle(), NOW)


def test_f03_the_trust_domain_comes_from_us_not_from_the_peer() -> None:
    """The same certificate is legal in its own mesh and nowhere else."""
    der = leaf()
    with pytest.raises(InvalidSvid):
        check_leaf(der, TrustDomain.parse("other.local"), NOW)
    assert check_leaf(der, TD, NOW) == WEB


mutations = st.lists(
    st.tuples(st.sampled_from(["flip", "set", "insert", "delete", "cut"]), st.integers(0, 2000), st.integers(0, 255)),
    min_size=1,
    max_size=4,
)


def mutate(der: bytes, steps: list[tuple[str, int, int]]) -> bytes:
    data = bytearray(der)
    for what, where, value in steps:
        index = where % max(1, len(data))
        match what:
            case "flip" if data:
                data[index] ^= 1 << (value % 8)
            case "set" if data:
                data[index] = value
            case "insert":
                data.insert(index, value)
            case "delete" if data:
                del data[index]
            case "cut":
                del data[index:]
    return bytes(data)


@given(mutations)
@example([("cut", 0, 0)])
def test_a_mutated_certificate_is_refused_or_still_names_a_legal_identity(
    steps: list[tuple[str, int, int]],
) -> None:
    """`check_leaf` raises nothing but InvalidSvid; what it lets pass (it checks no signature) is a legal ID."""
    try:
        identity = check_leaf(mutate(leaf(), steps), TD, NOW)
    except InvalidSvid:
        return
    assert identity.trust_domain == TD
    assert SpiffeId.parse(str(identity)) == identity


@given(mutations)
def test_a_mutated_chain_never_verifies(steps: list[tuple[str, int, int]]) -> None:
    """Not one byte can be changed: everything is under the signature, or is the signature."""
    inter = make_chain_once()
    for chain in ([mutate(inter[0], steps), inter[1]], [inter[0], mutate(inter[1], steps)]):
        if chain == inter:
            assert verify_chain(chain, bundle(), NOW) == WEB
            continue
        with pytest.raises(InvalidSvid):
            verify_chain(chain, bundle(), NOW)


_CHAIN: list[bytes] = []


def make_chain_once() -> list[bytes]:
    if not _CHAIN:
        inter = make_ca("inter", issuer=root())
        _CHAIN.extend((make_leaf(inter), inter.der))
    return _CHAIN


@given(st.binary(max_size=600))
def test_garbage_is_refused(data: bytes) -> None:
    """Whatever a peer sends in place of a certificate."""
    with pytest.raises(InvalidSvid):
        check_leaf(data, TD, NOW)
    with pytest.raises(InvalidSvid):
        verify_chain([leaf(), data], bundle(), NOW)


def openssl_accepts(tmp_path: Path, chain: Sequence[bytes], anchors: Sequence[bytes], purpose: str) -> bool:
    def pem(name: str, ders: Sequence[bytes]) -> Path:
        path = tmp_path / name
        path.write_bytes(b"".join(x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM) for der in ders))
        return path

    command = ["openssl", "verify", "-x509_strict", "-purpose", purpose, "-attime", str(int(NOW)), "-no-CApath"]
    command += ["-CAfile", str(pem("anchors.pem", anchors))]
    if len(chain) > 1:
        command += ["-untrusted", str(pem("rest.pem", chain[1:]))]
    return subprocess.run([*command, str(pem("leaf.pem", chain[:1]))], capture_output=True).returncode == 0


@pytest.mark.parametrize("make", ACCEPTED.values(), ids=ACCEPTED.keys())
@pytest.mark.parametrize("purpose", ["sslclient", "sslserver"])
def test_openssl_accepts_what_is_accepted_here(make: Callable[[], bytes], purpose: str, tmp_path: Path) -> None:
    """An independent check: TLS would let the same peers in."""
    assert openssl_accepts(tmp_path, [make()], [root().der], purpose)


def test_openssl_refuses_what_is_refused_for_its_path(tmp_path: Path) -> None:
    """The same for paths; where the two could differ, we are the stricter."""
    other, old = make_ca(), make_ca(not_before=NOW - 200, not_after=NOW - 100)
    short = make_ca("short", constraints=x509.BasicConstraints(ca=True, path_length=0))
    inter, under_short = make_ca("inter", issuer=root()), make_ca("under", issuer=short)
    cases = [
        ([make_leaf(inter), inter.der], [root()], True),
        ([make_leaf(inter)], [root()], False),
        ([leaf()], [other], False),
        ([make_leaf(old)], [old], False),
        ([make_leaf(under_short), under_short.der], [short], False),
        ([leaf(not_after=NOW - 1)], [root()], False),
    ]
    for number, (chain, anchors, legal) in enumerate(cases):
        assert openssl_accepts(tmp_path, chain, [one.der for one in anchors], "sslclient") is legal, number
        try:
            verify_chain(chain, bundle(*anchors), NOW)
            accepted = True
        except InvalidSvid:
            accepted = False
        assert accepted is legal, number
