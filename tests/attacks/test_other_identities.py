"""Certificates of the mesh that are no workload's, on a mesh port: they may not call apps, whatever the policy says."""

from __future__ import annotations

import pytest
import trio

from certs.spiffe_id import SpiffeId
from sidecar.telemetry.access_log import RefusedConnection
from tests.attacks.support import ALLOW_ALL, App, attacker, request, settled, target
from tests.sidecar.mesh import TD
from tests.trio_support import trio_test


@pytest.mark.parametrize("identity", [SpiffeId.for_control_plane(TD), SpiffeId.for_operator(TD, "ann")], ids=str)
def test_g15_only_workloads_reach_an_app(identity: SpiffeId) -> None:
    """A rule without `from` means every workload, and not the operators' and the control plane's own certificates."""

    @trio_test
    async def ask() -> None:
        app = App()
        async with target(ALLOW_ALL, app=app) as it:
            try:
                async with attacker(it, identity) as peer:
                    assert (await peer.ask(request())).end == "closed"
            except trio.BrokenResourceError:
                pass  # closed before it could even ask
            await settled(lambda: it.log.entries)
            (entry,) = it.log.entries
            assert isinstance(entry, RefusedConnection)
            assert entry.reason == "not_a_workload"
            assert it.records == []
        assert app.received == b""

    ask()
