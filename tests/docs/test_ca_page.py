"""docs/ca.md, as typed: authorities rotated by hand, an offline root kept by openssl, a mesh that has expired."""

from __future__ import annotations

import pytest

from control_plane.ca.slots import SKEW_S, CaPolicy
from control_plane.config_ca import CaConfig
from control_plane.model import Phase
from tests.docs.markdown import DOCS, Table, code, parts, section
from tests.docs.transcript import Played, play_page

PAGE = (DOCS / "ca.md").read_text()
DAY_S = 86_400.0


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Played:
    return play_page(DOCS / "ca.md", tmp_path_factory)


@pytest.mark.slow
def test_every_command_of_the_page_works(played: Played) -> None:
    """In order, each with exit code 0."""
    played.assert_all_done("docs/ca.md")


@pytest.mark.slow
def test_every_command_prints_what_the_page_says(played: Played) -> None:
    """Line by line, but for times and ids."""
    assert sum(step.expected is None for step in played.steps) <= 1
    played.assert_printed()


@pytest.mark.slow
def test_nothing_is_left_running(played: Played) -> None:
    """Each control plane of the page is stopped on the page."""
    played.assert_nothing_runs()


def lives() -> tuple[Table, Table]:
    first, second = (one for one in parts(section(PAGE, "What rotates by itself")) if isinstance(one, Table))
    return first, second


def test_the_page_names_every_phase() -> None:
    """In the order of a life."""
    assert [row[0] for row in lives()[1].rows] == [one.value for one in Phase]


def test_the_page_has_the_lives_as_they_are() -> None:
    """Of a control plane that is configured nothing."""
    rows = {row[0]: row for row in lives()[0].rows}
    policy, config = CaPolicy(), CaConfig()
    assert rows["root"][1] == f"{policy.root_lifetime_s / DAY_S:g} days"
    assert rows["intermediate"][1] == f"{policy.intermediate_lifetime_s / DAY_S:g} days"
    assert rows["JWT key"][1] == f"{policy.jwt_key_lifetime_s / DAY_S:g} days"
    for row in rows.values():
        block, _, field = code(row[4]).rpartition(".")
        assert not block or hasattr(config, field)
    assert f"{config.node_lifetime_s / DAY_S:g} days after their last certificate (`ca.node_lifetime_s`)" in PAGE
    assert f"Clocks in the mesh may be {SKEW_S:g} s apart" in PAGE
