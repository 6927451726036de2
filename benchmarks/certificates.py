"""Certificates for the systems that do not make their own: one authority, one leaf for each sidecar.

The same kind as our control plane issues: ECDSA on P-256, the SPIFFE ID as the only name, for both ends of TLS.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

LIFETIME = timedelta(days=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Files:
    """Where one sidecar finds its own, all PEM."""

    chain: Path
    key: Path
    both: Path
    """Chain and key in one file, as HAProxy wants them."""
    anchors: Path


def _builder(subject: str, issuer: str, key: ec.EllipticCurvePublicKey, now: datetime) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, subject)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, issuer)]))
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=1))
        .not_valid_after(now + LIFETIME)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates, key_cert_sign=signs_certificates, crl_sign=signs_certificates,
        content_commitment=False, key_encipherment=False, data_encipherment=False, key_agreement=False,
        encipher_only=False, decipher_only=False,
    )  # fmt: skip


def issue(directory: Path, names: dict[str, str]) -> dict[str, Files]:
    """`names`: file name -> principal (a SPIFFE ID without `spiffe://`). All by one new authority."""
    now = datetime.now(UTC)
    directory.mkdir(parents=True, exist_ok=True)
    authority = ec.generate_private_key(ec.SECP256R1())
    root = (
        _builder("benchmark", "benchmark", authority.public_key(), now)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .sign(authority, hashes.SHA256())
    )
    anchors = root.public_bytes(serialization.Encoding.PEM)
    files = {}
    for name, principal in names.items():
        key = ec.generate_private_key(ec.SECP256R1())
        leaf = (
            _builder(principal, "benchmark", key.public_key(), now)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs_certificates=False), critical=True)
            .add_extension(
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]),
                critical=False,
            )
            .add_extension(
                x509.SubjectAlternativeName([x509.UniformResourceIdentifier(f"spiffe://{principal}")]), critical=False
            )
            .sign(authority, hashes.SHA256())
        )
        chain = leaf.public_bytes(serialization.Encoding.PEM)
        secret = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        files[name] = written(directory, name, chain=chain, key=secret, anchors=anchors)
    return files


def written(directory: Path, name: str, *, chain: bytes, key: bytes, anchors: bytes) -> Files:
    """PEM in files. Keys lie on a disk here, as they never do in the mesh: the other systems take nothing else."""
    files = Files(
        chain=directory / f"{name}.pem",
        key=directory / f"{name}.key",
        both=directory / f"{name}.both.pem",
        anchors=directory / f"{name}.anchors.pem",
    )
    for path, content in (
        (files.chain, chain), (files.key, key), (files.both, chain + key), (files.anchors, anchors),
    ):  # fmt: skip
        path.touch(mode=0o600)
        path.write_bytes(content)
    return files
