"""SPIFFE IDs: one way to write each, and everything else is refused."""

from __future__ import annotations

import string

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from certs.errors import CertsError, InvalidSpiffeId
from certs.spiffe_id import SpiffeId, TrustDomain

TD = TrustDomain.parse("mesh.local")

segments = st.text(string.ascii_letters + string.digits + "._-", min_size=1, max_size=40).filter(
    lambda text: text not in {".", ".."}
)
trust_domains = st.text(string.ascii_lowercase + string.digits + "._-", min_size=1, max_size=60)
uris = st.builds(
    lambda td, path: f"spiffe://{td}/{'/'.join(path)}", trust_domains, st.lists(segments, min_size=1, max_size=6)
)
almost_uris = st.builds(
    lambda text, cut, put: text[:cut] + put + text[cut:], uris, st.integers(0, 60), st.text(max_size=3)
)

ACCEPTED = [
    "spiffe://mesh.local/ns/shop/sa/web",
    "spiffe://mesh.local/a",
    "spiffe://a/b",
    "spiffe://1.2.3.4/x",
    "spiffe://under_score-dash.dot/A-Z_a.z-0.9",
    "spiffe://td/...",
    "spiffe://td/.hidden/..x/x..",
    "spiffe://mesh.local/" + "x" * (2048 - len("spiffe://mesh.local/")),
    "spiffe://" + "t" * 255 + "/x",
]

REFUSED = {
    "empty": ("", "begins with spiffe://"),
    "no scheme": ("mesh.local/ns/shop/sa/web", "begins with spiffe://"),
    "another scheme": ("https://mesh.local/ns/shop/sa/web", "begins with spiffe://"),
    "scheme in upper case": ("SPIFFE://mesh.local/x", "begins with spiffe://"),
    "space before": (" spiffe://mesh.local/x", "begins with spiffe://"),
    "one slash": ("spiffe:/mesh.local/x", "begins with spiffe://"),
    "no trust domain": ("spiffe:///x", "has a name"),
    "no path": ("spiffe://mesh.local", "has a path"),
    "empty path": ("spiffe://mesh.local/", "empty segment"),
    "upper case trust domain": ("spiffe://Mesh.local/x", "trust domain is written with"),
    "port": ("spiffe://mesh.local:8443/x", "trust domain is written with"),
    "userinfo": ("spiffe://me@mesh.local/x", "trust domain is written with"),
    "percent in trust domain": ("spiffe://mesh%2elocal/x", "trust domain is written with"),
    "non-ASCII trust domain": ("spiffe://m\u00e9sh.local/x", "trust domain is written with"),
    "look-alike trust domain": ("spiffe://mesh.loc\u0430l/x", "trust domain is written with"),
    "newline after trust domain": ("spiffe://mesh.local\n/x", "trust domain is written with"),
    "trust domain of 256 bytes": ("spiffe://" + "t" * 256 + "/x", "at most 255"),
    "query": ("spiffe://mesh.local/x?y", "path is written with"),
    "query without path": ("spiffe://mesh.local?y", "has a path"),
    "fragment": ("spiffe://mesh.local/x#y", "path is written with"),
    "percent": ("spiffe://mesh.local/%6es/shop", "path is written with"),
    "double slash": ("spiffe://mesh.local/ns//shop", "empty segment"),
    "slash at the end": ("spiffe://mesh.local/ns/shop/", "empty segment"),
    "dot": ("spiffe://mesh.local/./x", "'.' or '..'"),
    "dot dot": ("spiffe://mesh.local/ns/a/../b", "'.' or '..'"),
    "backslash": ("spiffe://mesh.local/ns\\shop", "path is written with"),
    "newline at the end": ("spiffe://mesh.local/x\n", "path is written with"),
    "NUL": ("spiffe://mesh.local/x\0y", "path is written with"),
    "tab": ("spiffe://mesh.local/x\ty", "path is written with"),
    "space": ("spiffe://mesh.local/x y", "path is written with"),
    "colon in path": ("spiffe://mesh.local/x:y", "path is written with"),
    "asterisk": ("spiffe://mesh.local/ns/*", "path is written with"),
    "non-ASCII digits": ("spiffe://mesh.local/\u0661", "path is written with"),
    "2049 bytes": ("spiffe://mesh.local/" + "x" * (2049 - len("spiffe://mesh.local/")), "at most 2048"),
    "a megabyte": ("spiffe://" + "x" * 1_000_000, "at most 2048"),
    "surrogate": ("spiffe://mesh.local/\ud800", "path is written with"),
}


@pytest.mark.parametrize("text", ACCEPTED)
def test_a_legal_id_is_kept_as_it_was_written(text: str) -> None:
    """SPIFFE-ID section 2; no normalisation ever."""
    assert str(SpiffeId.parse(text)) == text
    assert SpiffeId.parse(text).principal == text.removeprefix("spiffe://")


@pytest.mark.parametrize(("text", "why"), REFUSED.values(), ids=REFUSED.keys())
def test_f05_an_id_written_in_any_other_way_is_refused(text: str, why: str) -> None:
    """Row F05; the message says what is wrong and stays short."""
    with pytest.raises(InvalidSpiffeId) as caught:
        SpiffeId.parse(text)
    assert why in str(caught.value)
    assert caught.value.row == "F05"
    assert len(str(caught.value)) < 250
    assert str(caught.value).isascii()
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("thing", [None, b"spiffe://mesh.local/x", 7, ["spiffe://mesh.local/x"]])
def test_f05_what_is_not_text_is_refused(thing: object) -> None:
    """Bytes are not an ID either: somebody forgot to decode them strictly."""
    with pytest.raises(InvalidSpiffeId):
        SpiffeId.parse(thing)  # type: ignore[arg-type]
    with pytest.raises(InvalidSpiffeId):
        TrustDomain.parse(thing)  # type: ignore[arg-type]


@given(uris)
def test_every_id_survives_the_round_trip(text: str) -> None:
    """What is accepted is byte for byte what was written."""
    assert str(SpiffeId.parse(text)) == text


@given(st.one_of(st.text(), almost_uris, st.text().map("spiffe://".__add__)))
@example("spiffe://a/b\n")
def test_parse_raises_nothing_but_invalid_spiffe_id(text: str) -> None:
    """And whatever it accepts, it did not change."""
    try:
        assert str(SpiffeId.parse(text)) == text
    except InvalidSpiffeId:
        assert breaks_the_grammar(text)


def breaks_the_grammar(text: str) -> bool:
    """An oracle of another kind: the grammar spelled out by hand, character by character."""
    if len(text) > 2048 or text[:9] != "spiffe://":
        return True
    name, *path = text[9:].split("/")
    lower = set(string.ascii_lowercase + string.digits + "._-")
    both = lower | set(string.ascii_uppercase)
    return (
        not 1 <= len(name) <= 255
        or not set(name) <= lower
        or not path
        or any(not part or part in {".", ".."} or not set(part) <= both for part in path)
    )


@given(uris, uris)
def test_ids_are_equal_exactly_when_their_texts_are(left: str, right: str) -> None:
    """Byte compare: no two texts name the same identity."""
    assert (SpiffeId.parse(left) == SpiffeId.parse(right)) == (left == right)
    assert SpiffeId.parse(left) == SpiffeId.parse(left)
    assert hash(SpiffeId.parse(left)) == hash(SpiffeId.parse(left))


def test_an_id_is_never_equal_to_a_text() -> None:
    """A checked identity cannot be compared with an unchecked text by accident."""
    text = "spiffe://mesh.local/ns/shop/sa/web"
    identity = SpiffeId.parse(text)
    things: list[object] = [text, text.encode(), identity.principal, identity.path]
    assert all(identity != thing for thing in things)
    assert TD != "mesh.local"  # type: ignore[comparison-overlap]
    assert not {identity} & set(things)


def test_an_id_cannot_be_made_or_changed_around_the_check() -> None:
    """The constructor checks too, and values are frozen."""
    with pytest.raises(InvalidSpiffeId):
        SpiffeId(trust_domain=TD, path="/ns/../x")
    with pytest.raises(InvalidSpiffeId):
        SpiffeId(trust_domain=TD, path="")
    with pytest.raises(InvalidSpiffeId):
        TrustDomain(name="Mesh.local")
    with pytest.raises(AttributeError):
        SpiffeId.for_control_plane(TD).path = "/x"  # type: ignore[misc]


def test_workloads_operators_and_the_control_plane_are_told_apart() -> None:
    """Each identity is of at most one kind."""
    workload = SpiffeId.for_workload(TD, "shop", "web")
    operator = SpiffeId.for_operator(TD, "ada")
    control_plane = SpiffeId.for_control_plane(TD)
    assert str(workload) == "spiffe://mesh.local/ns/shop/sa/web"
    assert str(operator) == "spiffe://mesh.local/hauberk/operator/ada"
    assert str(control_plane) == "spiffe://mesh.local/hauberk/control-plane"
    assert (workload.namespace, workload.service_account) == ("shop", "web")
    assert (operator.namespace, operator.service_account) == (None, None)
    kinds = [(one.is_workload, one.is_operator, one.is_control_plane) for one in (workload, operator, control_plane)]
    assert kinds == [(True, False, False), (False, True, False), (False, False, True)]


@pytest.mark.parametrize(
    "path",
    [
        "/ns/shop/sa",
        "/ns/shop/sa/web/x",
        "/NS/shop/sa/web",
        "/x/ns/shop/sa/web",
        "/ns/shop/SA/web",
        "/hauberk/operator",
        "/hauberk/operator/a/b",
        "/hauberk/operators/a",
        "/hauberk/control-plane/x",
        "/Hauberk/control-plane",
        "/hauberk/control-planes",
    ],
)
def test_a_path_that_only_resembles_a_kind_is_of_no_kind(path: str) -> None:
    """Prefixes are not kinds."""
    identity = SpiffeId(trust_domain=TD, path=path)
    assert not any((identity.is_workload, identity.is_operator, identity.is_control_plane))


@pytest.mark.parametrize(
    ("namespace", "service_account"), [("a/sa/b", "c"), ("a", "b/c"), ("", "b"), ("a", ""), ("..", "b"), ("a", "%2e")]
)
def test_g09_names_cannot_climb_out_of_their_place_in_the_path(namespace: str, service_account: str) -> None:
    """Row G09: a namespace is one segment, whatever it holds."""
    with pytest.raises(InvalidSpiffeId):
        SpiffeId.for_workload(TD, namespace, service_account)


@pytest.mark.parametrize("name", ["", "a/b", "../control-plane", "a\n"])
def test_g09_an_operators_name_is_one_segment(name: str) -> None:
    """Row G09."""
    with pytest.raises(InvalidSpiffeId):
        SpiffeId.for_operator(TD, name)


def test_an_invalid_id_is_a_value_error_and_one_of_ours() -> None:
    """Callers may catch either."""
    assert issubclass(InvalidSpiffeId, ValueError)
    assert issubclass(InvalidSpiffeId, CertsError)


def test_the_repr_says_who_it_is() -> None:
    """For logs and failing tests."""
    assert repr(SpiffeId.for_workload(TD, "a", "b")) == "SpiffeId(spiffe://mesh.local/ns/a/sa/b)"
    assert (repr(TD), str(TD), TD.uri) == ("TrustDomain(mesh.local)", "mesh.local", "spiffe://mesh.local")
