"""Listeners that the sidecar does not stand before are found in the kernel's own words."""

from __future__ import annotations

import socket
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.config import Address, Config, Inbound
from sidecar.listening import exposed_listeners, read_tables, warn_if_exposed
from sidecar.rules.snapshot import Protocol

# Captured from a machine with little-endian words: heading, then sockets.
TABLE = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 639 1
   1: 0100007F:1F91 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 640 1
   2: 0700000A:1F91 0800000A:C001 01 00000000:00000000 00:00000000 00000000     0        0 641 1
"""


@pytest.mark.parametrize(
    ("host", "family", "exposed"),
    [
        ("127.0.0.1", socket.AF_INET, []),
        ("127.0.0.9", socket.AF_INET, []),
        ("0.0.0.0", socket.AF_INET, ["0.0.0.0"]),
        ("::1", socket.AF_INET6, []),
        ("::", socket.AF_INET6, ["::"]),
        ("::ffff:127.0.0.1", socket.AF_INET6, []),
    ],
)
def test_a_real_listener_is_told_from_one_on_loopback(
    host: str, family: socket.AddressFamily, exposed: list[str]
) -> None:
    """Both tables of this machine, whatever its byte order."""
    with socket.socket(family) as listener:
        listener.bind((host, 0))
        port = listener.getsockname()[1]
        assert exposed_listeners(port, read_tables()) == []
        listener.listen()
        assert exposed_listeners(port, read_tables()) == exposed


def test_only_listening_sockets_of_that_port_count() -> None:
    """Connections from outside through the sidecar are no listeners; headings are passed over."""
    assert exposed_listeners(8080, TABLE) == ["0.0.0.0"]
    assert exposed_listeners(8081, TABLE) == []
    assert exposed_listeners(8082, TABLE) == []


@given(st.integers(0, 2**128 - 1), st.integers(1, 65_535))
def test_any_address_the_kernel_can_print_is_read(address: int, port: int) -> None:
    """At most one address comes out, and never for another port."""
    line = f"0: {address:032X}:{port:04X} {0:032X}:0000 0A"
    assert len(exposed_listeners(port, line)) <= 1
    assert exposed_listeners(port ^ 1, line) == []


def test_a_table_that_is_missing_is_empty() -> None:
    """A kernel without IPv6 has no tcp6."""
    assert read_tables(["/proc/self/net/no-such-table"]) == ""


def test_an_app_that_listens_for_everybody_is_told_loudly(caplog: pytest.LogCaptureFixture) -> None:
    """It can be reached past its sidecar: the kernel says where. A unix socket cannot."""
    with socket.create_server(("0.0.0.0", 0)) as listener:
        port = listener.getsockname()[1]
        exposed = Inbound(port=80, app=Address("127.0.0.1", port), protocol=Protocol.HTTP1)
        hidden = Inbound(port=81, app=Address(path="/x"), protocol=Protocol.HTTP1)
        warn_if_exposed(Config(service="orders", inbound=(exposed, hidden)))
    (line,) = caplog.messages
    assert line.startswith(f"the app listens on 0.0.0.0 port {port}: whoever reaches that port goes past the sidecar")


def test_the_sidecars_own_plaintext_listener_is_no_way_past_it(caplog: pytest.LogCaptureFixture) -> None:
    """It may have the app's port number on another address, as the app had before; the app elsewhere is still told."""
    with socket.create_server(("0.0.0.0", 0)) as listener:
        port = listener.getsockname()[1]
        app, own = Address("127.0.0.1", port), Address("0.0.0.0", port)
        kept = Inbound(port=80, app=app, protocol=Protocol.HTTP1, plaintext=own)
        warn_if_exposed(Config(service="orders", inbound=(kept,)))
        assert caplog.messages == []
        warn_if_exposed(Config(service="orders", inbound=(replace(kept, plaintext=Address("10.0.0.7", port)),)))
        assert len(caplog.messages) == 1
