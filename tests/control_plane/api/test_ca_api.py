"""The certificate authorities over the operator's socket: looked at, moved on, rehearsed."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from control_plane.config_ca import CaConfig
from protos.hauberk.v1 import admin_pb2 as pb
from protos.hauberk.v1 import discovery_pb2
from tests.control_plane.support import Mesh, Rpc, asyncio_test, audited, refusal, running, watching


async def status(operator: Rpc) -> pb.CaStatusResponse:
    return await operator.call("Admin/CaStatus", pb.CaStatusRequest(), pb.CaStatusResponse)


async def step(operator: Rpc, what: str, level: str = "", **more: object) -> pb.CaStepResponse:
    request = pb.CaStepRequest(step=what, level=level, **more)  # type: ignore[arg-type]  # its own fields
    return await operator.call("Admin/CaStep", request, pb.CaStepResponse)


async def rehearsed(operator: Rpc, level: str = "root", **more: object) -> pb.CaRehearseResponse:
    request = pb.CaRehearseRequest(level=level, **more)  # type: ignore[arg-type]  # its own fields
    return await operator.call("Admin/CaRehearse", request, pb.CaRehearseResponse)


def phases(answer: pb.CaStatusResponse, level: str) -> list[str]:
    return [one.phase for one in answer.authorities if one.level == level]


def active(answer: pb.CaStatusResponse, level: str) -> pb.Authority:
    (one,) = [one for one in answer.authorities if (one.level, one.phase) == (level, "active")]
    return one


@asyncio_test
async def test_a_new_mesh_has_one_of_each_level(tmp_path: Path) -> None:
    """And says when their successors come."""
    async with running(tmp_path) as mesh, mesh.operator() as operator:
        answer = await status(operator)
        for level in ("root", "intermediate", "jwt"):
            assert phases(answer, level) == ["active"]
        assert active(answer, "intermediate").parent_id == active(answer, "root").authority_id
        assert active(answer, "root").certificate_pem.startswith("-----BEGIN CERTIFICATE-----")
        assert {(one.level, one.step) for one in answer.next_steps} == {
            ("root", "prepare"),
            ("intermediate", "prepare"),
            ("jwt", "prepare"),
        }
        assert list(answer.alarms) == []


@asyncio_test
async def test_live_certificates_are_counted_under_both(tmp_path: Path) -> None:
    """Under the intermediate that signed and the root above it."""
    async with running(tmp_path) as mesh, mesh.operator() as operator:
        before = await status(operator)
        await mesh.join()
        after = await status(operator)
        for level in ("root", "intermediate"):
            assert active(after, level).live_certificates == active(before, level).live_certificates + 1
            assert active(after, level).last_certificate_not_after > after.server_time


@asyncio_test
async def test_an_intermediate_is_rotated_by_hand(tmp_path: Path) -> None:
    """Prepare, activate: the one before is old, and is retired by itself when nothing hangs on it."""
    async with running(tmp_path) as mesh, mesh.operator() as operator:
        await mesh.join()
        old = active(await status(operator), "intermediate")
        made = await step(operator, "prepare", "intermediate")
        assert (made.authority.phase, made.csr_pem) == ("prepared", "")
        done = await step(operator, "activate", "intermediate")
        assert (done.authority.authority_id, done.authority.phase) == (made.authority.authority_id, "active")
        held = {one.authority_id: one for one in (await status(operator)).authorities}
        assert held[old.authority_id].phase == "old"
        assert held[old.authority_id].live_certificates >= 1


@asyncio_test
async def test_a_revocation_that_breaks_somebody_is_refused_with_their_names(tmp_path: Path) -> None:
    """With force it is done; a dry run names them and changes nothing."""
    async with running(tmp_path) as mesh, mesh.operator() as operator:
        await mesh.join()
        old = active(await status(operator), "intermediate").authority_id
        await step(operator, "prepare", "intermediate")
        await step(operator, "activate", "intermediate")
        code, details = await refusal(step(operator, "revoke", authority_id=old[:6]))
        assert code == "FAILED_PRECONDITION"
        assert "spiffe://mesh.local/ns/shop/sa/orders" in details
        dry = await step(operator, "revoke", authority_id=old[:6], dry_run=True)
        assert dry.authority.phase == "old"
        assert any("spiffe://mesh.local/ns/shop/sa/orders" in one for one in dry.breaks)
        tainted = await step(operator, "taint", authority_id=old)
        assert tainted.authority.phase == "tainted"
        for _ in range(2):  # again: it changes nothing
            forced = await step(operator, "revoke", authority_id=old, force=True)
            assert forced.authority.phase == "revoked"


@asyncio_test
async def test_an_authority_that_was_retired_can_still_be_revoked(tmp_path: Path) -> None:
    """Its certificate has not ended: whoever has its key could sign, and be believed."""
    async with running(tmp_path) as mesh, mesh.operator() as operator:
        old = active(await status(operator), "intermediate").authority_id
        await step(operator, "prepare", "intermediate")
        await step(operator, "activate", "intermediate")
        async with asyncio.timeout(10):
            while {one.authority_id: one for one in (await status(operator)).authorities}[old].phase != "revoked":
                await asyncio.sleep(0.1)
        retired = {one.authority_id: one for one in (await status(operator)).authorities}[old]
        assert retired.tainted_at == 0
        for what in ("taint", "revoke"):
            done = await step(operator, what, authority_id=old)
            assert (done.authority.phase, done.authority.tainted_at > 0) == ("revoked", True)


@pytest.mark.parametrize(
    ("request_", "says"),
    [
        ({"step": "jump"}, "step: 'jump' is none"),
        ({"step": "prepare"}, "level: say which"),
        ({"step": "prepare", "level": "leaf"}, "level: 'leaf' is none"),
        ({"step": "taint"}, "authority_id: say which"),
        ({"step": "activate", "level": "root"}, "no root is prepared; run `hauberk ca prepare root` first"),
        ({"step": "taint", "authority_id": "zz"}, "no authority of that id"),
        ({"step": "recover"}, "has not expired"),
    ],
)
def test_what_cannot_be_done_is_refused_with_the_way_out(request_: dict[str, str], says: str, tmp_path: Path) -> None:
    """And changes nothing."""

    async def ask(mesh: Mesh) -> None:
        async with mesh.operator() as operator:
            before = await status(operator)
            code, details = await refusal(
                operator.call("Admin/CaStep", pb.CaStepRequest(**request_), pb.CaStepResponse)  # type: ignore[arg-type]
            )
            assert code in ("INVALID_ARGUMENT", "FAILED_PRECONDITION")
            assert says in details
            after = await status(operator)
            assert list(after.authorities) == list(before.authorities)

    @asyncio_test
    async def play() -> None:
        async with running(tmp_path) as mesh:
            await ask(mesh)

    play()


@asyncio_test
async def test_a_workload_may_not_look(tmp_path: Path) -> None:
    """g19: authorities are the operators' business."""
    async with running(tmp_path) as mesh:
        svid = await mesh.join()
        async with mesh.as_member(svid) as member:
            code, _ = await refusal(status(member))
            assert code == "PERMISSION_DENIED"


@asyncio_test
async def test_a_rehearsal_changes_nothing_and_tells_who_fails(tmp_path: Path) -> None:
    """The one that has joined and is away: it has no node key."""
    async with running(tmp_path) as mesh, mesh.operator() as operator:
        await mesh.join()
        before = await status(operator)
        answer = await rehearsed(operator)
        assert [one.what for one in answer.steps][-2:] == [
            "the rotation is through",
            "who was away is assumed to come back now: " + answer.failures[0].who,
        ]
        (failure,) = answer.failures
        assert failure.who.startswith("spiffe://mesh.local/ns/shop/sa/orders (node ")
        assert "it has no node key" in failure.why
        assert (getattr(failure, "from") > before.server_time, failure.until) == (True, 0)
        assert list((await status(operator)).authorities) == list(before.authorities)


@asyncio_test
async def test_a_sidecar_that_is_connected_and_takes_what_it_gets_fails_nowhere(tmp_path: Path) -> None:
    """It is known to be there by its stream; one that refused its last snapshot is waited for by name."""
    async with running(tmp_path) as mesh, mesh.operator() as operator:
        svid = await mesh.join()
        async with mesh.as_member(svid) as member:
            watcher = await watching(member)
            await watcher.taken()
            answer = await rehearsed(operator)
            assert list(answer.failures) == []
            assert answer.steps[-1].what == "the rotation is through"
            await step(operator, "prepare", "root")
            refused = await watcher.snapshot()
            nack = discovery_pb2.Nack(epoch=refused.epoch, version=refused.version, reason="no")
            await watcher.say(nack=nack)
            async with asyncio.timeout(10):
                while not any(one.rejected_reason for one in (await operator.status()).workloads):
                    await asyncio.sleep(0.02)
            stuck = await rehearsed(operator)
            assert list(stuck.failures) == []
            waits = "the rotation is not through; it waits for spiffe://mesh.local/ns/shop/sa/orders#one"
            assert stuck.steps[-1].what == waits


@asyncio_test
async def test_r05_it_is_said_until_when_a_new_anchor_waits_for_who_does_not_know_it(tmp_path: Path) -> None:
    """Half of the time that is left when it is due, or made. What waits for nobody, or for ever, has no such time."""
    async with running(tmp_path) as mesh, mesh.operator() as operator:
        await mesh.join()
        made = (await step(operator, "prepare", "root")).authority
        answer = await status(operator)
        old, steps = active(answer, "root"), {(one.level, one.step): one for one in answer.next_steps}
        waiting = steps["root", "activate"]
        assert len(waiting.waits_for) == 1
        assert waiting.authority_id == made.authority_id
        assert waiting.not_before < waiting.waits_until == (waiting.not_before + old.not_after) / 2
        assert steps["intermediate", "prepare"].waits_until == 0


@asyncio_test
async def test_a_rehearsal_of_nonsense_is_refused(tmp_path: Path) -> None:
    """Levels that nobody waits for, times without end."""
    async with running(tmp_path) as mesh, mesh.operator() as operator:
        for level, horizon_s in (("jwt", 0.0), ("", 0.0), ("root", -1.0), ("root", float("nan")), ("root", 1e12)):
            code, _ = await refusal(rehearsed(operator, level, horizon_s=horizon_s))
            assert code == "INVALID_ARGUMENT"


@asyncio_test
async def test_an_offline_root_is_asked_with_a_request(tmp_path: Path) -> None:
    """It is the same request however often one asks for it."""
    async with running(tmp_path, ca=CaConfig(root="offline")) as mesh, mesh.operator() as operator:
        first, again = await step(operator, "prepare", "intermediate"), await step(operator, "prepare", "intermediate")
        assert first.csr_pem.startswith("-----BEGIN CERTIFICATE REQUEST-----")
        assert first.authority == again.authority
        (waiting,) = [one for one in (await status(operator)).next_steps if one.step == "install"]
        assert (list(waiting.waits_for), waiting.waits_until) == (["the offline root's signature"], 0)
        code, details = await refusal(
            operator.call("Admin/CaInstall", pb.CaInstallRequest(certificate_pem="nothing"), pb.CaStepResponse)
        )
        assert code == "FAILED_PRECONDITION"
        assert "no certificate in PEM" in details


@asyncio_test
async def test_no_join_token_is_made_before_there_is_a_root(tmp_path: Path) -> None:
    """Its pin would be of an anchor that never signs anything: the refusal says which commands come first."""
    async with running(tmp_path, ca=CaConfig(root="offline")) as mesh, mesh.operator() as operator:
        code, details = await refusal(operator.token("orders"))
        assert code == "FAILED_PRECONDITION"
        assert "hauberk ca prepare intermediate --csr FILE" in details
        assert "hauberk ca install FILE" in details
        assert (await operator.status()).anchor_sha256 == ""
        assert [one["event"] for one in audited(mesh.config.data_dir)] == ["call.refused"]
