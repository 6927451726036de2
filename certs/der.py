"""DER in, `cryptography` objects out: the one border at which foreign certificates are parsed.

`cryptography` parses in Rust and is strict about DER, but which exceptions it raises for garbage is not a closed set
(ValueError, DuplicateExtension, InvalidVersion, UnsupportedAlgorithm, ...). So here, and only here, every Exception
means "refused": a parser that is surprised must not become a connection that is dropped with a traceback.
"""

from __future__ import annotations

import math
from typing import TypeAlias

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from certs.errors import CertsError

CERTIFICATE_BYTES_MAX = 16 * 1024
RSA_BITS_MIN, RSA_BITS_MAX = 2048, 4096
RSA_EXPONENT_MIN, RSA_EXPONENT_MAX = 65537, 2**32 - 1

PublicKey: TypeAlias = ec.EllipticCurvePublicKey | rsa.RSAPublicKey

_SMALL_PRIMES_PRODUCT = math.prod(n for n in range(2, 752) if all(n % d for d in range(2, math.isqrt(n) + 1)))
_HASHES_STRONG = frozenset({"sha256", "sha384", "sha512"})


def load_certificate(der: bytes, error: type[CertsError]) -> tuple[x509.Certificate, x509.Extensions]:
    """A certificate and its extensions, both fully parsed. Raises `error` and nothing else."""
    if not isinstance(der, bytes) or not der:
        raise error("no certificate", row="F10")
    if len(der) > CERTIFICATE_BYTES_MAX:
        raise error(f"certificate of {len(der)} bytes; at most {CERTIFICATE_BYTES_MAX} are read", row="F22")
    try:
        certificate = x509.load_der_x509_certificate(der)
        extensions = certificate.extensions
        # Lazily parsed by `cryptography`: touched here so that nothing is left to fail later.
        serial, version = certificate.serial_number, certificate.version
        _ = certificate.not_valid_before_utc, certificate.not_valid_after_utc
        _ = certificate.issuer, certificate.subject, certificate.signature_algorithm_oid
        whole = signature_is_whole(der, certificate.signature)
    except Exception as failure:  # see the module's docstring
        raise error(f"not a certificate in DER ({type(failure).__name__})", row="F10") from failure
    if not whole:
        raise error("signature is not a whole number of octets", row="F10")
    if version is not x509.Version.v3:
        raise error("an X.509 certificate of version 1 cannot carry an identity", row="F05")
    if serial <= 0 or serial.bit_length() > 160:
        raise error("serial number is not positive or longer than 20 octets (RFC 5280 section 4.1.2.2)", row="F10")
    return certificate, extensions


def load_public_key(
    source: x509.Certificate | x509.CertificateSigningRequest, error: type[CertsError], row: str
) -> PublicKey:
    """The public key, if it is of a kind and strength that the mesh accepts. Raises `error` with `row`."""
    try:
        key = source.public_key()
    except Exception as failure:  # unknown curves, RSA with e=1, points that are not on the curve, ...
        raise error(f"public key cannot be read ({type(failure).__name__})", row=row) from failure
    if not isinstance(key, ec.EllipticCurvePublicKey | rsa.RSAPublicKey):
        raise error(f"public key is neither EC nor RSA ({type(key).__name__})", row=row)
    if weakness := weakness_of(key):
        raise error(weakness, row=row)
    return key


def signature_is_whole(der: bytes, signature: bytes) -> bool:
    """Has the signature's BIT STRING no unused bits?

    It is the last element of a certificate and of a request. Neither OpenSSL nor `cryptography` minds a few unused bits
    that are zero, but then one certificate could be written in several ways, each with a fingerprint of its own."""
    return der.endswith(b"\x00" + signature)


def weakness_of(key: PublicKey) -> str | None:
    """Why this key is not accepted; None if it is. Cheap: no exponentiation, no factoring."""
    if isinstance(key, ec.EllipticCurvePublicKey):
        if not isinstance(key.curve, ec.SECP256R1 | ec.SECP384R1):
            return f"EC key on {key.curve.name}; only P-256 and P-384 are accepted"
        return None
    if not RSA_BITS_MIN <= key.key_size <= RSA_BITS_MAX:
        return f"RSA key of {key.key_size} bits; {RSA_BITS_MIN} to {RSA_BITS_MAX} are accepted"
    numbers = key.public_numbers()
    if not RSA_EXPONENT_MIN <= numbers.e <= RSA_EXPONENT_MAX or numbers.e % 2 == 0:
        return f"RSA exponent is not an odd number of {RSA_EXPONENT_MIN} to {RSA_EXPONENT_MAX}"
    if math.gcd(numbers.n, _SMALL_PRIMES_PRODUCT) != 1:
        return "RSA modulus has a small factor"
    return None


def weakness_of_signature(source: x509.Certificate | x509.CertificateSigningRequest) -> str | None:
    """Why this signature algorithm is not accepted (MD5, SHA-1, none at all); None if it is."""
    try:
        algorithm = source.signature_hash_algorithm
    except Exception:  # UnsupportedAlgorithm, malformed RSASSA-PSS parameters
        algorithm = None
    if algorithm is None:
        return "signature algorithm is not known"
    if algorithm.name not in _HASHES_STRONG:
        return f"signed with {algorithm.name}; SHA-256, SHA-384 or SHA-512 is required"
    return None
