"""sidecar/rules/routing.py"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.rules.errors import RoutingError
from sidecar.rules.routing import ServiceName, pick_port, resolve


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("orders", "orders.web"),
        ("orders.shop", "orders.shop"),
        ("orders.shop.svc", "orders.shop"),
        ("orders.shop.svc.cluster.local", "orders.shop"),
        ("Orders.Shop", "orders.shop"),
        ("orders.shop.", "orders.shop"),
        ("orders.shop.svc.cluster.local.", "orders.shop"),
        ("a-1.b-2", "a-1.b-2"),
        ("1.2", "1.2"),
    ],
)
def test_a_service_may_be_written_as_in_kubernetes(host: str, name: str) -> None:
    """Short within a namespace, longer from elsewhere."""
    assert str(resolve(host, 80, "web")) == name


@pytest.mark.parametrize(
    "host",
    [
        "",
        ".",
        "..",
        "orders..shop",
        ".orders",
        "orders.shop.cluster.local",
        "orders.shop.svc.cluster",
        "orders.shop.svc.cluster.local.evil",
        "orders.shop.svc.example.com",
        "www.example.com",
        "10.0.0.1",
        "[::1]",
        "::1",
        "-a.shop",
        "a-.shop",
        "a_b.shop",
        "a b.shop",
        "a/b.shop",
        "ordérs.shop",
        "orders\n.shop",
        "orders.shop\n",
        "*.shop",
        "a" * 64,
        "a." * 200,
    ],
)
def test_h12_everything_else_is_not_in_the_mesh(host: str) -> None:
    """And says so; nothing is guessed."""
    with pytest.raises(RoutingError):
        resolve(host, None, "web")


@pytest.mark.parametrize("port", [0, -1, 65_536])
def test_a_port_is_a_port(port: int) -> None:
    """1 to 65535."""
    with pytest.raises(RoutingError, match="not a port"):
        resolve("orders", port, "web")


@given(st.text())
def test_any_text_resolves_or_is_refused(host: str) -> None:
    """Never another error; and what resolves is a pair of DNS labels."""
    try:
        found = resolve(host, None, "web")
    except RoutingError:
        return
    assert resolve(str(found), None, "elsewhere") == found


@pytest.mark.parametrize(
    ("ports", "port", "picked"),
    [
        ({8080}, 8080, 8080),
        ({80, 8080}, 8080, 8080),
        ({80, 8080}, 80, 80),
        ({80, 8080}, None, 80),
        ({80}, None, 80),
        ({9090}, None, 9090),
    ],
)
def test_a_port_is_picked_by_name_then_80_then_the_only_one(ports: set[int], port: int | None, picked: int) -> None:
    """In that order."""
    assert pick_port(ports, port) == picked


@pytest.mark.parametrize(("ports", "port"), [({8080}, 80), ({8080, 9090}, None), (set[int](), None), (set[int](), 80)])
def test_a_port_that_is_not_there_or_not_clear_is_refused(ports: set[int], port: int | None) -> None:
    """No falling back to another port than the one asked for."""
    with pytest.raises(RoutingError):
        pick_port(ports, port)


def test_the_error_lists_what_there_is() -> None:
    """So that the caller can correct the address."""
    with pytest.raises(RoutingError, match="no port 80, it has 8080, 9090"):
        pick_port({9090, 8080}, 80)


def test_a_service_name_is_a_value() -> None:
    """Usable as a key; its text is the key of a snapshot's services."""
    assert {ServiceName("a", "b"): 1}[resolve("a.b", None, "c")] == 1
