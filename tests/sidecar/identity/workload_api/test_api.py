"""The methods, asked by grpcio on a real socket: what each says, again after every change, and when it says no."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from operator import methodcaller
from pathlib import Path
from typing import TypeVar

import grpc
import pytest
import trio
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_private_key
from google.protobuf.json_format import MessageToDict

from certs.authority_id import authority_ids
from certs.bundle import TrustBundle
from certs.revocation import NOTHING_REVOKED, Revocations
from protos.spiffe import workload_pb2 as pb
from sidecar.config import Timeouts
from sidecar.errors import GRPC_PERMISSION_DENIED
from tests.sidecar.identity.workload_api.served import Client, Served, client, serving
from tests.sidecar.mesh import ORDERS, WEB, Mesh
from tests.trio_support import trio_test

T = TypeVar("T")
TRUST_DOMAIN = "spiffe://mesh.local"


async def asked(served: Served, ask: Callable[[Client], T]) -> T:
    """In a thread, with a connection of its own."""

    def run() -> T:
        with client(served.path) as one:
            return ask(one)

    return await trio.to_thread.run_sync(run)


async def refused(served: Served, ask: Callable[[Client], object]) -> tuple[grpc.StatusCode, str]:
    """The status of what must fail, of streams when they are read."""

    def run(one: Client) -> tuple[grpc.StatusCode, str]:
        with pytest.raises(grpc.RpcError) as raised:
            exhaust(ask(one))
        return raised.value.code(), raised.value.details() or ""

    return await asked(served, run)


def exhaust(found: object) -> None:
    if isinstance(found, Iterator):
        deque(found, maxlen=0)


async def listening(served: Served, began: trio.Event, codes: list[grpc.StatusCode]) -> None:
    """A FetchX509SVID until it fails; `began` is set at its first message."""
    token = trio.lowlevel.current_trio_token()

    def tell(_message: object) -> None:
        token.run_sync_soon(began.set)

    code, _ = await refused(served, lambda one: map(tell, one.x509_svids()))
    codes.append(code)


def validating(audience: str, svid: str) -> Callable[[Client], pb.ValidateJWTSVIDResponse]:
    return lambda one: one.validate(audience, svid)


def identity(answer: pb.X509SVIDResponse) -> tuple[str, int, int]:
    """Who, serial and anchors of an answer, which must fit together."""
    (one,) = answer.svids
    chain, anchors = (x509.load_der_x509_certificate(one.x509_svid), certificates(one.bundle))
    key = load_der_private_key(one.x509_svid_key, None).public_key()
    kinds = Encoding.DER, PublicFormat.SubjectPublicKeyInfo
    assert key.public_bytes(*kinds) == chain.public_key().public_bytes(*kinds)
    return one.spiffe_id, chain.serial_number, len(anchors)


def certificates(concatenated: bytes) -> list[x509.Certificate]:
    found = []
    while concatenated:
        size = 4 + int.from_bytes(concatenated[2:4])  # SEQUENCE with a length of two octets: X.690 section 8.1.3
        found.append(x509.load_der_x509_certificate(concatenated[:size]))
        concatenated = concatenated[size:]
    return found


@pytest.mark.parametrize("engine", ["relay", "reference"])
def test_everybody_hears_of_every_rotation_and_every_change_of_the_bundle(engine: str, tmp_path: Path) -> None:
    """Ten listeners, the whole state each time; what is no change of theirs is not told."""

    @trio_test
    async def run() -> None:
        async with serving(tmp_path, engine=engine) as served:
            served.join()
            heard: list[list[tuple[str, int, int]]] = []
            first = trio.Event()
            token = trio.lowlevel.current_trio_token()
            began = []

            def listen(one: Client) -> list[tuple[str, int, int]]:
                got = []
                for answer in one.x509_svids():
                    got.append(identity(answer))
                    if len(got) == 1:
                        began.append(1)
                        if len(began) == 10:
                            token.run_sync_soon(first.set)
                    if len(got) == 4:
                        break
                return got

            async def listener() -> None:
                heard.append(await asked(served, listen))

            serials = [4711]
            async with trio.open_nursery() as nursery:
                for _ in range(10):
                    nursery.start_soon(listener)
                await first.wait()
                for _ in range(2):
                    serials.append(serials[-1] + 1)
                    served.source.set(svid=served.mesh.svid(WEB, serial=serials[-1]))
                    served.source.set(revocations=Revocations(serials=frozenset({len(serials)})))  # nobody's here
                both = TrustBundle.of(WEB.trust_domain, [*served.mesh.bundle.anchors_der, Mesh().root.der])
                served.source.set(bundle=both)
            expected = [(str(WEB), serial, 1) for serial in serials]
            assert heard == [[*expected, (str(WEB), serials[-1], 2)]] * 10

    run()


@trio_test
async def test_bundles_are_told_by_the_trust_domains_spiffe_id(tmp_path: Path) -> None:
    """X.509 as DER one after the other, JWT keys as they were published."""
    async with serving(tmp_path) as served:
        served.join()
        answer = await asked(served, lambda one: next(one.x509_bundles()))
        assert dict(answer.bundles) == {TRUST_DOMAIN: served.mesh.root.der}
        keys = await asked(served, lambda one: next(one.jwt_bundles()))
        assert dict(keys.bundles) == {TRUST_DOMAIN: served.issuer.jwt_keys.encode()}


@trio_test
async def test_before_there_is_anything_to_say_clients_are_told_to_come_back(tmp_path: Path) -> None:
    """UNAVAILABLE, which clients answer with a back-off (SPIFFE Workload Endpoint section 6)."""
    async with serving(tmp_path) as served:
        for ask in (
            Client.x509_svids,
            Client.x509_bundles,
            Client.jwt_bundles,
            lambda one: one.jwt_svid("orders"),
            lambda one: one.validate("orders", "a.b.c"),
        ):
            assert (await refused(served, ask))[0] is grpc.StatusCode.UNAVAILABLE
        served.join()
        assert (await asked(served, lambda one: next(one.x509_svids()))).svids


@trio_test
async def test_a_stream_ends_when_the_certificate_does(tmp_path: Path) -> None:
    """UNAVAILABLE; the bundle is still told, and with a new certificate all is well again."""
    async with serving(tmp_path) as served:
        served.join()
        began, codes = trio.Event(), list[grpc.StatusCode]()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(listening, served, began, codes)
            await began.wait()
            served.later_s = 7_200
        assert codes == [grpc.StatusCode.UNAVAILABLE]
        assert (await refused(served, Client.x509_svids))[0] is grpc.StatusCode.UNAVAILABLE
        assert (await refused(served, lambda one: one.jwt_svid("orders")))[0] is grpc.StatusCode.UNAVAILABLE
        assert (await asked(served, lambda one: next(one.x509_bundles()))).bundles
        served.source.set(svid=served.mesh.svid(WEB, lifetime_s=20_000, serial=9))
        assert identity(await asked(served, lambda one: next(one.x509_svids())))[1] == 9


@pytest.mark.parametrize("by", ["identity", "serial", "authority", "control plane"])
def test_who_is_revoked_gets_nothing_and_loses_what_is_open(by: str, tmp_path: Path) -> None:
    """PERMISSION_DENIED for every method, however the revocation was said."""

    @trio_test
    async def run() -> None:
        async with serving(tmp_path) as served:
            (issuer,) = served.mesh.intermediates(1)
            svid = served.mesh.svid(WEB, chain=[issuer])
            served.source.set(svid=svid, bundle=served.mesh.bundle)
            served.endpoint.jwt_keys_changed(served.issuer.jwt_keys)
            began, codes = trio.Event(), list[grpc.StatusCode]()
            revoked = {
                "identity": Revocations(identities=frozenset({WEB})),
                "serial": Revocations(serials=frozenset({svid.serial})),
                "control plane": NOTHING_REVOKED,
                "authority": Revocations(authorities=frozenset(authority_ids((issuer.der,)))),
            }[by]
            async with trio.open_nursery() as nursery:
                nursery.start_soon(listening, served, began, codes)
                await began.wait()
                if by == "control plane":
                    served.source.note_refusal(GRPC_PERMISSION_DENIED, "your certificate was revoked")
                served.source.set(revocations=revoked)
            assert codes == [grpc.StatusCode.PERMISSION_DENIED]
            for ask in (
                Client.x509_svids,
                Client.x509_bundles,
                Client.jwt_bundles,
                lambda one: one.jwt_svid("orders"),
                lambda one: one.validate("orders", "a.b.c"),
            ):
                assert (await refused(served, ask))[0] is grpc.StatusCode.PERMISSION_DENIED
            served.source.set(revocations=NOTHING_REVOKED)
            served.source.denied = ""
            assert (await asked(served, lambda one: next(one.x509_svids()))).svids

    run()


@trio_test
async def test_a_token_is_fetched_and_validated(tmp_path: Path) -> None:
    """For one audience or several; the claims come back; a second wish costs the control plane nothing."""
    async with serving(tmp_path) as served:
        served.join()
        svid = await asked(served, lambda one: one.jwt_svid("orders", "billing", "orders"))
        assert svid.spiffe_id == str(WEB)
        assert await asked(served, lambda one: one.jwt_svid("billing", "orders", spiffe_id=str(WEB))) == svid
        assert served.issuer.issued == 1
        for audience in ("orders", "billing"):
            valid = await asked(served, validating(audience, svid.svid))
            assert valid.spiffe_id == str(WEB)
            claims = MessageToDict(valid.claims)
            assert claims["aud"] == ["billing", "orders"]
            assert claims["exp"] == claims["iat"] + served.issuer.life_s


@trio_test
async def test_a_token_that_does_not_hold_is_refused_with_its_reason(tmp_path: Path) -> None:
    """INVALID_ARGUMENT, and nothing of the token in the text."""
    async with serving(tmp_path) as served:
        served.join()
        token = (await asked(served, lambda one: one.jwt_svid("orders"))).svid
        head, claims, _ = token.split(".")
        for audience, text, reason in (
            ("other", token, "audience"),
            ("orders", f"{head}.{claims}.{'A' * 86}", "signature"),
            ("orders", "a.b", "malformed"),
            ("orders", "a" * 10_000, "too_large"),
        ):
            code, details = await refused(served, validating(audience, text))
            assert (code, details) == (grpc.StatusCode.INVALID_ARGUMENT, f"the token is not valid: {reason}")
        served.source.set(revocations=Revocations(identities=frozenset({ORDERS})))
        valid = await asked(served, validating("orders", token))  # that was another one's revocation
        assert valid.spiffe_id == str(WEB)
        served.later_s = 300 + 61
        assert "expired" in (await refused(served, lambda one: one.validate("orders", token)))[1]


@trio_test
async def test_what_is_asked_wrongly_is_said(tmp_path: Path) -> None:
    """Mandatory fields (SPIFFE Workload API section 4.5), bounds, and somebody else's identity."""
    invalid = grpc.StatusCode.INVALID_ARGUMENT
    async with serving(tmp_path) as served:
        served.join()
        for ask in (
            Client.jwt_svid,
            lambda one: one.jwt_svid(""),
            lambda one: one.jwt_svid("a", ""),
            lambda one: one.jwt_svid("a" * 513),
            lambda one: one.jwt_svid(*map(str, range(17))),
            lambda one: one.jwt_svid("a", spiffe_id="orders"),
            lambda one: one.validate("", "a.b.c"),
            lambda one: one.validate("a", ""),
        ):
            assert (await refused(served, ask))[0] is invalid
        code, _ = await refused(served, lambda one: one.jwt_svid("a", spiffe_id=str(ORDERS)))
        assert code is grpc.StatusCode.PERMISSION_DENIED
        assert served.issuer.issued == 0


@trio_test
async def test_the_optional_profile_is_not_there(tmp_path: Path) -> None:
    """UNIMPLEMENTED (SPIFFE Workload API section 7)."""
    async with serving(tmp_path) as served:
        served.join()
        for method in ("FetchWITSVID", "FetchWITBundles"):
            ask = methodcaller("stream", method, pb.X509SVIDRequest(), pb.X509SVIDResponse)
            assert (await refused(served, ask))[0] is grpc.StatusCode.UNIMPLEMENTED


@trio_test
async def test_new_keys_are_told_and_old_tokens_forgotten(tmp_path: Path) -> None:
    """A token of a key that is not published any more is worth nothing."""
    async with serving(tmp_path) as served:
        served.join()
        before = await asked(served, lambda one: one.jwt_svid("orders"))
        served.issuer.key = type(served.issuer.key).generate_key("P-256", {"kid": "two"})
        served.endpoint.jwt_keys_changed(served.issuer.jwt_keys)
        after = await asked(served, lambda one: one.jwt_svid("orders"))
        assert after.svid != before.svid
        assert (await asked(served, lambda one: one.validate("orders", after.svid))).spiffe_id == str(WEB)
        code, details = await refused(served, lambda one: one.validate("orders", before.svid))
        assert (code, details) == (grpc.StatusCode.INVALID_ARGUMENT, "the token is not valid: unknown_key")
        served.endpoint.jwt_keys_changed("")
        assert (await refused(served, Client.jwt_bundles))[0] is grpc.StatusCode.UNAVAILABLE


@trio_test
async def test_nothing_secret_is_said_by_repr_or_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Who asked is in the log, what was answered is not."""
    caplog.set_level("DEBUG")
    async with serving(tmp_path, timeouts=Timeouts(headers_s=5)) as served:
        served.join()
        token = (await asked(served, lambda one: one.jwt_svid("orders"))).svid
        await asked(served, lambda one: next(one.x509_svids()))
        said = " ".join(str(record.__dict__) for record in caplog.records)
        shown = said + repr(served.endpoint) + repr(served.endpoint.calls) + repr(served.source)
        assert "FetchX509SVID" in said
        assert "'uid': " in said
        assert token not in shown
        assert served.source.svid is not None
        assert served.source.svid.private_key.private_numbers().private_value.to_bytes(32).hex() not in shown
