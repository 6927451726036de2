"""Every page: links lead somewhere, paths and commands named exist, lines stay readable."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from control_plane.cli.main import cli
from tests.docs.markdown import PAGES, ROOT, blocks, codes

LINE_CHARACTERS_MAX = 160
"""Of prose; tables and fenced blocks are as wide as they must be."""
_LINK = re.compile(r"\[[^]]+\]\(([^)]+)\)")
_PATH = re.compile(r"(?:certs|control_plane|sidecar|protos|deploy|tests|docs)/[\w./-]*")
_OF_COMMAND = re.compile(r"(?:^|[\s`|])hauberk +((?:[a-z][a-z-]*\b *)+)")
_OPTION = re.compile(r"(?<!\S)--[a-z][a-z0-9-]*")

pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def anchors(text: str) -> set[str]:
    """Of headings, as forges make them."""
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pages
def test_every_link_leads_somewhere(page: Path) -> None:
    """Within the repository; others are not tried."""
    for link in _LINK.findall(page.read_text()):
        if link.startswith("https://"):
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target.read_text()), link


@pages
def test_every_path_named_exists(page: Path) -> None:
    """What stands as `code` and looks like a path of the repository."""
    for text in codes(page.read_text()):
        if _PATH.fullmatch(text):
            assert (ROOT / text).exists(), text


def commands(page: Path) -> Iterator[str]:
    """Lines with a `hauberk` command: in fenced bash, indented, or as `code`; continued lines joined."""
    text = page.read_text()
    lines = [line for block in blocks(text, "bash") for line in re.sub(r"\\\n", " ", block.text).splitlines()]
    lines += re.findall(r"^ {4,}(.+)$", re.sub(r"\\\n", " ", text), re.MULTILINE)
    yield from (line for line in [*lines, *codes(text)] if "hauberk " in line)


@pages
def test_every_command_and_option_named_exists(page: Path) -> None:
    """Of `hauberk`; what comes after ` -- ` is another program's."""
    for line in commands(page):
        own = line.split(" -- ")[0]
        match = _OF_COMMAND.search(own)
        if match is None:
            continue
        command: click.Command = cli
        for word in match[1].split():
            if not isinstance(command, click.Group):
                break
            assert word in command.commands, line
            command = command.commands[word]
        known = {option for parameter in command.params for option in parameter.opts} | {"--help"}
        used = set(_OPTION.findall(own[match.end() :].split("#")[0].split("|")[0]))
        assert used <= known, line


@pages
def test_lines_of_prose_stay_readable(page: Path) -> None:
    """In an editor, and in a diff."""
    prose = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    long = [line for line in prose.splitlines() if len(line) > LINE_CHARACTERS_MAX and not line.startswith("|")]
    assert long == []


@pages
def test_no_page_shouts(page: Path) -> None:
    """No exclamation marks in prose."""
    prose = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    assert "!" not in re.sub(r"`[^`\n]+`", "", prose)
