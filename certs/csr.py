"""Certificate signing requests (PKCS#10, RFC 2986): proof that somebody holds a private key, and nothing more.

Whoever signs takes the public key from a request and everything else from what it knows about the caller. A request may
say which identity it hopes for, in one URI alternative name, so that a mix-up is noticed instead of papered over.
Requested extensions of every other kind (CA:TRUE, key usages, name constraints) are parsed and then ignored (row G02).
"""

from __future__ import annotations

from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from certs.der import PublicKey, load_public_key, signature_is_whole, weakness_of_signature
from certs.errors import InvalidCsr, InvalidSpiffeId
from certs.spiffe_id import SpiffeId

CSR_BYTES_MAX = 8 * 1024
_EXTENSION_REQUEST = x509.ObjectIdentifier("1.2.840.113549.1.9.14")


@dataclass(frozen=True, slots=True, kw_only=True)
class CsrFacts:
    """All that is taken from a request."""

    public_key: PublicKey
    spiffe_id: SpiffeId | None
    """The identity it names, if it names one. A wish, not a claim that was checked."""


def make_csr(key: ec.EllipticCurvePrivateKey, spiffe_id: SpiffeId | None) -> bytes:
    """A request in DER for `key`, naming `spiffe_id` if given."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    if spiffe_id is not None:
        names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(str(spiffe_id))])
        builder = builder.add_extension(names, critical=True)  # RFC 5280 section 4.1.2.6: no subject
    return builder.sign(key, SHA256()).public_bytes(Encoding.DER)


def read_csr(der: bytes) -> CsrFacts:
    """Reads a stranger's request. Raises InvalidCsr, and nothing else, whatever it is given (rows G02 to G06).

    The key is judged before the signature is verified, so that nobody chooses how long verification takes."""
    request, extensions = _load(der)
    key = load_public_key(request, InvalidCsr, "G05")
    if weakness := weakness_of_signature(request):
        raise InvalidCsr(weakness, row="G04")
    identity = _named_identity(extensions)
    _check_common_name(request, identity)
    try:
        proven = request.is_signature_valid
    except Exception:  # an algorithm that does not fit the key
        proven = False
    if not proven:
        raise InvalidCsr("the request is not signed with the key it carries", row="G04")
    return CsrFacts(public_key=key, spiffe_id=identity)


def _load(der: bytes) -> tuple[x509.CertificateSigningRequest, x509.Extensions]:
    if not isinstance(der, bytes) or not der:
        raise InvalidCsr("no signing request", row="G06")
    if len(der) > CSR_BYTES_MAX:
        raise InvalidCsr(f"signing request of {len(der)} bytes; at most {CSR_BYTES_MAX} are read", row="G06")
    try:
        request = x509.load_der_x509_csr(der)
        extensions = request.extensions
        asked = [attribute.oid for attribute in request.attributes].count(_EXTENSION_REQUEST)
        _ = request.subject
        whole = signature_is_whole(der, request.signature)
    except Exception as failure:  # see certs.der: the parser's exceptions are not a closed set
        raise InvalidCsr(f"not a signing request in DER ({type(failure).__name__})", row="G06") from failure
    if not whole:
        raise InvalidCsr("signature is not a whole number of octets", row="G06")
    if asked > 1:
        raise InvalidCsr("the request asks for extensions more than once", row="G06")
    return request, extensions


def _named_identity(extensions: x509.Extensions) -> SpiffeId | None:
    names: list[x509.GeneralName] = []
    for extension in extensions:
        if isinstance(extension.value, x509.SubjectAlternativeName):
            names.extend(extension.value)
    if not names:
        return None
    for name in names:
        if not isinstance(name, x509.UniformResourceIdentifier):
            raise InvalidCsr(f"the request asks for a name of the kind {type(name).__name__}", row="G03")
    if len(names) > 1:
        raise InvalidCsr(f"the request asks for {len(names)} identities; it may name one", row="G03")
    try:
        return SpiffeId.parse(names[0].value)
    except InvalidSpiffeId as failure:
        raise InvalidCsr(str(failure), row="G03") from failure


def _check_common_name(request: x509.CertificateSigningRequest, identity: SpiffeId | None) -> None:
    """A common name is a second way to ask for an identity: it must not ask for a different one."""
    for attribute in request.subject.get_attributes_for_oid(NameOID.COMMON_NAME):
        if identity is None or attribute.value != str(identity):
            raise InvalidCsr("the request's common name is not the identity it names", row="G03")
