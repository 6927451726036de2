"""docs/revocation.md, as typed; and its figures."""

from __future__ import annotations

import pytest

from certs.revocation import SERIALS_MAX
from control_plane.api.revoke import KINDS
from control_plane.config_ca import CaConfig
from sidecar.rules.decode_trust import IDENTITIES_MAX
from tests.docs.markdown import DOCS
from tests.docs.transcript import ANYWHERE, Played, play_page

PAGE = (DOCS / "revocation.md").read_text()


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Played:
    return play_page(DOCS / "revocation.md", tmp_path_factory, listen=ANYWHERE)


@pytest.mark.slow
def test_every_command_of_the_page_works(played: Played) -> None:
    """In order, each with exit code 0; and what is printed is what the page says."""
    played.assert_all_done("docs/revocation.md")
    played.assert_printed()
    played.assert_nothing_runs()


def test_the_page_has_every_kind() -> None:
    """As a row of its table."""
    assert all(f"| `{kind}` |" in PAGE for kind in KINDS)


def test_the_page_has_the_figures_as_they_are() -> None:
    """How many can be revoked, how long a node may stay away."""
    assert (SERIALS_MAX, IDENTITIES_MAX) == (100_000, 10_000)
    assert "A hundred thousand serial numbers and ten thousand identities" in PAGE
    assert CaConfig().node_lifetime_s == 30 * 86_400
    assert "for 30 days" in PAGE
