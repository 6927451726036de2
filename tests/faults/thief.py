"""What somebody can do who copied the control plane's data directory with its key, and how long that works.

`steal` takes the key that signs leaves now. `Holder` has a certificate made with it that no control plane knows of, and
goes on calling a sidecar over mutual TLS: with curl over one connection it keeps, with httpx over new ones.
"""

from __future__ import annotations

import os
import secrets
import sqlite3
import ssl
import subprocess
import threading
import time
from contextlib import closing
from pathlib import Path

import h2.exceptions
import httpx
import trio
from cryptography import x509

from certs.spiffe_id import SpiffeId, TrustDomain
from certs.svid import X509Svid, new_private_key
from control_plane.ca.hierarchy import Issuer
from control_plane.ca.kek import KEK_NAME, KekFile
from control_plane.ca.signer import Signer
from control_plane.ca.vault import Vault
from control_plane.model import Level, Phase
from control_plane.store.rows import AUTHORITY_COLUMNS, authority_from

TD = TrustDomain.parse("mesh.local")
LIFETIME_S = 3_600.0
PAUSE_S = 0.15
TIMEOUT_S = 3.0
READ_OCTETS = 4_096
REFUSED = (httpx.HTTPError, h2.exceptions.ProtocolError)
"""h2 takes no frame after a GOAWAY, and httpx hands on what it says of the next one."""


def steal(data_dir: Path) -> Signer:
    """The ACTIVE intermediate's."""
    kek = KekFile(path=data_dir / KEK_NAME, owner_uid=os.geteuid()).read()
    assert kek is not None
    with closing(sqlite3.connect(f"file:{data_dir / 'hauberk.db'}?mode=ro", uri=True)) as connection:
        found = connection.execute(f"SELECT {AUTHORITY_COLUMNS} FROM authority")  # noqa: S608 - a constant
        authorities = {one.authority_id: one for one in map(authority_from, found)}
    active = next(one for one in authorities.values() if one.level is Level.INTERMEDIATE and one.phase is Phase.ACTIVE)
    issuer = Issuer(
        certificate=x509.load_der_x509_certificate(active.certificate_der),
        anchor=x509.load_der_x509_certificate(authorities[active.parent_id].certificate_der),
        private_key=Vault(kek, token_bytes=secrets.token_bytes).unseal(active),
    )
    return Signer(issuer, TD, token_bytes=secrets.token_bytes)


class Holder:
    """A context manager. `taken_at` and `ended_at`: when it was last let in, and when its kept connection ended."""

    def __init__(self, signer: Signer, directory: Path, address: str, *, name: str = "thief") -> None:
        """`address`: "ip:port" of the victim's mesh listener."""
        key = new_private_key()
        identity = SpiffeId.for_workload(TD, "shop", name)
        issued = signer.issue(identity, key.public_key(), LIFETIME_S, time.time())
        self.svid = X509Svid.of(issued.chain_der, key, TD, time.time())
        self._file = directory / f"{name}-{secrets.token_hex(4)}.pem"
        self._context = client_context(self.svid, self._file)
        self._url = f"https://{address}"
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=lambda: trio.run(self._run)),
            threading.Thread(target=self._keep),
        ]
        self._kept: subprocess.Popen[bytes] | None = None
        self.taken_at = 0.0
        """Monotonic seconds of the last new connection that was answered."""
        self.taken = self.refused = 0
        self.refusals = 0
        """In a row."""
        self.why = ""
        self.opened = 0
        self.is_open = False
        """A stream on the kept connection has begun, and has not ended."""
        self.ended_at = 0.0

    def __enter__(self) -> Holder:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._stop.set()
        while any(thread.is_alive() for thread in self._threads):
            if self._kept is not None:
                self._kept.terminate()
            self._threads[0].join(PAUSE_S)
            self._threads[1].join(PAUSE_S)

    def __repr__(self) -> str:
        return (
            f"<Holder open={self.is_open} opened={self.opened} taken={self.taken} refused={self.refusals} {self.why}>"
        )

    @property
    def is_out(self) -> bool:
        """Nothing it has works any more."""
        return not self.is_open and self.refusals >= 3

    async def _run(self) -> None:
        while not self._stop.is_set():
            async with self._client() as client:
                try:
                    answer = await client.get("/hello")
                    assert answer.status_code == 200, (answer.status_code, answer.text)
                    self.taken, self.taken_at, self.refusals = self.taken + 1, time.monotonic(), 0
                except REFUSED as error:
                    self.refused, self.refusals, self.why = self.refused + 1, self.refusals + 1, repr(error)
            await trio.sleep(PAUSE_S)

    def _keep(self) -> None:
        """One stream that stays open. The victim's own certificate may end it: then another.

        With curl, for it goes on with a stream after a GOAWAY, as h2 and with it httpx does not."""
        options = ["-sqNk", "--http2", "--noproxy", "*", "--cert", str(self._file), "-H", "host: orders:8080"]
        while not self._stop.wait(PAUSE_S):
            with subprocess.Popen(["curl", *options, f"{self._url}/events/2"], stdout=subprocess.PIPE) as self._kept:
                assert self._kept.stdout is not None
                while not self._stop.is_set() and os.read(self._kept.stdout.fileno(), READ_OCTETS):
                    self.opened += not self.is_open
                    self.is_open = True
                self._kept.terminate()
            if self.is_open and not self._stop.is_set():
                self.is_open, self.ended_at = False, time.monotonic()

    def _client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(
            base_url=self._url, headers={"host": "orders:8080"}, verify=self._context, http1=False, http2=True,
            timeout=TIMEOUT_S, trust_env=False,
        )  # fmt: skip


def client_context(svid: X509Svid, file: Path) -> ssl.SSLContext:
    """Shows the certificate and asks for none. `file` is written: the standard library takes paths only."""
    file.touch(mode=0o600)
    file.write_bytes(svid.key_pem() + svid.chain_pem())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.load_cert_chain(file)
    return context
