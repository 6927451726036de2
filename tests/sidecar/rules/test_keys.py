"""Which attributes a `when` may name."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.rules.keys import CLAIM_DEPTH_MAX, Attribute, Key, parse_key


@pytest.mark.parametrize("attribute", [one for one in Attribute if not one.takes_a_name])
def test_every_attribute_without_a_name_is_known(attribute: Attribute) -> None:
    """By Istio's own name of it."""
    assert parse_key(attribute.value) == Key(attribute)


def test_a_header_is_named_in_any_case() -> None:
    """Names of fields know no case (RFC 9110 section 5.1)."""
    assert parse_key("request.headers[X-Token]") == Key(Attribute.HEADER, ("x-token",))


def test_a_claim_may_be_nested() -> None:
    """The case of a claim matters (RFC 7519 section 4)."""
    key = parse_key("request.auth.claims[realm_access][Roles]")
    assert key == Key(Attribute.CLAIM, ("realm_access", "Roles"))
    assert str(key) == "request.auth.claims[realm_access][Roles]"
    assert parse_key("request.auth.claims[https://example.com/groups]").names == ("https://example.com/groups",)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("request.header[x]", "not an attribute known"),
        ("", "not an attribute known"),
        ("source.ip[x]", "takes no [name]"),
        ("request.headers", "name one header"),
        ("request.headers[]", "name one header"),
        ("request.headers[a][b]", "name one header"),
        ("request.headers[a b]", "name one header"),
        ("request.headers[:method]", "name one header"),
        ("request.headers[Host]", "use hosts"),
        ("request.headers[Traceparent]", "the mesh's own"),
        ("request.auth.claims", "name a claim"),
        ("request.auth.claims[]", "name a claim"),
        ("request.auth.claims" + "[a]" * (CLAIM_DEPTH_MAX + 1), "name a claim"),
        ("request.auth.claims[a", "not an attribute known"),
        ("experimental.envoy.filters.network.mysql_proxy[db.table]", "not an attribute known"),
    ],
)
def test_h01_an_attribute_that_is_not_known_is_refused(text: str, why: str) -> None:
    """A condition that nothing understands must not become none."""
    with pytest.raises(ValueError, match=why.replace("[", r"\[")):
        parse_key(text)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("X-Forwarded-Client-Cert", "only the mesh sets it"),
        ("x_forwarded_client_cert", "only the mesh sets it"),
        ("x-hauberk-principal", "use principals"),
        ("X_Hauberk_Anything", "use principals"),
        ("Connection", "about one connection"),
        ("keep-alive", "about one connection"),
        ("Proxy-Authorization", "about one connection"),
        ("transfer-encoding", "about one connection"),
        ("upgrade", "about one connection"),
        ("http2-settings", "about one connection"),
    ],
)
def test_h01_a_header_that_no_request_has_when_it_is_judged_is_refused(name: str, why: str) -> None:
    """As a DENY such a condition would protect nothing."""
    with pytest.raises(ValueError, match=f"the header {name.lower()} cannot be looked at: .*{why}"):
        parse_key(f"request.headers[{name}]")


@pytest.mark.parametrize("name", ["te", "content-length", "x-forwarded-for", "authorization", "cookie", "expect"])
def test_a_header_that_crosses_may_be_looked_at(name: str) -> None:
    """Also one that says something about the message."""
    assert parse_key(f"request.headers[{name}]").names == (name,)


@given(st.text(max_size=60))
def test_every_text_is_a_key_or_a_value_error(text: str) -> None:
    """And a key that is understood is written as it was read, but for the case of a header."""
    try:
        key = parse_key(text)
    except ValueError:
        return
    assert parse_key(str(key)) == key
