"""h2spec and h2specd: where they are, how they are run, what they report.

Both come from https://github.com/summerwind/h2spec; `make conformance` installs them where Go is. h2spec plays the
client and judges servers, and writes JUnit XML. h2specd plays the server and judges clients: it listens on one port per
case, runs a command for each, and reports on standard output only.
"""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree
from xml.sax.saxutils import escape

import pytest
import trio

ROOT = Path(__file__).parent.parent.parent
INSTALLED = ROOT / ".tools" / "bin"
TIMEOUT_S = 2
"""How long h2spec waits for an answer that does not come: it costs time only in cases that fail."""
CLIENT_TIMEOUT_S = 1
"""The same of h2specd. Then it says goodbye, and closes a second later; a client not done in 3 s ends the whole run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What one run of a tool found, by case: "http2/6.5.3/2"."""

    passed: frozenset[str]
    missed: dict[str, str]
    """Case -> its description, what was expected and what was seen."""

    @property
    def total(self) -> int:
        return len(self.passed) + len(self.missed)

    def check(self, expected_total: int, excused: dict[str, str]) -> None:
        """AssertionError unless all ran and exactly the `excused` (case -> reason) were missed."""
        unexpected = [f"{case} {what}" for case, what in sorted(self.missed.items()) if case not in excused]
        assert not unexpected, "\n\n".join([f"missed {len(unexpected)} of {self.total}:", *unexpected])
        stale = sorted(set(excused) - set(self.missed))
        assert not stale, f"excused, and passed: take them out of the table: {stale}"
        assert self.total == expected_total, f"{self.total} cases ran instead of {expected_total}"


def tool(name: str) -> str:
    """Its path. A missing tool fails the test."""
    found = shutil.which(name, path=str(INSTALLED)) or shutil.which(name)
    if found is None:
        pytest.fail(f"{name} is not installed: `make conformance` does it, and needs Go (https://go.dev/dl)")
    return found


async def h2spec(port: int, path: str, report: Path) -> Report:
    """All cases, strict ones too, against the plaintext HTTP/2 server on a loopback port. `path` must be answered."""
    command = [tool("h2spec"), "--port", str(port), "--path", path, "--strict", "--timeout", str(TIMEOUT_S)]
    run = await trio.run_process([*command, "--junit-report", str(report)], capture_stdout=True, check=False)
    assert report.exists(), run.stdout.decode()[-2000:]
    return read_junit(report)


QUOTED = re.compile("(<(?:error|failure)>)(.*?)(</(?:error|failure)>)", re.DOTALL)
CONTROL = re.compile(r"[^\n -~]")


def read_junit(path: Path) -> Report:
    """The report names sections; a case is counted within its section, as h2spec does on the command line.

    What was seen is quoted in it without any escaping, octets of PING included."""
    text = QUOTED.sub(lambda found: found[1] + escape(CONTROL.sub("?", found[2])) + found[3], path.read_text("latin-1"))
    passed, missed = set(), {}
    for suite in ElementTree.fromstring(text).iter("testsuite"):  # noqa: S314 - our own tool wrote it
        for number, case in enumerate(suite.iter("testcase"), start=1):
            name = f"{suite.get('package')}/{number}"
            problems = [child for child in case if child.tag in ("failure", "error", "skipped")]
            if problems:
                found = [f"{problem.tag}: {problem.text or ''}".strip() for problem in problems]
                missed[name] = "\n".join([case.get("classname", ""), *found])
            else:
                passed.add(name)
    return Report(passed=frozenset(passed), missed=missed)


async def h2specd(from_port: int, client: str) -> Report:
    """All cases; `client` is the command to which the URL of a case is appended (no quoting: split at spaces)."""
    command = [tool("h2specd"), "--from-port", str(from_port), "--exec", client, "--timeout", str(CLIENT_TIMEOUT_S)]
    run = await trio.run_process(command, capture_stdout=True, capture_stderr=True, check=False)
    report = read_listing(run.stdout.decode())
    assert report.total, (run.stdout + run.stderr).decode()
    return report


SECTION = re.compile(r"\s*(\d+(?:\.\d+)*)\. \S.*")
VERDICT = re.compile("\\s*(\N{HEAVY CHECK MARK}|\N{MULTIPLICATION SIGN}) (\\d+): (.*)")
UNFINISHED = re.compile(r"Error: (.*)")  # what a case says is indented


def read_listing(text: str) -> Report:
    """What h2specd prints while it runs, up to its second list of what failed."""
    passed: set[str] = set()
    missed: dict[str, str] = {}
    section = case = ""
    for line in text.partition("Failures:")[0].replace("\r", "\n").splitlines():
        if verdict := VERDICT.fullmatch(line):
            mark, number, description = verdict.groups()
            case = f"{section}/{number}"
            if mark == "\N{HEAVY CHECK MARK}":
                passed.add(case)
            else:
                missed[case] = description
        elif heading := SECTION.fullmatch(line):
            section, case = heading[1], ""
        elif stop := UNFINISHED.fullmatch(line):
            missed[f"after {case or section}"] = f"h2specd gave up: {stop[1]}"
        elif case in missed:
            missed[case] += f"\n{line.strip()}"
    return Report(passed=frozenset(passed), missed=missed)
