"""Paths an app may read otherwise than they are written (security.md C02, C06, C11): no rule may be walked around.

Most frameworks decode a path before they route it, so `/v1/things%3Adelete` is `/v1/things:delete` to them; and servlet
containers take `;parameters` away."""

from __future__ import annotations

import pytest

from sidecar.rules.authz import Authorizer, Facts, Permit
from sidecar.rules.snapshot import Operation, Rule
from tests.sidecar.rules.builders import allow, deny, facts, snapshot, workload

EVERYTHING = allow(Rule())
DENIED = [
    # policy, request
    ("*:delete", "/v1/things:delete"),
    ("*:delete", "/v1/things%3Adelete"),
    ("/v1/things:delete", "/v1/things%3Adelete"),
    ("/v1/things%3Adelete", "/v1/things:delete"),
    ("/~root@*", "/~root%40here"),
    ("/users/@admin", "/users/%40admin"),
    ("/a%2Ab", "/a*b"),
    ("/a%2Ab", "/a%2Ab"),
    ("/a,b", "/a%2Cb"),
    ("/admin", "/admin;x=1"),
    ("/admin", "/admin%3Bx=1"),
    ("/x/admin", "/x;a/admin;b"),
]
DISTINCT = [
    ("/admin", "/admin%2Fx"[:6] + "%20"),
    ("/a b".replace(" ", "%20"), "/a%2520b"),
    ("/a:b", "/a%253Ab"),
    ("/admin", "/Admin"),
]


def verdicts(authorizer: Authorizer, about: Facts) -> tuple[bool, bool]:
    """As the two ways to ask say it: whole facts, and a connection's own authorizer."""
    one = authorizer.authorize(about)
    other = authorizer.for_peer(about.peer).authorize(about.host, about.port, about.method, about.path)
    return isinstance(one, Permit), isinstance(other, Permit)


@pytest.mark.parametrize(("value", "path"), DENIED)
def test_c06_a_deny_holds_in_every_reading(value: str, path: str) -> None:
    """DENY: if one reading of the path matches, the request is denied."""
    authorizer = Authorizer(snapshot([EVERYTHING, deny(Rule(operations=(Operation(paths=(value,)),)))]))
    assert verdicts(authorizer, facts(path=path)) == (False, False)


@pytest.mark.parametrize(("value", "path"), DENIED)
def test_c06_an_allow_with_an_exception_excepts_every_reading(value: str, path: str) -> None:
    """ALLOW with notPaths: what is excepted in one reading is not allowed in any."""
    rule = Rule(operations=(Operation(paths=("/*",), not_paths=(value,)),))
    assert verdicts(Authorizer(snapshot([allow(rule)])), facts(path=path)) == (False, False)


@pytest.mark.parametrize(("value", "path"), DISTINCT)
def test_c11_what_is_another_path_to_everybody_is_another_path_here(value: str, path: str) -> None:
    """Decoded once and not twice, and never what a separator would hide."""
    authorizer = Authorizer(snapshot([EVERYTHING, deny(Rule(operations=(Operation(paths=(value,)),)))]))
    assert verdicts(authorizer, facts(path=path)) == (True, True)


def test_c06_parameters_alone_allow_nothing_more() -> None:
    """ALLOW for exactly `/admin` is for nobody who adds parameters: allowing goes by what is written."""
    rule = Rule(operations=(Operation(paths=("/admin",)),))
    assert verdicts(Authorizer(snapshot([allow(rule)])), facts(path="/admin;x")) == (False, False)
    assert workload("web") is not None
