"""A root that is kept elsewhere: what it is sent, what is taken from it, and the command that carries both."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from base64 import b64encode
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey as PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import given
from hypothesis import strategies as st

from certs.bundle import ANCHORS_MAX
from certs.csr import make_csr
from certs.spiffe_id import SpiffeId
from certs.svid import new_private_key
from certs.verify import verify_chain
from control_plane.ca.authority import CertificateAuthority
from control_plane.ca.errors import CaExpired, CaRefused
from control_plane.ca.handshake import check_handshake
from control_plane.ca.offline import SignCommand, read_chain
from control_plane.ca.slots import CaPolicy, Readiness
from control_plane.model import Authority as Held
from control_plane.model import Level, Phase
from tests.certs.forge import Authority, make_ca, uri
from tests.control_plane.support import NOW, TD, ca_and_store

WEB = SpiffeId.for_workload(TD, "shop", "web")
OFFLINE = CaPolicy(is_root_offline=True, leaf_lifetime_s=10.0)
BY = "operator alice"
ONE, ZERO = (x509.BasicConstraints(ca=True, path_length=length) for length in (1, 0))


def new_root(**more: object) -> Authority:
    values: dict[str, object] = {"names": [uri(TD.uri)], "constraints": ONE, "not_after": NOW + 100_000}
    return make_ca("offline root", **values | more)  # type: ignore[arg-type]  # its parameters


def sign(root: Authority, csr_pem: str, *, life_s: float = 1_000.0, constraints: x509.BasicConstraints = ZERO) -> str:
    """What the root's operator does, with a library of theirs."""
    key = x509.load_pem_x509_csr(csr_pem.encode()).public_key()
    made = make_ca("intermediate", issuer=root, key=key, constraints=constraints, not_after=NOW + life_s)
    return made.certificate.public_bytes(Encoding.PEM).decode()


def pem(root: Authority) -> str:
    return root.certificate.public_bytes(Encoding.PEM).decode()


def one(ca: CertificateAuthority, level: Level, phase: Phase) -> Held:
    (found,) = [held for held in ca.authorities if (held.level, held.phase) == (level, phase)]
    return found


@pytest.fixture
def ca(tmp_path: Path) -> Iterator[CertificateAuthority]:
    with ca_and_store(tmp_path / "cp", policy=OFFLINE) as (opened, _):
        yield opened


def test_a_new_mesh_waits_for_its_root_and_trusts_nobody_meanwhile(ca: CertificateAuthority) -> None:
    """There is a request; nothing is issued; then the chain is installed and everything flows. No root key is here."""
    request = one(ca, Level.INTERMEDIATE, Phase.REQUESTED)
    assert not ca.has_root
    with pytest.raises(CaExpired):
        ca.issue(WEB, make_csr(new_private_key(), None), 10, NOW)
    ca.tick(NOW, Readiness())
    root = new_root()
    ca.install(sign(root, ca.csr_pem(request.authority_id)) + pem(root), NOW, BY)
    assert ca.bundle.anchors_der == (root.der,)
    assert ca.tick(NOW + 1, Readiness())
    issued = ca.issue(WEB, make_csr(new_private_key(), None), 10, NOW + 1)
    assert verify_chain(issued.chain_der, ca.bundle, NOW + 1) == WEB
    assert issued.issuer_id == request.authority_id
    assert one(ca, Level.ROOT, Phase.ACTIVE).sealed_key == b""
    with pytest.raises(CaRefused, match="the root is kept offline"):
        ca.prepare(Level.ROOT, NOW + 2, BY)
    with pytest.raises(CaRefused, match="the root is kept offline"):
        ca.recover(NOW + 2, BY)


def test_the_next_intermediate_is_requested_at_half_life(ca: CertificateAuthority) -> None:
    """The root is known by then: the intermediate alone is enough. It takes over in the last third."""
    root = new_root()
    first = one(ca, Level.INTERMEDIATE, Phase.REQUESTED)
    ca.install(sign(root, ca.csr_pem(first.authority_id)) + pem(root), NOW, BY)
    ca.tick(NOW + 1, Readiness())
    ca.tick(NOW + 501, Readiness())
    second = one(ca, Level.INTERMEDIATE, Phase.REQUESTED)
    assert any("offline root's signature" in alarm for alarm in ca.alarms(NOW + 502, Readiness()))
    assert ca.prepare(Level.INTERMEDIATE, NOW + 502, BY) == second
    ca.install(sign(root, ca.csr_pem(second.authority_id), life_s=2_000.0), NOW + 503, BY)
    assert ca.issuer_id == first.authority_id
    ca.tick(NOW + 700, Readiness())
    assert ca.issuer_id == second.authority_id


def test_another_offline_root_takes_over_when_everybody_knows_it(ca: CertificateAuthority) -> None:
    """It comes with an intermediate under it: published, acknowledged, then both are active."""
    old, new = new_root(), new_root()
    first = one(ca, Level.INTERMEDIATE, Phase.REQUESTED)
    ca.install(sign(old, ca.csr_pem(first.authority_id)) + pem(old), NOW, BY)
    ca.tick(NOW + 1, Readiness())
    second = ca.prepare(Level.INTERMEDIATE, NOW + 2, BY)
    ca.install(sign(new, ca.csr_pem(second.authority_id)) + pem(new), NOW + 3, BY)
    assert ca.bundle.anchors_der == (old.der, new.der)
    new_id = one(ca, Level.ROOT, Phase.PREPARED).authority_id
    assert not ca.tick(NOW + 4, Readiness(missing={new_id: ("web",)}))
    assert ca.issuer_id == first.authority_id
    assert ca.tick(NOW + 5, Readiness(missing={new_id: ()}))
    assert (ca.anchor_der, ca.issuer_id) == (new.der, second.authority_id)


CLIENT, SERVER = ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH
PURPOSE = "signs what no TLS peer takes: unsuitable certificate purpose; the extensions it needs"
CLIENTS, SERVERS, BOTH = (x509.ExtendedKeyUsage(purposes) for purposes in ([CLIENT], [SERVER], [CLIENT, SERVER]))
SKI, AKI = x509.SubjectKeyIdentifier, x509.AuthorityKeyIdentifier
Signing = Callable[[str, Authority], str]


def other_issuer() -> x509.AuthorityKeyIdentifier:
    return x509.AuthorityKeyIdentifier(b"y" * 20, None, None)


def other_subject() -> x509.SubjectKeyIdentifier:
    return x509.SubjectKeyIdentifier(b"x" * 20)


def again(
    one: x509.Certificate,
    key: PrivateKey,
    *,
    add: Sequence[x509.ExtensionType] = (),
    drop: Sequence[type[x509.ExtensionType]] = (),
    life_s: float = 0.0,
) -> x509.Certificate:
    """The same certificate with other extensions, or another end, signed by `key`."""
    builder = x509.CertificateBuilder(
        issuer_name=one.issuer,
        subject_name=one.subject,
        public_key=one.public_key(),
        serial_number=one.serial_number + 1,
        not_valid_before=one.not_valid_before_utc,
        not_valid_after=one.not_valid_after_utc + timedelta(seconds=life_s),
    )
    for extension in one.extensions:
        if type(extension.value) not in drop:
            builder = builder.add_extension(extension.value, extension.critical)
    for value in add:
        builder = builder.add_extension(value, critical=False)
    return builder.sign(key, SHA256())


def altered(**changes: Any) -> Signing:
    """The intermediate is."""

    def make(csr: str, root: Authority) -> str:
        made = x509.load_pem_x509_certificate(sign(root, csr).encode())
        return again(made, root.key, **changes).public_bytes(Encoding.PEM).decode() + pem(root)

    return make


def altered_root(**changes: Any) -> Signing:
    def make(csr: str, root: Authority) -> str:
        changed = replace(root, certificate=again(root.certificate, root.key, **changes))
        return sign(root, csr) + pem(changed)

    return make


def named(name: str) -> Signing:
    """The intermediate is."""
    return altered(add=[x509.SubjectAlternativeName([uri(name)])])


def private_pem(root: Authority) -> str:
    return root.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def unknown_curve() -> str:
    """A certificate whose key is on a curve without a name, which the library that reads certificates does not know."""
    made = new_root().certificate.public_bytes(Encoding.DER)
    prime256v1 = bytes.fromhex("06082a8648ce3d030107")
    assert made.count(prime256v1) == 1
    odd = x509.load_der_x509_certificate(made.replace(prime256v1, prime256v1[:-1] + bytes([0x7F])))
    return odd.public_bytes(Encoding.PEM).decode()


def no_text(certificate_pem: str, name: bytes) -> str:
    """The same certificate; instead of that name it has octets which are no UTF-8."""
    der = x509.load_pem_x509_certificate(certificate_pem.encode()).public_bytes(Encoding.DER)
    assert name in der
    return armored(der.replace(name, b"\xff" * len(name)))


def armored(der: bytes) -> str:
    """By hand: the library would read it first."""
    return f"-----BEGIN CERTIFICATE-----\n{b64encode(der).decode()}\n-----END CERTIFICATE-----\n"


REFUSED: dict[str, tuple[str, Signing]] = {
    "no certificate": ("no certificate in PEM", lambda csr, root: "hello"),
    "nothing": ("no certificate in PEM", lambda csr, root: ""),
    "too long": ("longer than", lambda csr, root: "x" * 70_000),
    "three": ("3 certificates", lambda csr, root: sign(root, csr) + pem(root) * 2),
    "without its root": ("add its root behind it", lambda csr, root: sign(root, csr)),
    "another root": ("not signed by the second", lambda csr, root: sign(root, csr) + pem(new_root())),
    "another key": (
        "for none of the keys that were requested",
        lambda csr, root: pem(make_ca("x", issuer=root, constraints=ZERO)) + pem(root),
    ),
    "f09 a longer path": ("path length 0", lambda csr, root: sign(root, csr, constraints=ONE) + pem(root)),
    "f01 expired": ("expired", lambda csr, root: sign(root, csr, life_s=-1.0) + pem(root)),
    "f09 a root for leaves": (
        "leaves only",
        lambda csr, root: (lambda bad: sign(bad, csr) + pem(bad))(new_root(constraints=ZERO)),
    ),
    "f03 of another trust domain": (
        "names itself",
        lambda csr, root: (lambda bad: sign(bad, csr) + pem(bad))(new_root(names=[uri("spiffe://other")])),
    ),
    "the root alone": ("not signed by a root that is known", lambda csr, root: pem(root)),
    "f03 an intermediate of another trust domain": ("names itself", named("spiffe://other")),
    "f03 an intermediate that is somebody": ("names itself", named(f"{TD.uri}/ns/shop/sa/web")),
    "f03 an intermediate that is named twice": (
        "names itself 2 times; it may name spiffe://mesh.local once, or nothing",
        altered(add=[x509.SubjectAlternativeName([uri(TD.uri), uri(TD.uri)])]),
    ),
    "a private key beside it": (
        "there is a private key beside the certificates; keep that on the machine of the root",
        lambda csr, root: sign(root, csr) + pem(root) + private_pem(root),
    ),
    "a private key of another kind beside it": (
        "there is a private key beside the certificates; keep that on the machine of the root",
        lambda csr, root: sign(root, csr) + pem(root) + "---- BEGIN SSH2 ENCRYPTED PRIVATE KEY ----\n",
    ),
    "f23 a key of a kind nobody knows": ("the key is not supported|cannot be read", lambda csr, root: unknown_curve()),
    "f10 an intermediate whose name is no text": (
        "the first certificate: not a certificate in DER",
        lambda csr, root: no_text(sign(root, csr), b"intermediate") + pem(root),
    ),
    "f10 a root whose name is no text": (
        "the second certificate: not a certificate in DER",
        lambda csr, root: sign(root, csr) + no_text(pem(root), b"offline root"),
    ),
    # What OpenSSL refuses, and `certs.verify` does not look at.
    "f08 an intermediate for clients": (PURPOSE, altered(add=[CLIENTS])),
    "f08 an intermediate for servers": ("Neither EKU nor anyEKU", altered(add=[SERVERS])),
    "f08 a root for clients": (PURPOSE, altered_root(add=[CLIENTS])),
    "f02 an intermediate that does not say under whom": ("Missing Authority Key", altered(drop=[AKI])),
    "f02 an intermediate under another one": ("unable to get local", altered(drop=[AKI], add=[other_issuer()])),
    "f02 a root without an identifier": ("Missing Subject Key", altered_root(drop=[SKI, AKI])),
    "f02 a root under another one": ("unable to get issuer", altered_root(drop=[AKI], add=[other_issuer()])),
    "f02 a root with another identifier": ("unable to get local", altered_root(drop=[SKI], add=[other_subject()])),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_comes_back_is_checked_like_a_strangers(what: str, ca: CertificateAuthority) -> None:
    """Refused with words; the request stays open and nothing is trusted."""
    says, make = REFUSED[what]
    before = ca.authorities
    request = one(ca, Level.INTERMEDIATE, Phase.REQUESTED)
    with pytest.raises(CaRefused, match=says):
        ca.install(make(ca.csr_pem(request.authority_id), new_root()), NOW, BY)
    assert ca.authorities == before
    assert not ca.has_root


SIGNED = (make_ca("intermediate", issuer=(SIGNER_ROOT := new_root()), constraints=ZERO).der, SIGNER_ROOT.der)


@given(which=st.sampled_from([0, 1]), place=st.integers(0, 2_000), change=st.integers(1, 255))
def test_f10_one_octet_that_is_another_is_refused_with_words(which: int, place: int, change: int) -> None:
    """Wherever it is: nothing but CaRefused is raised, so nothing becomes an internal error."""
    ders = [bytearray(der) for der in SIGNED]
    ders[which][place % len(ders[which])] ^= change
    with pytest.raises(CaRefused):
        read_chain("".join(armored(bytes(der)) for der in ders), TD, ())


def test_f03_a_long_name_is_told_shortened(ca: CertificateAuthority) -> None:
    """A refusal is an alarm and a line of the log as well."""
    request = one(ca, Level.INTERMEDIATE, Phase.REQUESTED)
    with pytest.raises(CaRefused) as refused:
        ca.install(named(f"{TD.uri}/{'a' * 9_000}")(ca.csr_pem(request.authority_id), new_root()), NOW, BY)
    assert len(str(refused.value)) < 250


def test_what_peers_take_is_taken(ca: CertificateAuthority) -> None:
    """Both purposes, names of the mesh (F08). With a sidecar's own contexts: `test_handshake`."""
    root, request = new_root(), one(ca, Level.INTERMEDIATE, Phase.REQUESTED)
    ca.install(
        altered(add=[BOTH, x509.SubjectAlternativeName([uri(TD.uri)])])(ca.csr_pem(request.authority_id), root), NOW, BY
    )
    assert ca.tick(NOW + 1, Readiness())
    key = new_private_key()
    issued = ca.issue(WEB, make_csr(key, None), 10, NOW + 1)
    check_handshake(issued.chain_der, key, ca.anchor_der)


def test_a_root_with_another_certificate_of_its_key_is_refused(ca: CertificateAuthority) -> None:
    """Authorities are known by their keys: leaves would stand under the one that is known, which may have expired."""
    root = new_root()
    first = one(ca, Level.INTERMEDIATE, Phase.REQUESTED)
    ca.install(sign(root, ca.csr_pem(first.authority_id)) + pem(root), NOW, BY)
    ca.tick(NOW + 1, Readiness())
    longer = replace(root, certificate=again(root.certificate, root.key, life_s=100_000.0))
    second = ca.prepare(Level.INTERMEDIATE, NOW + 2, BY)
    before = ca.authorities
    with pytest.raises(CaRefused, match="is known with another certificate of the same key; make a root with a new"):
        ca.install(sign(longer, ca.csr_pem(second.authority_id)) + pem(longer), NOW + 3, BY)
    assert ca.authorities == before
    ca.install(sign(root, ca.csr_pem(second.authority_id)) + pem(root), NOW + 4, BY)


def test_f02_a_root_that_peers_would_take_for_another_is_refused(ca: CertificateAuthority) -> None:
    """Another key, but the name and identifier of one that is trusted. With a sidecar's contexts: `test_handshake`."""
    old, new = new_root(), new_root()
    first = one(ca, Level.INTERMEDIATE, Phase.REQUESTED)
    ca.install(sign(old, ca.csr_pem(first.authority_id)) + pem(old), NOW, BY)
    ca.tick(NOW + 1, Readiness())
    csr = ca.csr_pem(ca.prepare(Level.INTERMEDIATE, NOW + 2, BY).authority_id)
    like_old = [old.certificate.extensions.get_extension_for_class(SKI).value]
    taken_for_it = replace(new, certificate=again(new.certificate, new.key, drop=[SKI, AKI], add=like_old))
    before = ca.authorities
    with pytest.raises(CaRefused, match=r"has the subject key identifier of the root .* identifier of its own"):
        ca.install(sign(taken_for_it, csr) + pem(taken_for_it), NOW + 3, BY)
    assert ca.authorities == before
    ca.install(sign(new, csr) + pem(new), NOW + 4, BY)  # of the same name, with an identifier of its own


def test_one_root_more_than_a_bundle_holds_is_refused(ca: CertificateAuthority) -> None:
    """With words, before anything is written."""
    request = one(ca, Level.INTERMEDIATE, Phase.REQUESTED)
    for number in range(ANCHORS_MAX):
        root = new_root()
        ca.install(sign(root, ca.csr_pem(request.authority_id)) + pem(root), NOW + number, BY)
        request = ca.prepare(Level.INTERMEDIATE, NOW + number, BY, force=True)
    root = new_root()
    with pytest.raises(CaRefused, match="16 roots are trusted already; revoke one"):
        ca.install(sign(root, ca.csr_pem(request.authority_id)) + pem(root), NOW + 20, BY)


def test_an_offline_root_is_not_recovered_whatever_the_policy_says(ca: CertificateAuthority, tmp_path: Path) -> None:
    """Without its configuration a command does not know that the root is offline; that its key is not here it does."""
    root, request = new_root(), one(ca, Level.INTERMEDIATE, Phase.REQUESTED)
    ca.install(sign(root, ca.csr_pem(request.authority_id)) + pem(root), NOW, BY)
    ca.tick(NOW + 1, Readiness())
    ca._operations.policy = CaPolicy()
    for now, force in ((NOW + 2, True), (NOW + 200_000, False), (NOW + 200_000, True)):
        with pytest.raises(CaRefused, match="the root is kept offline, its key is not here: prepare an intermediate"):
            ca.recover(now, BY, force=force)
    alarms = ca.alarms(NOW + 200_000, Readiness())
    assert any("root with another key that has not expired" in alarm for alarm in alarms)
    assert ca.anchor_der == root.der


# --- the command ---------------------------------------------------------------------------------------------------

SIGNER = """\
import sys
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from tests.control_plane.ca.test_offline import loaded, pem, sign
root = loaded(sys.argv[1])
print(sign(root, sys.stdin.read()) + pem(root))
"""


def loaded(path: str) -> Authority:
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    data = Path(path).read_bytes()
    key = load_pem_private_key(data, password=None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return Authority(key=key, certificate=x509.load_pem_x509_certificate(data))


def wait_until(is_so: Callable[[], bool]) -> None:
    """For a process of its own. At most 30 s."""
    end = time.monotonic() + 30
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.01)  # another process: there is nothing to wait on


def test_a_command_signs_what_is_due(tmp_path: Path) -> None:
    """From an empty store to certificates, and no operator in between."""
    root = new_root()
    file = tmp_path / "root.pem"
    file.write_bytes(root.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()) + pem(root).encode())
    command = [sys.executable, "-c", SIGNER, str(file)]
    with ca_and_store(tmp_path / "cp", policy=OFFLINE, sign_command=command) as (ca, _):

        def is_signed() -> bool:
            ca.tick(NOW, Readiness())
            return ca.issuer_id != ""

        wait_until(is_signed)
        issued = ca.issue(WEB, make_csr(new_private_key(), None), 10, NOW)
        assert verify_chain(issued.chain_der, ca.bundle, NOW) == WEB
        assert ca.anchor_der == root.der


def answer_of(command: SignCommand) -> str:
    wait_until(lambda: _has_answer(command))
    return _answers.pop()


_answers: list[str] = []


def _has_answer(command: SignCommand) -> bool:
    answer = command.answer()
    if answer is not None:
        _answers.append(answer)
    return answer is not None


def test_the_command_gets_the_request_and_no_shell() -> None:
    """What looks like shell is an argument."""
    command = SignCommand(["cat", "-"], time.monotonic)
    command.start("a request; $(echo no)\n")
    assert answer_of(command) == "a request; $(echo no)\n"
    assert not command.is_running


def test_a_command_that_fails_or_hangs_is_told_of() -> None:
    """With its exit code; or killed after its time. Another one may be started then."""
    clock = [0.0]
    command = SignCommand(["false"], lambda: clock[0])
    command.start("x")
    with pytest.raises(CaRefused, match="sign_command false ended with 1"):
        wait_until(lambda: command.answer() is not None)
    slow = SignCommand(["sleep", "600"], lambda: clock[0])
    slow.start("x")
    process = slow._process
    assert process is not None
    assert slow.answer() is None
    clock[0] = 31.0
    with pytest.raises(CaRefused, match="did not end within 30 s"):
        slow.answer()
    assert process.poll() is not None
    assert not slow.is_running


def test_what_a_command_that_hangs_has_started_ends_with_it(tmp_path: Path) -> None:
    """A script that waits for another program: each attempt would leave one of those behind for ever."""
    os.mkfifo(tmp_path / "alive")
    reader = os.open(tmp_path / "alive", os.O_RDONLY | os.O_NONBLOCK)
    try:
        script = 'sleep 600 3> "$0" & wait'  # who holds the other end of the pipe is alive
        clock = [0.0]
        command = SignCommand(["sh", "-c", script, str(tmp_path / "alive")], lambda: clock[0])
        command.start("request")
        wait_until(lambda: not has_ended(reader))
        clock[0] = 30.0
        with pytest.raises(CaRefused, match="did not end"):
            command.answer()
        wait_until(lambda: has_ended(reader))
    finally:
        os.close(reader)


def test_a_command_that_prints_without_end_is_ended(tmp_path: Path) -> None:
    """At the next tick, with what it has started; no more is read than could be right, whether it goes on or not."""
    os.mkfifo(tmp_path / "alive")
    reader = os.open(tmp_path / "alive", os.O_RDONLY | os.O_NONBLOCK)
    try:
        command = SignCommand(["sh", "-c", 'yes 3> "$0" & wait', str(tmp_path / "alive")], lambda: 0.0)
        command.start("request")
        with pytest.raises(CaRefused, match="printed more than 65536 bytes; it is to print the intermediate"):
            wait_until(lambda: command.answer() is not None)
        wait_until(lambda: has_ended(reader))
        assert not command.is_running
        assert len(command._printed) == 65_537
    finally:
        os.close(reader)
    for count, is_right in ((65_536, True), (65_537, False)):
        command = SignCommand(["head", "-c", str(count), "/dev/zero"], lambda: 0.0)
        command.start("request")
        if is_right:
            assert len(answer_of(command)) == count
            continue
        with pytest.raises(CaRefused, match="printed more than"):
            answer_of(command)


def test_a_command_may_open_its_standard_output_by_name() -> None:
    """As programs do that are told to write to a file."""
    command = SignCommand(["sh", "-c", "echo one > /dev/stdout; echo two >> /dev/stdout"], time.monotonic)
    command.start("request")
    assert answer_of(command) == "one\ntwo\n"


def test_a_command_gets_nothing_of_our_environment_but_what_it_needs() -> None:
    """A secret of ours in there is not for it."""
    environ = {"PATH": os.environ["PATH"], "HOME": "/root", "LANG": "C.UTF-8", "HAUBERK_KEK": "secret", "X": "y"}
    command = SignCommand(["env"], time.monotonic, environ)
    command.start("request")
    assert set(answer_of(command).split()) == {f"PATH={environ['PATH']}", "HOME=/root", "LANG=C.UTF-8"}
    command = SignCommand(["env"], time.monotonic, {"PATH": os.environ["PATH"]})
    command.start("request")
    assert answer_of(command) == f"PATH={os.environ['PATH']}\n"


def has_ended(reader: int) -> bool:
    """Whether nobody holds the other end of the pipe."""
    try:
        return os.read(reader, 1) == b""
    except BlockingIOError:
        return False


def test_a_command_that_is_not_there_is_an_alarm_and_no_crash(tmp_path: Path) -> None:
    """The tick goes on, and tries again later."""
    with ca_and_store(tmp_path / "cp", policy=OFFLINE, sign_command=["/nowhere/signer"]) as (ca, _):
        for now in (NOW, NOW + 11):
            assert not ca.tick(now, Readiness())
            assert not ca.tick(now + 1, Readiness())
            (told,) = [alarm for alarm in ca.alarms(now + 1, Readiness()) if "sign_command" in alarm]
            assert "/nowhere/signer cannot be started (No such file or directory); check ca.sign_command" in told


def test_a_command_that_nothing_can_start_is_told_of(tmp_path: Path) -> None:
    """Not there, not executable, no path at all; and another one may be started then. No descriptor is left behind."""
    (tmp_path / "plain").touch(mode=0o600)
    before = len(os.listdir("/proc/self/fd"))
    programs = {"/nowhere/signer": "No such file", str(tmp_path / "plain"): "Permission denied", "a\0b": "null byte"}
    for program, why in programs.items():
        command = SignCommand([program], time.monotonic)
        for _ in range(2):
            command.start("request")
            assert command.is_running
            with pytest.raises(CaRefused, match=f"cannot be started .*{why}.*; check ca.sign_command"):
                command.answer()
            assert not command.is_running
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_command_that_is_not_there_keeps_nothing_else_from_its_turn(tmp_path: Path) -> None:
    """For a week, while the root's signature is waited for, the CA's other steps are done: the JWT key is replaced."""
    with ca_and_store(tmp_path / "cp", policy=OFFLINE, sign_command=["/nowhere/signer"]) as (ca, _):
        first = one(ca, Level.JWT, Phase.ACTIVE)
        for hour in range(8 * 24):
            for second in (0, 1):
                ca.tick(NOW + hour * 3_600.0 + second, Readiness())
        assert one(ca, Level.JWT, Phase.ACTIVE) != first
        assert not any("expired" in alarm for alarm in ca.alarms(NOW + 8 * 86_400.0, Readiness()))


def test_openssl_signs_our_request(ca: CertificateAuthority, tmp_path: Path) -> None:
    """The documented way: two files and one command of a tool that is everywhere. The clock is openssl's."""
    now = time.time()
    root = make_ca("offline root", names=[uri(TD.uri)], constraints=ONE, not_before=now - 60, not_after=now + 1e6)
    key = root.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (tmp_path / "root.key").write_bytes(key)
    (tmp_path / "root.pem").write_text(pem(root))
    request = one(ca, Level.INTERMEDIATE, Phase.REQUESTED)
    (tmp_path / "request.pem").write_text(ca.csr_pem(request.authority_id))
    command = "openssl x509 -req -in request.pem -CA root.pem -CAkey root.key -copy_extensions copyall -days 7 -sha256"
    run = subprocess.run(command.split(), cwd=tmp_path, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    ca.install(run.stdout + pem(root), now + 1, BY)
    ca.tick(now + 2, Readiness())
    assert ca.issuer_id == request.authority_id
