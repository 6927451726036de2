"""Join, Renew and Rejoin over real TLS sockets, with grpcio as the client."""

from __future__ import annotations

import asyncio
import base64
import os
import ssl
from pathlib import Path

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import load_der_x509_certificate
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from certs.bundle import pin
from certs.csr import make_csr
from certs.spiffe_id import SpiffeId
from certs.svid import new_private_key
from certs.verify import verify_chain
from control_plane.config import Limits
from control_plane.store.sqlite import SqliteStore
from protos.hauberk.v1 import identity_pb2
from tests.certs.forge import uri, usage
from tests.control_plane.desk import signed_join, signed_rejoin
from tests.control_plane.support import (
    TD,
    Mesh,
    Rpc,
    asyncio_test,
    audited,
    join_request,
    mesh_yaml,
    refusal,
    running,
    svid_of,
)


async def joins(stranger: Rpc, request: identity_pb2.JoinRequest) -> identity_pb2.SvidResponse:
    return await stranger.call("Identity/Join", request, identity_pb2.SvidResponse)


async def renews(member: Rpc, csr_der: bytes) -> identity_pb2.SvidResponse:
    return await member.call("Identity/Renew", identity_pb2.RenewRequest(csr_der=csr_der), identity_pb2.SvidResponse)


def with_secret(token: str, csr_der: bytes, secret: bytes) -> identity_pb2.JoinRequest:
    request = join_request(token, csr_der)
    request.token_secret = secret
    return request


@asyncio_test
async def test_a_token_and_a_csr_become_an_svid(tmp_path: Path) -> None:
    """Of the identity the token binds, with all a sidecar needs to know about itself."""
    key = new_private_key()
    async with running(tmp_path) as mesh, mesh.operator() as operator, mesh.anonymous() as stranger:
        token = await operator.token("orders", "shop", labels={"tier": "gold"})
        response = await joins(stranger, join_request(token, make_csr(key, None)))
        svid = svid_of(response, key)
    assert str(svid.spiffe_id) == response.spiffe_id == "spiffe://mesh.local/ns/shop/sa/orders"
    assert (response.service, response.namespace) == ("orders", "shop")
    assert dict(response.labels) == {"app": "orders", "tier": "gold"}
    assert abs(svid.not_after - response.server_time - 3_600) <= 1


@asyncio_test
async def test_a_sidecar_that_takes_itself_for_another_does_not_cost_the_token(tmp_path: Path) -> None:
    """A typing mistake is refused with both names; corrected, the same token is good."""
    csr_der = make_csr(new_private_key(), None)
    async with running(tmp_path) as mesh, mesh.operator() as operator, mesh.anonymous() as stranger:
        request = join_request(await operator.token("orders", "shop"), csr_der)
        request.service, request.namespace = "order", "shop"
        status, text = await refusal(joins(stranger, request))
        request.service = "orders"
        response = await joins(stranger, request)
    assert status == "INVALID_ARGUMENT"
    assert "is for orders.shop, but the sidecar is configured as order.shop" in text
    assert response.spiffe_id == "spiffe://mesh.local/ns/shop/sa/orders"


@asyncio_test
async def test_the_chain_shown_on_the_join_port_ends_with_the_pinned_anchor(tmp_path: Path) -> None:
    """A sidecar that joins knows nothing else of the mesh. And the first certificate is the control plane's."""
    async with running(tmp_path) as mesh, mesh.operator() as operator:
        token = await operator.token()
        chain = await shown_chain(mesh)
    certificates = [load_der_x509_certificate(der) for der in chain]
    assert len(chain) == 3
    assert [one.issuer for one in certificates] == [one.subject for one in (*certificates[1:], certificates[-1])]
    pinned = token.split(".")[3]
    assert base64.urlsafe_b64decode(pinned + "=") == pin(chain[-1])


async def shown_chain(mesh: Mesh) -> list[bytes]:
    """The DER chain a stranger is shown, from the handshake itself."""
    address = mesh.addresses.join_listen
    command = ["openssl", "s_client", "-connect", str(address), "-showcerts", "-alpn", "h2", "-tls1_3"]
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    text, _ = await process.communicate()
    end = "-----END CERTIFICATE-----"
    blocks = [
        f"{part[part.index('-----BEGIN') :]}{end}" for part in text.decode("latin-1").split(end) if "-----BEGIN" in part
    ]
    return [ssl.PEM_cert_to_DER_cert(block) for block in blocks]


@asyncio_test
async def test_g10_a_token_used_twice_is_refused(tmp_path: Path) -> None:
    """And the first certificate is still good."""
    async with running(tmp_path) as mesh, mesh.operator() as operator, mesh.anonymous() as stranger:
        token, key = await operator.token(), new_private_key()
        first = svid_of(await joins(stranger, join_request(token, make_csr(key, None))), key)
        status, details = await refusal(joins(stranger, join_request(token, make_csr(new_private_key(), None))))
        async with mesh.as_member(first) as member:
            await renews(member, make_csr(new_private_key(), None))
    assert status == "PERMISSION_DENIED"
    assert "already used at" in details
    assert "hauberk token create" in details


@asyncio_test
async def test_g11_of_a_hundred_joins_at_once_one_succeeds(tmp_path: Path) -> None:
    """With one token, over ten connections."""
    async with running(tmp_path) as mesh, mesh.operator() as operator:
        request = join_request(await operator.token(), make_csr(new_private_key(), None))

        async def ten() -> list[str]:
            async with mesh.anonymous() as stranger:
                return await asyncio.gather(*(one(stranger) for _ in range(10)))

        async def one(stranger: Rpc) -> str:
            try:
                return (await joins(stranger, request)).spiffe_id
            except grpc.aio.AioRpcError as error:
                return str(error.code().name)

        tens = await asyncio.gather(*(ten() for _ in range(10)))
    outcomes = [outcome for ten_of_them in tens for outcome in ten_of_them]
    assert sorted(set(outcomes)) == ["PERMISSION_DENIED", "spiffe://mesh.local/ns/shop/sa/orders"]
    assert outcomes.count("PERMISSION_DENIED") == 99


@asyncio_test
async def test_g11_of_a_hundred_rejoins_with_one_nonce_one_succeeds(tmp_path: Path) -> None:
    """Over ten connections; over the join port, with the key of a Join whose answer was lost."""
    node = new_private_key()
    async with running(tmp_path) as mesh, mesh.operator() as operator, mesh.anonymous() as stranger:
        await joins(stranger, signed_join(await operator.token(), new_private_key(), node))
        challenge = await stranger.call(
            "Identity/Challenge", identity_pb2.ChallengeRequest(), identity_pb2.ChallengeResponse
        )
        key = new_private_key()
        request = signed_rejoin(node, key, challenge.nonce)

        async def ten() -> list[str]:
            async with mesh.anonymous() as one:
                return await asyncio.gather(*(rejoins(one) for _ in range(10)))

        async def rejoins(one: Rpc) -> str:
            try:
                response = await one.call("Identity/Rejoin", request, identity_pb2.SvidResponse)
            except grpc.aio.AioRpcError as error:
                return str(error.code().name)
            return str(svid_of(response, key).spiffe_id)

        outcomes = [
            outcome for ten_of_them in await asyncio.gather(*(ten() for _ in range(10))) for outcome in ten_of_them
        ]
    assert sorted(set(outcomes)) == ["INVALID_ARGUMENT", "spiffe://mesh.local/ns/shop/sa/orders"]
    assert outcomes.count("INVALID_ARGUMENT") == 99


@asyncio_test
async def test_g12_guessing_is_slowed_down_and_costs_the_token_nothing(tmp_path: Path) -> None:
    """Twenty at once from one address, then one a second."""
    csr = make_csr(new_private_key(), None)
    async with (
        running(tmp_path, limits=Limits()) as mesh,
        mesh.operator() as operator,
        mesh.anonymous() as stranger,
    ):
        token = await operator.token()
        refused = [await refusal(joins(stranger, with_secret(token, csr, bytes([n]) * 16))) for n in range(22)]
    statuses = [status for status, _ in refused]
    assert statuses[:20] == ["PERMISSION_DENIED"] * 20
    assert statuses[20:] == ["RESOURCE_EXHAUSTED"] * 2
    assert len({details for _, details in refused[:20]}) == 1


@asyncio_test
async def test_g06_a_request_that_is_none_costs_no_token(tmp_path: Path) -> None:
    """INVALID_ARGUMENT; the token is good for the next try."""
    key = new_private_key()
    good = make_csr(key, None)
    bad = [b"", b"garbage", good[:-1], good + bytes(9_000), good[:60] + bytes([good[60] ^ 1]) + good[61:], bytes(4_000)]
    async with running(tmp_path) as mesh, mesh.operator() as operator, mesh.anonymous() as stranger:
        token = await operator.token()
        for csr in bad:
            status, details = await refusal(joins(stranger, join_request(token, csr)))
            assert (status, details[:34]) == ("INVALID_ARGUMENT", "the certificate request is refused")
        svid_of(await joins(stranger, join_request(token, good)), key)


@asyncio_test
async def test_g01_a_request_that_names_somebody_else_is_refused(tmp_path: Path) -> None:
    """At join and at renewal; one that names the caller itself is fine."""
    billing = SpiffeId.for_workload(TD, "shop", "billing")
    key = new_private_key()
    async with running(tmp_path) as mesh, mesh.operator() as operator, mesh.anonymous() as stranger:
        token = await operator.token("orders", "shop")
        refused = await refusal(joins(stranger, join_request(token, make_csr(key, billing))))
        orders = SpiffeId.for_workload(TD, "shop", "orders")
        svid = svid_of(await joins(stranger, join_request(token, make_csr(key, orders))), key)
        async with mesh.as_member(svid) as member:
            refused_again = await refusal(renews(member, make_csr(key, billing)))
            control_plane = SpiffeId.for_control_plane(TD)
            refused_third = await refusal(renews(member, make_csr(key, control_plane)))
    for status, details in (refused, refused_again, refused_third):
        assert status == "PERMISSION_DENIED"
        assert "names somebody else" in details


def greedy_csr(key: ec.EllipticCurvePrivateKey) -> bytes:
    """It asks for everything, save for names that alone would have it refused (G01, G03)."""
    extra: list[x509.ExtensionType] = [
        x509.BasicConstraints(ca=True, path_length=None),
        usage("key_cert_sign", "crl_sign"),
        x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]),
        x509.NameConstraints([uri("mesh.local")], None),
        x509.IssuerAlternativeName([x509.DNSName("root.example")]),
        x509.SubjectKeyIdentifier(b"hers" * 5),
        x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.99999.1"), b"\x05\x00"),
    ]
    subject = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "system:masters")])
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    for one in (x509.SubjectAlternativeName([uri("spiffe://mesh.local/ns/shop/sa/orders")]), *extra):
        builder = builder.add_extension(one, critical=False)
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)


@asyncio_test
async def test_g02_of_a_greedy_request_nothing_but_the_key_is_in_the_certificate(tmp_path: Path) -> None:
    """Join and Renew issue what they would have for a request that asks for nothing."""
    keys = [new_private_key() for _ in range(3)]
    async with running(tmp_path) as mesh, mesh.operator() as operator, mesh.anonymous() as stranger:
        modest = await joins(stranger, join_request(await operator.token(), make_csr(keys[0], None)))
        greedy = await joins(stranger, join_request(await operator.token(), greedy_csr(keys[1])))
        async with mesh.as_member(svid_of(greedy, keys[1])) as member:
            renewed = await renews(member, greedy_csr(keys[2]))
    expected, *found = (load_der_x509_certificate(one.certificate_chain_der[0]) for one in (modest, greedy, renewed))
    for certificate, key in zip(found, keys[1:], strict=True):
        assert certificate.public_key() == key.public_key()
        assert certificate.subject == expected.subject
        assert ours(certificate) == ours(expected)
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert list(names) == [uri("spiffe://mesh.local/ns/shop/sa/orders")]
        assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca


def ours(certificate: x509.Certificate) -> list[x509.Extension[x509.ExtensionType]]:
    """Its extensions, save for that which names its key: that one must be of its key."""
    named = x509.SubjectKeyIdentifier.from_public_key(certificate.public_key())
    for one in certificate.extensions:
        assert not isinstance(one.value, x509.SubjectKeyIdentifier) or one.value == named
    return [one for one in certificate.extensions if not isinstance(one.value, x509.SubjectKeyIdentifier)]


@asyncio_test
async def test_a_renewal_is_for_the_caller_and_for_the_new_key(tmp_path: Path) -> None:
    """With the lifetime the mesh has now; the chain is as good as the first."""
    async with running(tmp_path) as mesh, mesh.operator() as operator:
        first = await mesh.join("orders", "shop", labels={"tier": "gold"})
        await operator.apply(mesh_yaml(certificateLifetime="30s"))
        key = new_private_key()
        async with mesh.as_member(first) as member:
            response = await renews(member, make_csr(key, None))
        second = svid_of(response, key)
        bundle = mesh.certificate_authority(response.server_time).bundle
    assert verify_chain(second.chain_der, bundle, response.server_time) == first.spiffe_id
    assert second.serial != first.serial
    assert abs(second.not_after - response.server_time - 30) <= 1
    assert dict(response.labels) == {"app": "orders", "tier": "gold"}


@asyncio_test
async def test_two_services_of_one_service_account_stay_two(tmp_path: Path) -> None:
    """The identity is the same; what renews is the workload the certificate was issued for."""
    async with running(tmp_path) as mesh:
        for service in ("orders", "worker"):
            svid = await mesh.join(service, "shop", service_account="shared")
            async with mesh.as_member(svid) as member:
                response = await renews(member, make_csr(new_private_key(), None))
            assert (response.service, dict(response.labels)) == (service, {"app": service})


@asyncio_test
async def test_g22_a_removed_workload_does_not_renew(tmp_path: Path) -> None:
    """Its certificate is still valid, its membership is not."""
    async with running(tmp_path) as mesh:
        svid = await mesh.join()
    store = SqliteStore.open(tmp_path / "cp" / "hauberk.db")
    store.remove_workload(store.workloads()[0].workload_id, 1.0)
    store.close()
    async with running(tmp_path) as mesh, mesh.as_member(svid) as member:
        status, details = await refusal(renews(member, make_csr(new_private_key(), None)))
    assert status == "PERMISSION_DENIED"
    assert "join with a new token" in details


@asyncio_test
async def test_j10_every_certificate_handed_out_is_on_record(tmp_path: Path) -> None:
    """In the store and in the audit file; no secret is in either."""
    async with running(tmp_path) as mesh, mesh.operator() as operator, mesh.anonymous() as stranger:
        token, key = await operator.token(), new_private_key()
        first = svid_of(await joins(stranger, join_request(token, make_csr(key, None))), key)
        async with mesh.as_member(first) as member:
            second = svid_of(await renews(member, make_csr(key, None)), key)
    store = SqliteStore.open(tmp_path / "cp" / "hauberk.db")
    workload = store.workloads()[0]
    assert [store.workload_of_certificate(first.spiffe_id, one.serial) for one in (first, second)] == [workload] * 2
    store.close()
    audit = (tmp_path / "cp" / "audit.jsonl").read_text()
    events = audited(tmp_path / "cp")
    assert [one["event"] for one in events] == ["token.created", "identity.joined", "identity.renewed"]
    assert [one.get("serial") for one in events] == [None, f"{first.serial:x}", f"{second.serial:x}"]
    assert token.split(".")[2] not in audit


@asyncio_test
async def test_g30_nothing_is_issued_that_cannot_be_written_down(tmp_path: Path) -> None:
    """The audit file is full: the token stays good, nobody gets a certificate."""
    async with running(tmp_path) as mesh, mesh.operator() as operator, mesh.anonymous() as stranger:
        request = join_request(await operator.token(), make_csr(new_private_key(), None))
        audit = tmp_path / "cp" / "audit.jsonl"
        held = _audit_descriptor(audit)
        saved = os.dup(held)
        full = os.open("/dev/full", os.O_WRONLY)
        os.dup2(full, held)
        refused = await refusal(joins(stranger, request))
        refused_token = await refusal(operator.token())
        os.dup2(saved, held)
        os.close(saved)
        os.close(full)
        answer = await joins(stranger, request)
    assert refused[0] == refused_token[0] == "UNAVAILABLE"
    assert "nothing was changed" in refused[1]
    assert answer.service == "orders"


def _audit_descriptor(path: Path) -> int:
    """This process's descriptor of the audit file."""
    for entry in Path("/proc/self/fd").iterdir():
        if entry.exists() and entry.resolve() == path.resolve():
            return int(entry.name)
    raise AssertionError("the audit file is not open")


@pytest.mark.parametrize("method", ["Identity/Renew", "Admin/Status", "Config/List"])
def test_the_join_port_serves_join_and_nothing_else(tmp_path: Path, method: str) -> None:
    """Other methods do not exist there."""

    @asyncio_test
    async def main() -> None:
        async with running(tmp_path) as mesh, mesh.anonymous() as stranger:
            status, _ = await refusal(stranger.call(method, identity_pb2.RenewRequest(), identity_pb2.SvidResponse))
            assert status == "UNIMPLEMENTED"

    main()
