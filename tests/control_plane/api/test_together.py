"""Calls that share a commit: what each of them may rely on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from certs.csr import make_csr
from certs.svid import new_private_key
from control_plane.api.together import AT_ONCE_MAX, Together
from control_plane.errors import PermissionDenied, Unavailable
from control_plane.store.sqlite import SqliteStore
from protos.hauberk.v1 import identity_pb2
from tests.contract.test_store_identity import Notes
from tests.control_plane.support import asyncio_test, join_request, running, svid_of


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    opened = SqliteStore.open(tmp_path / "hauberk.db")
    yield opened
    opened.close()


class Calls:
    """That write a fact each."""

    def __init__(self, store: SqliteStore) -> None:
        self._store = store
        self.run = 0

    def writing(self, name: str, *, refused: bool = False) -> Callable[[], Coroutine[Any, Any, str]]:
        async def call() -> str:
            self.run += 1
            with self._store.transaction():
                self._store.change_fact(name, "written")
                if refused:
                    raise PermissionDenied(name)
            return name

        return call


@asyncio_test
async def test_those_that_come_together_cost_one_commit(store: SqliteStore) -> None:
    """As many as one batch takes; who was refused alone is answered so, and left nothing."""
    notes, together = Notes(store), Together(store)
    store.attach(notes)
    calls = Calls(store)
    names = [f"fact-{number}" for number in range(2 * AT_ONCE_MAX)]
    outcomes = await asyncio.gather(
        *(together.run(calls.writing(one, refused=one == "fact-3")) for one in names),
        return_exceptions=True,
    )
    assert [one for one in outcomes if one not in names] == [outcomes[3]]
    assert isinstance(outcomes[3], PermissionDenied)
    assert notes.told.count("committed") == 2
    assert [one for one in names if store.fact(one) is None] == ["fact-3"]


@asyncio_test
async def test_g30_nobody_is_answered_yes_for_what_is_not_durable(store: SqliteStore) -> None:
    """The commit fails: those who were refused hear why they were, the others that nothing was changed."""
    notes, together = Notes(store), Together(store)
    store.attach(notes)
    notes.fails = True
    calls = Calls(store)
    outcomes = await asyncio.gather(
        *(together.run(calls.writing(f"fact-{number}", refused=number == 1)) for number in range(3)),
        return_exceptions=True,
    )
    assert [type(one) for one in outcomes] == [Unavailable, PermissionDenied, Unavailable]
    assert store.fact("fact-0") is None


@asyncio_test
async def test_who_went_away_before_spends_nothing(store: SqliteStore) -> None:
    """A token, for example."""
    together, calls = Together(store), Calls(store)
    gone = asyncio.ensure_future(together.run(calls.writing("gone")))
    stays = asyncio.ensure_future(together.run(calls.writing("stays")))
    await asyncio.sleep(0)
    gone.cancel()
    assert await stays == "stays"
    assert (store.fact("gone"), calls.run) == (None, 1)


@asyncio_test
async def test_a_call_that_waits_is_an_error_of_ours_and_harms_nobody_else(store: SqliteStore) -> None:
    """It would hold the batch open for everybody."""
    together, calls = Together(store), Calls(store)

    async def waits() -> None:
        await asyncio.sleep(0)

    outcomes = await asyncio.gather(
        together.run(waits),
        together.run(calls.writing("fact")),
        return_exceptions=True,
    )
    assert isinstance(outcomes[0], RuntimeError)
    assert (outcomes[1], store.fact("fact")) == ("fact", "written")


@asyncio_test
async def test_j10_joins_that_come_together_are_each_whole_or_nothing(tmp_path: Path) -> None:
    """Over one connection at once: good tokens, a token shown twice, a wrong secret. Each good one has its certificate
    and its audit record once; no refused one has any, and every token that was not spent is still good."""
    async with running(tmp_path) as mesh, mesh.operator() as operator, mesh.anonymous() as stranger:
        good = [await operator.token() for _ in range(5)]
        wrong = good[4][: good[4].index(".", 10) + 1] + "A" * 22 + good[4][good[4].index(".", 10) + 23 :]
        keys = [new_private_key() for _ in range(6)]

        async def join(token: str, number: int) -> str:
            request = join_request(token, make_csr(keys[number], None))
            try:
                answer = await stranger.call("Identity/Join", request, identity_pb2.SvidResponse)
            except grpc.aio.AioRpcError as error:
                return str(error.code().name)
            return f"{svid_of(answer, keys[number]).serial:x}"

        shown = [*good[:4], good[0], wrong]
        outcomes = await asyncio.gather(*(join(token, number) for number, token in enumerate(shown)))
        refused = [one for one in outcomes if one == "PERMISSION_DENIED"]
        serials = sorted(one for one in outcomes if one != "PERMISSION_DENIED")
        assert (len(refused), len(serials)) == (2, 4)
        audited = (mesh.config.data_dir / "audit.jsonl").read_text()
        assert [audited.count(f'"serial":"{one}"') for one in serials] == [1] * 4
        assert audited.count('"event":"identity.joined"') == 4
        assert (await join(good[4], 5)) != "PERMISSION_DENIED"
