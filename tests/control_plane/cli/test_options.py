"""Durations, kinds, labels and names, as people type them."""

from __future__ import annotations

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.cli.options import KINDS, Duration, Kind, Label, namespace_of, split_name


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30s", 30), ("10m", 600), ("1h30m", 5_400), ("500ms", 0.5), ("1.5h", 5_400), ("2d", 172_800), ("0s", 0)],
)
def test_a_duration_has_its_units(text: str, seconds: float) -> None:
    """Units may be combined."""
    assert Duration().convert(text, None, None) == seconds


@pytest.mark.parametrize(
    "text", ["", "10", "m", "-5s", "10 m", "10m ", "1h-30m", "1e3s", "\u0661\u0660s", "10mm", "1.s", "inf"]
)
def test_what_is_no_duration_is_refused_with_what_to_write(text: str) -> None:
    """A number without its unit would be guessed, so it is refused."""
    with pytest.raises(click.BadParameter, match="such as 30s, 10m or 1h30m"):
        Duration().convert(text, None, None)


@given(st.text())
def test_any_text_is_a_duration_or_a_usage_error(text: str) -> None:
    """Nothing else escapes the parser."""
    try:
        assert Duration().convert(text, None, None) >= 0
    except click.BadParameter:
        pass


@given(st.sampled_from([(name, kind) for kind, names in KINDS.items() for name in names]), st.data())
def test_a_kind_is_known_in_any_case_and_number(known: tuple[str, str], data: st.DataObject) -> None:
    """Singular, plural, short, however the letters are cased."""
    name, kind = known
    spelled = "".join(letter.upper() if data.draw(st.booleans()) else letter for letter in name)
    assert Kind().convert(spelled, None, None) == kind


def test_an_unknown_kind_is_refused_with_the_nearest_known_one() -> None:
    """A typo is answered with what was probably meant."""
    with pytest.raises(click.BadParameter, match="did you mean authorizationpolicy"):
        Kind().convert("authorisationpolicy", None, None)
    with pytest.raises(click.BadParameter, match=r"known: .*meshconfig"):
        Kind().convert("zzz", None, None)


def test_all_is_a_kind_only_where_it_makes_sense() -> None:
    """`delete all` does not exist."""
    assert Kind(or_all=True).convert("all", None, None) == ""
    with pytest.raises(click.BadParameter):
        Kind().convert("all", None, None)


def test_a_label_is_split_at_its_first_equals_sign() -> None:
    """A value may hold another one, or be empty."""
    assert Label().convert("a=b=c", None, None) == ("a", "b=c")
    assert Label().convert("a=", None, None) == ("a", "")
    for text in ("a", "=b", ""):
        with pytest.raises(click.BadParameter, match="key=value"):
            Label().convert(text, None, None)


def test_a_name_may_carry_its_namespace_as_it_is_listed() -> None:
    """`shop/orders`, but not against --namespace."""
    assert split_name("orders", None) == ("orders", None)
    assert split_name("orders", "shop") == ("orders", "shop")
    assert split_name("shop/orders", None) == ("orders", "shop")
    assert split_name("shop/orders", "shop") == ("orders", "shop")
    for name, namespace in (("shop/orders", "other"), ("/orders", None), ("shop/", None)):
        with pytest.raises(click.UsageError):
            split_name(name, namespace)


def test_a_mesh_wide_kind_has_no_namespace() -> None:
    """And everything else is in `default` unless said otherwise."""
    assert namespace_of("MeshConfig", None) == ""
    assert namespace_of("AuthorizationPolicy", None) == "default"
    assert namespace_of("AuthorizationPolicy", "shop") == "shop"
    with pytest.raises(click.UsageError, match="whole mesh"):
        namespace_of("MeshConfig", "shop")
