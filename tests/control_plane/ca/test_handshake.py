"""One handshake before an intermediate is taken: it says what sidecars will say, in both directions."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, load_der_public_key
from cryptography.x509.oid import ExtendedKeyUsageOID

from certs.bundle import TrustBundle
from certs.csr import make_csr
from certs.spiffe_id import SpiffeId
from certs.svid import X509Svid, new_private_key
from control_plane.ca.errors import CaError
from control_plane.ca.handshake import check_handshake
from control_plane.ca.slots import CaPolicy, Readiness
from control_plane.model import Level, Phase
from sidecar.net.errors import PeerRefused
from sidecar.net.tls import client_context, server_context
from tests.certs.forge import Authority, make_ca, make_leaf, uri
from tests.control_plane.ca.test_offline import again, one
from tests.control_plane.support import TD, ca_and_store
from tests.sidecar.net.test_tls import check, meet
from tests.trio_support import trio_test

WEB = SpiffeId.for_workload(TD, "shop", "web")
OFFLINE = CaPolicy(is_root_offline=True, leaf_lifetime_s=60.0)
SKI, AKI = x509.SubjectKeyIdentifier, x509.AuthorityKeyIdentifier
CLIENT, SERVER = ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH
CLIENTS, SERVERS, BOTH = (x509.ExtendedKeyUsage(purposes) for purposes in ([CLIENT], [SERVER], [CLIENT, SERVER]))
OTHER_ISSUER, OTHER_SUBJECT = AKI(b"y" * 20, None, None), SKI(b"x" * 20)
MESH_NAME = (uri(TD.uri),)


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """Of a certificate that is as it should be."""

    add: Sequence[x509.ExtensionType] = ()
    drop: Sequence[type[x509.ExtensionType]] = ()

    def applied(self, certificate: x509.Certificate, signer: Authority) -> x509.Certificate:
        return again(certificate, signer.key, add=self.add, drop=self.drop)


AS_IT_SHOULD_BE = Change()
CHAINS: dict[str, tuple[Change, Change, str]] = {
    # the root, the intermediate, what OpenSSL says
    "as they should be": (AS_IT_SHOULD_BE, AS_IT_SHOULD_BE, ""),
    "f08 both purposes": (Change(add=[BOTH]), Change(add=[BOTH]), ""),
    "f08 an intermediate for clients": (AS_IT_SHOULD_BE, Change(add=[CLIENTS]), "unsuitable certificate purpose"),
    "f08 an intermediate for servers": (AS_IT_SHOULD_BE, Change(add=[SERVERS]), "unsuitable certificate purpose"),
    "f08 a root for clients": (Change(add=[CLIENTS]), AS_IT_SHOULD_BE, "unsuitable certificate purpose"),
    "f02 a root without SKI": (Change(drop=[SKI, AKI]), AS_IT_SHOULD_BE, "Missing Subject Key Identifier"),
    "f02 a root with another SKI": (Change(drop=[SKI], add=[OTHER_SUBJECT]), AS_IT_SHOULD_BE, "unable to get local"),
    "f02 a root with another's AKI": (Change(drop=[AKI], add=[OTHER_ISSUER]), AS_IT_SHOULD_BE, "unable to get issuer"),
    "f02 an intermediate without AKI": (AS_IT_SHOULD_BE, Change(drop=[AKI]), "Missing Authority Key Identifier"),
    "f02 another's AKI": (AS_IT_SHOULD_BE, Change(drop=[AKI], add=[OTHER_ISSUER]), "unable to get local issuer"),
}


@pytest.mark.parametrize("what", CHAINS)
@trio_test
async def test_the_probe_says_what_sidecars_say(what: str) -> None:
    """The same chain, tried by the probe and by a sidecar's own contexts: taken by both, or refused for the same."""
    of_root, of_intermediate, says = CHAINS[what]
    now = time.time()  # OpenSSL asks the machine's clock
    root = make_ca("offline root", names=MESH_NAME, not_before=now - 60, not_after=now + 3600)
    signing = make_ca("intermediate", issuer=root, names=MESH_NAME, not_before=now - 60, not_after=now + 3600)
    anchor = of_root.applied(root.certificate, root).public_bytes(Encoding.DER)
    intermediate = of_intermediate.applied(signing.certificate, root).public_bytes(Encoding.DER)
    key = new_private_key()
    leaf = make_leaf(signing, key=key.public_key(), not_before=now - 60, not_after=now + 600)
    chain = (leaf, intermediate)
    svid, bundle = X509Svid.of(chain, key, TD, now), TrustBundle.of(TD, [anchor])
    with closing(await meet(server_context(svid, bundle), client_context(svid, bundle))) as met:
        if not says:
            check_handshake(chain, key, anchor)
            assert [check(end).identity for end in met.both()] == [WEB, WEB]
            return
        with pytest.raises(CaError, match=says):
            check_handshake(chain, key, anchor)
        refused = [end for end in (met.client, met.server) if isinstance(end, PeerRefused)]
        assert len(refused) == 1  # the server, if it is clients that are not to be trusted (F18)
        assert says in str(refused[0])


@pytest.mark.parametrize("is_alike", [False, True])
@trio_test
async def test_f02_of_two_roots_with_one_identifier_peers_trust_the_first(is_alike: bool) -> None:
    """Which is why an offline root with another's identifier is refused (`test_offline`); one with its name is not."""
    now = time.time()
    times: dict[str, Any] = {"not_before": now - 60, "not_after": now + 3600}
    identifier = Change(drop=[SKI, AKI], add=[OTHER_SUBJECT])
    of_identifier = Change(drop=[AKI], add=[AKI.from_issuer_subject_key_identifier(OTHER_SUBJECT)])
    anchors: list[bytes] = []
    svids: list[X509Svid] = []
    for _ in range(2):
        root = make_ca("offline root", **times)
        signing = make_ca("intermediate", issuer=root, **times)
        anchor, intermediate = root.certificate, signing.certificate
        if is_alike:
            anchor, intermediate = identifier.applied(anchor, root), of_identifier.applied(intermediate, root)
        key = new_private_key()
        leaf = make_leaf(signing, key=key.public_key(), not_before=now - 60, not_after=now + 600)
        chain = (leaf, intermediate.public_bytes(Encoding.DER))
        anchors.append(anchor.public_bytes(Encoding.DER))
        check_handshake(chain, key, anchors[-1])  # alone it is as good as any
        svids.append(X509Svid.of(chain, key, TD, now))
    bundle = TrustBundle.of(TD, anchors)
    for svid, is_taken in zip(svids, (True, not is_alike), strict=True):
        with closing(await meet(server_context(svid, bundle), client_context(svid, bundle))) as met:
            refused = [str(end) for end in (met.client, met.server) if isinstance(end, PeerRefused)]
            assert len(refused) == (0 if is_taken else 1)
            assert all(one.endswith("certificate signature failure") for one in refused)


INSTALLED: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    # the root, the intermediate
    "as documented": ({"names": MESH_NAME}, {"names": MESH_NAME}),
    "f08 both purposes": ({"extra": [(BOTH, False)]}, {"extra": [(BOTH, False)]}),
    # SPIFFE X509-SVID section 3.2: a signing certificate SHOULD have an ID, and need not.
    "f03 nobody is named": ({}, {}),
    "f03 only the root is named": ({"names": MESH_NAME}, {}),
}


@pytest.mark.parametrize("what", INSTALLED)
@trio_test
async def test_what_was_installed_carries_a_mesh(what: str, tmp_path: Path) -> None:
    """What is issued under it passes a sidecar's own contexts and checks, as a server's and as a client's."""
    of_root, of_intermediate = INSTALLED[what]
    now = time.time()
    times: dict[str, Any] = {"not_before": now - 60, "not_after": now + 3600}
    with ca_and_store(tmp_path / "cp", now, policy=OFFLINE) as (ca, _):
        key = load_der_public_key(one(ca, Level.INTERMEDIATE, Phase.REQUESTED).public_key_der)
        root = make_ca("offline root", **times | of_root)
        signed = make_ca(
            "intermediate",
            issuer=root,
            key=key,
            constraints=x509.BasicConstraints(ca=True, path_length=0),
            **times | of_intermediate,
        )
        pem = b"".join(made.certificate.public_bytes(Encoding.PEM) for made in (signed, root))
        ca.install(pem.decode(), now, "operator alice")
        assert ca.tick(now, Readiness())
        own = new_private_key()
        issued = ca.issue(WEB, make_csr(own, None), 60, now)
        svid = X509Svid.of(issued.chain_der, own, TD, now)
        with closing(await meet(server_context(svid, ca.bundle), client_context(svid, ca.bundle))) as met:
            assert [check(end, {WEB}).identity for end in met.both()] == [WEB, WEB]


def test_f01_the_time_is_not_the_probes_question() -> None:
    """It was looked at before, by the clock that is an argument; this machine's may be another."""
    root = make_ca(not_before=1.0, not_after=2.0)
    key = new_private_key()
    check_handshake([make_leaf(root, key=key.public_key(), not_before=1.0, not_after=2.0)], key, root.der)


def test_f02_another_anchor_is_refused() -> None:
    """Nothing else is trusted: not what the chain brings along, not what the machine trusts."""
    root, other, key = make_ca(), make_ca(), new_private_key()
    leaf = make_leaf(root, key=key.public_key())
    with pytest.raises(CaError, match="signs what no TLS peer takes: self-signed certificate in certificate chain"):
        check_handshake([leaf, root.der], key, other.der)
