"""Programs that are missing are named, with what to install."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import tools


def test_a_missing_program_is_named_with_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is skipped silently."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(tools, "SBIN", (str(tmp_path),))
    assert tools.find("h2load") is None
    with pytest.raises(tools.Missing, match=r"h2load is not installed.*apt-get install nghttp2-client"):
        tools.need("h2load")


def test_servers_are_found_where_users_do_not_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """nginx and nghttpd are in /usr/sbin, which is not in every PATH."""
    program = tmp_path / "nginx"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(tools, "SBIN", (str(tmp_path),))
    assert tools.need("nginx") == str(program)


def test_a_venv_that_was_never_made_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`make bench` makes it."""
    monkeypatch.setattr(tools, "ROOT", tmp_path)
    monkeypatch.setattr(tools, "VENV", tmp_path / ".venv-bench")
    with pytest.raises(tools.Missing, match="make bench"):
        tools.in_venv("py-spy")
