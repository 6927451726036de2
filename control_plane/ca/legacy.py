"""The CA's files of before authorities were in the store: read once, to adopt the root, and never touched.

<data-dir>/ca/             0700   (`ca.new`, whole, if the start that made it was killed)
<data-dir>/ca/root.crt     0600   the certificate, PEM
<data-dir>/ca/root.key.enc 0600   the private key, encrypted with the KEK (see `keys`)
"""

from __future__ import annotations

import os
from pathlib import Path

from cryptography import x509

from control_plane.ca import files, keys
from control_plane.ca.errors import CaStateError, EnvelopeError
from control_plane.ca.kek import RESTORE
from control_plane.ca.root import Root

CA_NAME, STAGING_NAME = "ca", "ca.new"
CERTIFICATE_NAME, KEY_NAME = "root.crt", "root.key.enc"
FILE_MODE = 0o600


def is_there(data_dir: Path) -> bool:
    """Was there a CA in files? One that was never finished (no KEK was written for it) counts too."""
    return _directory(data_dir) is not None


def load(data_dir: Path, kek_path: Path, kek: bytes, owner_uid: int) -> Root:
    """The root. Raises CaStateError: something is missing, open to others, or does not open."""
    ca_dir = _directory(data_dir)
    assert ca_dir is not None, "asked before"
    fd = files.open_directory(ca_dir, owner_uid)
    try:
        pem = _read(fd, ca_dir / CERTIFICATE_NAME, owner_uid)
        envelope = _read(fd, ca_dir / KEY_NAME, owner_uid)
    finally:
        os.close(fd)
    try:
        private_key = keys.unseal(envelope, kek=kek)
    except EnvelopeError as failure:
        remedy = f"Is {kek_path} the one it was made with? {RESTORE}"
        raise CaStateError(ca_dir / KEY_NAME, str(failure), remedy, row="J06") from failure
    return Root(certificate=_certificate(ca_dir / CERTIFICATE_NAME, pem), private_key=private_key)


def _directory(data_dir: Path) -> Path | None:
    for name in (CA_NAME, STAGING_NAME):
        if os.path.lexists(data_dir / name):
            return data_dir / name
    return None


def _read(fd: int, path: Path, owner_uid: int) -> bytes:
    try:
        return files.read_private(fd, path, owner_uid, FILE_MODE)
    except FileNotFoundError as failure:
        raise CaStateError(path, "is missing", RESTORE, row="J06") from failure


def _certificate(path: Path, pem: bytes) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(pem)
    except Exception as failure:  # see certs.der: the parser's exceptions are not a closed set
        raise CaStateError(path, "is not a certificate in PEM", RESTORE, row="J06") from failure
