"""The control plane's disk is full, its files are locked or gone, two control planes are on one (J03, J08, R25)."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from certs.bundle import TrustBundle
from certs.csr import make_csr
from certs.errors import CertsError
from certs.spiffe_id import SpiffeId
from certs.svid import new_private_key
from certs.verify import verify_chain
from control_plane.audit.verify import files_of, store_facts, verify
from control_plane.errors import StoreError, StoreLocked
from control_plane.store import sqlite_file
from control_plane.store.sqlite import SqliteStore
from protos.hauberk.v1 import identity_pb2
from sidecar.config import Config
from sidecar.identity.errors import IssuedRefused
from sidecar.identity.join_port import joined
from sidecar.identity.skew import ClockSkew
from tests.control_plane.support import (
    TD,
    Mesh,
    asyncio_test,
    join_request,
    policy_yaml,
    refusal,
    running,
    svid_of,
    watching,
)


@contextlib.contextmanager
def no_space() -> Iterator[None]:
    """No file of this process can grow (EFBIG stands for ENOSPC: a write that ends in the same branch)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def is_whole(data_dir: Path) -> bool:
    facts = store_facts(data_dir)
    return verify(files_of(data_dir), key=facts.public_key, stored=facts.head).problem is None


@asyncio_test
async def test_j03_r25_a_full_disk_refuses_what_cannot_be_made_durable_and_pushes_go_on(tmp_path: Path) -> None:
    """UNAVAILABLE for what writes; looking, and streams, are as before; a token that could not be spent is good."""
    async with running(tmp_path) as mesh, mesh.operator() as operator, mesh.anonymous() as stranger:
        svid = await mesh.join("web")
        token, key = await operator.token(), new_private_key()
        async with mesh.as_member(svid) as member:
            watcher = await watching(member)
            await watcher.taken()
            before = (await operator.status()).version
            joins, renews = join_request(token, make_csr(key, None)), identity_pb2.RenewRequest()
            renews.csr_der = make_csr(key, None)
            with no_space():
                for call in (
                    operator.token(),
                    operator.apply(policy_yaml()),
                    stranger.call("Identity/Join", joins, identity_pb2.SvidResponse),
                    member.call("Identity/Renew", renews, identity_pb2.SvidResponse),
                ):
                    status, text = await refusal(call)
                    assert status == "UNAVAILABLE"
                    assert "nothing was changed" in text or "try again" in text
                assert (await operator.status()).version == before
            await operator.apply(policy_yaml("web"))
            await watcher.until(lambda one: one.version > before)
            answer = await stranger.call(
                "Identity/Join", join_request(token, make_csr(key, None)), identity_pb2.SvidResponse
            )
            assert svid_of(answer, key).spiffe_id.path.endswith("orders")
    assert is_whole(mesh.config.data_dir)


@pytest.mark.parametrize("how", ["locked", "moved", "audit file moved"])
@asyncio_test
async def test_r25_a_store_that_cannot_be_written_acknowledges_nothing(how: str, tmp_path: Path) -> None:
    """Whatever the reason; and when it is over, it goes on."""
    async with running(tmp_path) as mesh, mesh.operator() as operator:
        await operator.token()
        with broken(how, mesh):
            status, _ = await refusal(operator.token())
            assert status == "UNAVAILABLE"
            assert (await operator.status()).trust_domain == "mesh.local"
        await operator.token()
    assert is_whole(mesh.config.data_dir)
    store = SqliteStore.open(mesh.config.data_dir / "hauberk.db")
    tokens = [one for one in _audited(mesh) if one["event"] == "token.created"]
    assert [store.token(str(one["token_id"])) is not None for one in tokens if not _undone(mesh, one["seq"])] == [
        True,
        True,
    ]
    store.close()


def _audited(mesh: Mesh) -> list[dict[str, object]]:
    return [json.loads(line) for line in (mesh.config.data_dir / "audit.jsonl").read_text().splitlines()]


def _undone(mesh: Mesh, seq: object) -> bool:
    ranges = [one["records"] for one in _audited(mesh) if one["event"] == "audit.not_committed"]
    return any(str(seq) in text.split("-") for each in ranges for text in each)  # type: ignore[attr-defined]


@contextlib.contextmanager
def broken(how: str, mesh: Mesh) -> Iterator[None]:
    path = mesh.config.data_dir / ("audit.jsonl" if "audit" in how else "hauberk.db")
    if "moved" in how:
        aside = path.with_name("aside")
        path.rename(aside)
        yield
        aside.rename(path)
        return
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as beside:
        # Another writer. Slowness itself: `test_sick_store`.
        beside.execute("BEGIN IMMEDIATE")
        yield
        beside.execute("ROLLBACK")


@pytest.fixture(autouse=True)
def _short_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_file, "_BUSY_TIMEOUT_MS", 200)


@pytest.mark.parametrize("way", ["same path", "linked directory", "dotted path", "hard link"])
def test_j08_a_file_is_one_control_planes_whatever_path_leads_to_it(way: str, tmp_path: Path) -> None:
    """The lock is beside the file, so every path to the directory finds it; a second name of the file is refused."""
    home = tmp_path / "home"
    home.mkdir()
    first = SqliteStore.open(home / "hauberk.db")
    paths = {
        "same path": home,
        "linked directory": tmp_path / "link",
        "dotted path": home / ".." / "home",
        "hard link": tmp_path / "other",
    }
    (tmp_path / "link").symlink_to(home)
    (tmp_path / "other").mkdir()
    if way == "hard link":
        os.link(home / "hauberk.db", tmp_path / "other" / "hauberk.db")
    with pytest.raises(StoreError if way == "hard link" else StoreLocked):
        SqliteStore.open(paths[way] / "hauberk.db")
    first.close()


@pytest.mark.parametrize(("behind_s", "is_taken"), [(10, True), (59, True), (62, False), (600, False)])
@asyncio_test
async def test_j01_a_clock_is_a_minute_behind_at_most_and_who_is_further_off_is_told(
    behind_s: float, is_taken: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Certificates are dated back by 60 s, so a peer takes a new one until then, and so does the sidecar that joins; it
    logs by how much its clock is off while there is still room."""
    async with running(tmp_path) as mesh, mesh.operator() as operator, mesh.anonymous() as stranger:
        key = new_private_key()
        request = join_request(await operator.token(), make_csr(key, None))
        answer = await stranger.call("Identity/Join", request, identity_pb2.SvidResponse)
    bundle = TrustBundle.of(TD, answer.trust_anchors_der)
    chain, clock, skew = list(answer.certificate_chain_der), answer.server_time - behind_s, ClockSkew()
    config = Config(service="orders", namespace="shop")
    with contextlib.nullcontext() if is_taken else pytest.raises(CertsError):
        assert verify_chain(chain, bundle, clock) == SpiffeId.for_workload(TD, "shop", "orders")
    caplog.clear()
    with contextlib.nullcontext() if is_taken else pytest.raises(IssuedRefused):
        joined(config, answer, key, bundle, asked_at=clock, now=clock, skew=skew)
    told = [getattr(one, "skew_s") for one in caplog.records if one.name == "sidecar.identity.skew"]  # noqa: B009  # an extra
    assert told == ([-behind_s] if behind_s > 30 else [])
