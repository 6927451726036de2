"""h2spec against every engine as a server: plaintext from the app, and mutual TLS from the mesh.

A miss is an entry of a table here, with its reason, and the same for every engine; an entry that passes is an error
too, so the tables stay true.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from sidecar.http.engines import HTTP2_ENGINES
from sidecar.net.tls import client_context
from tests.conformance.conftest import PATH, Stage
from tests.conformance.forwarder import forwarding
from tests.conformance.tools import h2spec
from tests.trio_support import trio_test

pytestmark = [pytest.mark.conformance, pytest.mark.parametrize("engine", HTTP2_ENGINES)]

SERVER_CASES = 146
"""Of h2spec 2.2.1: 145, and one that is strict."""
OUTBOUND_MISSES = {
    "http2/3.5/2": "The port speaks HTTP/1.1 as well: what does not begin with the preface is answered 400 in HTTP/1.1,"
    " and the connection is closed. h2spec takes that answer for a broken frame.",
}
"""Case -> why it is right not to pass it."""
MESH_MISSES: dict[str, str] = {}


@trio_test(timeout_s=100)
async def test_the_outbound_listener_conforms(engine: str, stage: Stage, tmp_path: Path) -> None:
    """In plaintext, as the app sees it: HTTP/2 with prior knowledge."""
    report = await h2spec(stage.side(engine).outbound_port, PATH, tmp_path / "report.xml")
    report.check(SERVER_CASES, OUTBOUND_MISSES)


@trio_test(timeout_s=100)
async def test_the_mesh_listener_conforms(engine: str, stage: Stage, tmp_path: Path) -> None:
    """Over mutual TLS, as another sidecar sees it."""
    context = client_context(stage.joined.svid, stage.joined.bundle)
    async with forwarding(stage.side(engine).mesh_port, context) as port:
        report = await h2spec(port, PATH, tmp_path / "report.xml")
    report.check(SERVER_CASES, MESH_MISSES)
