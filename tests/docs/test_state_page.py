"""docs/state.md, as typed: backup, restore, audit; and its figures."""

from __future__ import annotations

import pytest

from control_plane.audit import log, refusals
from control_plane.audit.export import OCSF_VERSION
from control_plane.backup import MANIFEST
from tests.docs.markdown import DOCS
from tests.docs.transcript import ANYWHERE, Played, play_page

PAGE = (DOCS / "state.md").read_text()


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Played:
    return play_page(DOCS / "state.md", tmp_path_factory, listen=ANYWHERE)


@pytest.mark.slow
def test_every_command_of_the_page_works(played: Played) -> None:
    """In order, each with exit code 0; and what is printed is what the page says."""
    played.assert_all_done("docs/state.md")
    played.assert_printed()
    played.assert_nothing_runs()


def test_the_page_has_the_figures_as_they_are() -> None:
    """Of checkpoints, refused calls and full files."""
    assert f"Every {log.CHECKPOINT_RECORDS:,} records" in PAGE
    assert log.CHECKPOINT_S == 300
    limits = f"at most {refusals.EACH_PEER} a second of one peer, {refusals.ALL} of all, and {refusals.HOUR:,} an hour"
    assert limits in PAGE
    assert f"At {log.ROTATE_OCTETS // 2**20} MiB the file" in PAGE
    assert f"schema.ocsf.io/{OCSF_VERSION}" in PAGE
    assert MANIFEST.removesuffix(".json") in PAGE
