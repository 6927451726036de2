"""An offline root: what it is sent, what comes back, and a command that carries both.

The command is run directly, without a shell: the request (PKCS#10, PEM) on its standard input, the signed intermediate
and its root (PEM, in that order) on its standard output, exit code 0. It is started by one tick and looked at by the
later ones, so nothing waits for it; what takes too long or prints too much is killed, with all that it has started. Of
our environment it gets `ENVIRONMENT` and no more: what else is in there is for us.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from certs.authority_id import key_id
from certs.bundle import TrustBundle
from certs.der import load_certificate, load_public_key
from certs.errors import InvalidBundle
from certs.spiffe_id import TrustDomain
from control_plane.ca.errors import CaRefused
from control_plane.ca.slots import PUBLISHED
from control_plane.model import Authority, Level

PEM_CHARS_MAX = 64 * 1024
PRIVATE_KEY = "PRIVATE KEY"
"""RFC 7468 sections 10 and 11, and what OpenSSL wrote before it; OpenPGP's and SSH2's end otherwise."""
COMMAND_TIMEOUT_S = 30.0
ENVIRONMENT = ("PATH", "HOME", "LANG")


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedChain:
    """What came back."""

    intermediate: x509.Certificate
    root: x509.Certificate


def read_chain(pem: str, trust_domain: TrustDomain, roots: Sequence[Authority]) -> SignedChain:
    """The intermediate stands first; its root follows, unless it is known. Raises CaRefused."""
    if len(pem) > PEM_CHARS_MAX:
        raise CaRefused(f"the certificates are longer than {PEM_CHARS_MAX} characters")
    if PRIVATE_KEY in pem:
        raise CaRefused("there is a private key beside the certificates; keep that on the machine of the root")
    try:
        certificates = x509.load_pem_x509_certificates(pem.encode())
    except Exception as failure:  # see certs.der: the parser's exceptions are not a closed set
        raise CaRefused("this is no certificate in PEM; give the signed intermediate, then its root") from failure
    if len(certificates) > 2:
        raise CaRefused(f"{len(certificates)} certificates; give the signed intermediate, then its root")
    known = [
        x509.load_der_x509_certificate(one.certificate_der)
        for one in roots
        if one.level is Level.ROOT and one.certificate_der
    ]
    for place, one in zip(("first", "second"), certificates, strict=False):
        _check_readable(one, place)
    intermediate = certificates[0]
    _check_names(intermediate, trust_domain)
    for root in (*certificates[1:], *known):
        if _is_signed_by(intermediate, root):
            _check_root(root, trust_domain)
            return SignedChain(intermediate=intermediate, root=root)
    if len(certificates) == 2:
        raise CaRefused("the first certificate is not signed by the second; give the intermediate, then its root")
    raise CaRefused("the certificate is not signed by a root that is known; add its root behind it")


def _check_readable(one: x509.Certificate, place: str) -> None:
    """The parser looks at a key, a name or an extension only when it is asked for. So the refusal does not say whose
    certificate it is, only which. Raises CaRefused."""
    try:
        certificate, _ = load_certificate(one.public_bytes(Encoding.DER), InvalidBundle)
        load_public_key(certificate, InvalidBundle, "F23")
    except InvalidBundle as failure:
        raise CaRefused(f"the {place} certificate: {failure}; have it made anew") from failure


def _check_names(intermediate: x509.Certificate, trust_domain: TrustDomain) -> None:
    """A signing certificate may name its trust domain, once, and nobody in it (SPIFFE X509-SVID sections 2 and 3.2).
    Raises CaRefused."""
    for extension in intermediate.extensions:
        if not isinstance(extension.value, x509.SubjectAlternativeName):
            continue
        names = extension.value.get_values_for_type(x509.UniformResourceIdentifier)
        for name in names:
            if name != trust_domain.uri:
                raise CaRefused(
                    f"the intermediate names itself {name[:100]!a}; it may name {trust_domain.uri}, or nothing"
                )
        if len(names) > 1:
            raise CaRefused(
                f"the intermediate names itself {len(names)} times; it may name {trust_domain.uri} once, or nothing"
            )


def _is_signed_by(one: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        one.verify_directly_issued_by(issuer)
    except (InvalidSignature, UnsupportedAlgorithm, ValueError, TypeError):
        return False
    return True


def _check_root(root: x509.Certificate, trust_domain: TrustDomain) -> None:
    try:
        TrustBundle.of(trust_domain, [root.public_bytes(Encoding.DER)])
    except InvalidBundle as failure:
        raise CaRefused(f"the root: {failure}") from failure
    if not _is_signed_by(root, root):
        raise CaRefused("the root is not signed by itself; give the anchor, not a cross-signed certificate of it")


def check_distinct(root: x509.Certificate, authorities: Sequence[Authority]) -> None:
    """`root` has a key that nobody knows yet; is its identifier new too? OpenSSL finds an issuer by its name and that
    (RFC 5280 section 4.2.1.1), takes the first, and tries no other if the signature does not fit. Raises CaRefused."""
    identifier = _subject_key_identifier(root)
    for one in authorities:
        if one.level is not Level.ROOT or one.phase not in PUBLISHED:
            continue
        if _subject_key_identifier(x509.load_der_x509_certificate(one.certificate_der)) == identifier:
            raise CaRefused(
                f"the root has the subject key identifier of the root {one.authority_id}, and another key: peers would"
                " take one for the other; make it with an identifier of its own (subjectKeyIdentifier = hash)"
            )


def _subject_key_identifier(certificate: x509.Certificate) -> bytes:
    """Empty: it has none."""
    values = (one.value for one in certificate.extensions)
    return next((one.digest for one in values if isinstance(one, x509.SubjectKeyIdentifier)), b"")


def names_key(certificate: x509.Certificate, authority: Authority) -> bool:
    """Is it for the key of that authority?"""
    key = certificate.public_key()
    return isinstance(key, ec.EllipticCurvePublicKey) and key_id(key) == authority.authority_id


class SignCommand:
    """One run of the command at a time. Close it when the control plane stops."""

    def __init__(
        self, argv: Sequence[str], monotonic: Callable[[], float], environ: Mapping[str, str] = os.environ
    ) -> None:
        self._argv = tuple(argv)
        self._monotonic = monotonic
        self._environ = environ
        self._process: subprocess.Popen[bytes] | None = None
        self._unstarted = ""
        self._output = -1
        self._printed = b""
        self._deadline = 0.0

    @property
    def is_running(self) -> bool:
        """Started, and not heard yet."""
        return self._process is not None or self._unstarted != ""

    def start(self, csr_pem: str) -> None:
        """What cannot be started is told by `answer`, as what fails at once is: the tick that starts it has more to do,
        and would never come to that while the program is missing. Raises OSError: no descriptor is left."""
        assert not self.is_running, "one at a time"
        environ = {name: self._environ[name] for name in ENVIRONMENT if name in self._environ}
        request = os.memfd_create("request")
        self._output, printing = os.pipe2(os.O_CLOEXEC)  # what it prints beyond a pipe's room waits for the next tick
        try:
            os.set_blocking(self._output, False)
            os.write(request, csr_pem.encode())
            os.lseek(request, 0, os.SEEK_SET)
            self._process = subprocess.Popen(
                self._argv, stdin=request, stdout=printing, env=environ, close_fds=True, start_new_session=True
            )
        except (OSError, ValueError) as failure:  # ValueError: an argument that the kernel cannot be given
            os.close(self._output)
            why = failure.strerror if isinstance(failure, OSError) else failure
            self._unstarted = f"sign_command {self._argv[0]} cannot be started ({why}); check ca.sign_command"
        finally:
            os.close(request)
            os.close(printing)
        self._printed = b""
        self._deadline = self._monotonic() + COMMAND_TIMEOUT_S

    def answer(self) -> str | None:
        """What it printed; None: it has not ended. Raises CaRefused: it cannot be started, failed, took too long or
        printed too much."""
        if self._unstarted:
            unstarted, self._unstarted = self._unstarted, ""
            raise CaRefused(unstarted)
        process = self._process
        assert process is not None, "started before"
        code = process.poll()  # before we read: what it has printed by then is all there
        self._read()
        is_too_much = len(self._printed) > PEM_CHARS_MAX
        if code is None and not is_too_much and self._monotonic() < self._deadline:
            return None
        if code is None:
            _kill(process)
        self._process = None
        os.close(self._output)
        if is_too_much:
            raise CaRefused(
                f"sign_command {self._argv[0]} printed more than {PEM_CHARS_MAX} bytes; it is to print the intermediate"
                " and its root, in PEM, and nothing else"
            )
        if code is None:
            raise CaRefused(f"sign_command {self._argv[0]} did not end within {COMMAND_TIMEOUT_S:g} s")
        if code != 0:
            raise CaRefused(f"sign_command {self._argv[0]} ended with {code}; its standard error says why")
        return self._printed.decode("ascii", "replace")

    def close(self) -> None:
        """Idempotent."""
        self._unstarted = ""
        if self._process is not None:
            _kill(self._process)
            self._process = None
            os.close(self._output)

    def _read(self) -> None:
        """What is there, no more than a byte too much."""
        with contextlib.suppress(BlockingIOError):
            while octets := os.read(self._output, PEM_CHARS_MAX + 1 - len(self._printed)):
                self._printed += octets


def _kill(process: subprocess.Popen[bytes]) -> None:
    """With all that it has started: it leads a group of its own, and nobody has waited for it yet."""
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
