"""What of a sidecar outlives its process: a directory with its node key, whom it trusts, and who it is.

    node.key    PKCS#8 PEM, P-256, 0600: whoever has it can be this workload
    node.json   0600: what `Node` holds besides
    cache       0600, only if the configuration asks for it: `sidecar.identity.cache`

The directory is opened once and everything in it is reached through that descriptor, so nobody can put another in its
place meanwhile. Directory and files must be ours, with no rights for others, and no symbolic links (O_NOFOLLOW); else
nothing is read and the error says what to do. Files are replaced whole: a temporary one, fsync, rename, fsync of the
directory. A lock on the directory keeps a second sidecar out, which would be a second holder of the same node key.

node.key is written before the join token is spent: who is killed between the two comes back with the key.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import secrets
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from certs.authority_id import key_id
from certs.bundle import ANCHORS_MAX, TrustBundle
from certs.errors import CertsError
from certs.spiffe_id import SpiffeId, TrustDomain
from certs.svid import new_private_key
from sidecar.config import Config
from sidecar.identity.errors import StateError

NODE_KEY, NODE_FILE = "node.key", "node.json"
NODE_OCTETS_MAX = 1_048_576
KEY_OCTETS_MAX = 4_096
_FORMAT = 1
_TEMPORARIES = (".node.key.", ".node.json.", ".cache.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """Who we are to the control plane when our certificate says nothing any more."""

    key: ec.EllipticCurvePrivateKey = field(repr=False)
    join_port: int
    anchors_der: tuple[bytes, ...] = field(repr=False)
    """The newest we were told of; before the first join, the one that the token names."""
    spiffe_id: SpiffeId | None = None
    """None: the token was about to be spent, and nobody knows whether it was."""

    @property
    def node_id(self) -> str:
        return key_id(self.key.public_key())


class StateDir:
    """See the module's docstring."""

    def __init__(self, path: str) -> None:
        """Makes the directory if there is none; its parent must exist. Raises StateError."""
        self.path = path
        try:
            os.mkdir(path, 0o700)
        except FileExistsError:
            pass
        except OSError as error:
            raise StateError(f"state_dir {path}: cannot be made: {error.strerror}; make it, of mode 0700") from None
        try:
            self._descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as error:
            raise StateError(
                f"state_dir {path}: {error.strerror}; it must be a directory and no symbolic link"
            ) from None
        try:
            self._check(os.fstat(self._descriptor), path, 0o700)
            self._lock()
            self._sweep()
        except BaseException:
            self.close()
            raise

    def __repr__(self) -> str:
        return f"<StateDir {self.path}>"

    def close(self) -> None:
        os.close(self._descriptor)

    # The node -----------------------------------------------------------------------------------------------------

    def load(self, config: Config) -> Node | None:
        """None: nobody has joined from here yet. Raises StateError: unreadable, or of another workload."""
        pem = self.read(NODE_KEY, KEY_OCTETS_MAX)
        text = self.read(NODE_FILE, NODE_OCTETS_MAX)
        if pem is None or text is None:
            return None  # the key comes first, so what is missing was never used
        where = f"{self.path}/{NODE_FILE}"
        try:
            key = load_pem_private_key(pem, None)
        except ValueError:
            raise StateError(f"{self.path}/{NODE_KEY}: is no private key; {_START_ANEW}") from None
        if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
            raise StateError(f"{self.path}/{NODE_KEY}: is no key on P-256; {_START_ANEW}")
        try:
            found = json.loads(text)
            owner = tuple(found[name] for name in ("format", "trust_domain", "namespace", "service"))
            node = _node(key, found, TrustDomain.parse(config.trust_domain))
        except (ValueError, KeyError, TypeError, RecursionError, CertsError) as error:
            raise StateError(f"{where}: cannot be read ({type(error).__name__}); {_START_ANEW}") from None
        if owner != (_FORMAT, config.trust_domain, config.namespace, config.service):
            _, trust_domain, namespace, service = owner
            raise StateError(
                f"{where}: is of {service}.{namespace} in {trust_domain}, this sidecar is {config.service}."
                f"{config.namespace} in {config.trust_domain}; each sidecar has a state_dir of its own"
            )
        return node

    def save_key(self, node: Node) -> None:
        """Before anybody is told of it. Raises OSError."""
        pem = node.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        self.write(NODE_KEY, pem)

    def save(self, config: Config, node: Node) -> None:
        """All but the key. Raises OSError."""
        content = {
            "format": _FORMAT,
            "trust_domain": config.trust_domain,
            "namespace": config.namespace,
            "service": config.service,
            "join_port": node.join_port,
            "anchors_der": [base64.b64encode(der).decode() for der in node.anchors_der],
            "spiffe_id": str(node.spiffe_id) if node.spiffe_id else "",
        }
        self.write(NODE_FILE, json.dumps(content, indent=1).encode())

    # Files --------------------------------------------------------------------------------------------------------

    def read(self, name: str, octets_max: int) -> bytes | None:
        """None: there is none. Raises StateError."""
        where = f"{self.path}/{name}"
        try:
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK  # a FIFO would make us wait
            descriptor = os.open(name, flags, dir_fd=self._descriptor)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StateError(f"{where}: {error.strerror}; it must be a file and no symbolic link") from None
        with open(descriptor, "rb") as file:
            self._check(os.fstat(descriptor), where, 0o600)
            content = file.read(octets_max + 1)
        if len(content) > octets_max:
            raise StateError(f"{where}: is longer than {octets_max} octets; {_START_ANEW}")
        return content

    def write(self, name: str, content: bytes, *, durable: bool = True) -> None:
        """Replace the file whole. Not `durable`: what a power failure may take. Raises OSError."""
        temporary = f".{name}.{secrets.token_hex(4)}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(temporary, flags, 0o600, dir_fd=self._descriptor)
        try:
            with open(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                if durable:
                    os.fsync(descriptor)
            os.rename(temporary, name, src_dir_fd=self._descriptor, dst_dir_fd=self._descriptor)
        except BaseException:
            os.unlink(temporary, dir_fd=self._descriptor)
            raise
        if durable:
            os.fsync(self._descriptor)

    def _check(self, found: os.stat_result, where: str, mode: int) -> None:
        if found.st_uid != os.geteuid():
            raise StateError(f"{where}: belongs to user {found.st_uid}, we are {os.geteuid()}; chown it")
        if stat.S_IMODE(found.st_mode) & 0o077:
            raise StateError(
                f"{where}: mode is {stat.S_IMODE(found.st_mode):04o}, so others may have read or changed it; "
                f"{_START_ANEW}, or chmod it to {mode:04o} if nobody has"
            )
        if not (stat.S_ISDIR(found.st_mode) if mode == 0o700 else stat.S_ISREG(found.st_mode)):
            raise StateError(f"{where}: is no {'directory' if mode == 0o700 else 'file'}; {_START_ANEW}")

    def _sweep(self) -> None:
        """What a process left that was killed while it wrote."""
        for name in os.listdir(self._descriptor):
            if name.startswith(_TEMPORARIES):
                os.unlink(name, dir_fd=self._descriptor)

    def _lock(self) -> None:
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise StateError(
                f"state_dir {self.path}: another sidecar uses it; "
                "each has one of its own, or wait until that one is gone"
            ) from None


_START_ANEW = "empty the directory and join with a new token"


def new_node(join_port: int, anchors_der: tuple[bytes, ...]) -> Node:
    """One with a new key, that has not joined yet."""
    return Node(key=new_private_key(), join_port=join_port, anchors_der=anchors_der)


def _node(key: ec.EllipticCurvePrivateKey, found: Mapping[str, Any], trust_domain: TrustDomain) -> Node:
    anchors = [base64.b64decode(text, validate=True) for text in found["anchors_der"][:ANCHORS_MAX]]
    port = found["join_port"]
    if not isinstance(port, int) or not 0 < port < 65_536:
        raise ValueError("join_port")
    return Node(
        key=key,
        join_port=port,
        anchors_der=TrustBundle.of(trust_domain, anchors).anchors_der,
        spiffe_id=SpiffeId.parse(found["spiffe_id"]) if found["spiffe_id"] else None,
    )
