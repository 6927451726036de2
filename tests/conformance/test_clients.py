"""h2specd against every engine as a client: it plays the app of a sidecar, one port per case.

Each case is one request of curl to the sidecar's mesh port, for the service's port of the same number, and so one
connection of the sidecar to h2specd. What curl is answered does not matter; h2specd judges what it saw.
"""

from __future__ import annotations

import pytest

from sidecar.http.engines import HTTP2_ENGINES
from sidecar.net.tls import client_context
from tests.conformance.conftest import CLIENT_CASES, Stage
from tests.conformance.forwarder import forwarding
from tests.conformance.tools import h2specd
from tests.trio_support import trio_test

pytestmark = [pytest.mark.conformance, pytest.mark.parametrize("engine", HTTP2_ENGINES)]

MISSES: dict[str, str] = {}
"""Case -> why it is right not to pass it."""


@trio_test(timeout_s=100)
async def test_the_upstream_session_conforms(engine: str, stage: Stage) -> None:
    """All cases of h2specd."""
    context = client_context(stage.joined.svid, stage.joined.bundle)
    async with forwarding(stage.side(engine).cases_mesh_port, context) as port:
        curl = f"curl --silent --noproxy * --max-time 10 --http2-prior-knowledge --connect-to ::127.0.0.1:{port}"
        report = await h2specd(stage.cases_from, curl)
    report.check(CLIENT_CASES, MISSES)
