"""Pages that a reader types along with: their commands run in order, and print what the page says they print.

A step is a fenced bash block, with the text block right after it, if there is one, as what it prints. All steps run in
one bash under `set -euo pipefail`. Three things differ from a reader's: the directory is pytest's, the ports are free
ones, and `hauberk` is a wrapper.
"""

from __future__ import annotations

import os
import random
import re
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.docs.markdown import ROOT, Block, parts

MARK = "@@ end of block"
# What differs from run to run.
VARIABLE = (
    (re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z"), "<time>"),
    (re.compile(r"\b[0-9a-f]{64}\b"), "<sha256>"),
    (re.compile(r"\b[0-9a-f]{16}\b"), "<id>"),
    (re.compile(r"\bepoch \d+"), "epoch <n>"),
    (re.compile(r"127\.0\.0\.1:\d+"), "127.0.0.1:<port>"),
    (re.compile(r"(shop/sa/\w+ +)[0-9a-f]{8}\b"), r"\1<instance>"),
    (re.compile(r"\bin \d+[dhm]( \d+[hms])?"), "in <span>"),
    (re.compile(r"[+-]\d\.\ds\b"), "<skew>"),
    (re.compile(r"(^|\s)version +\d+"), r"\1version <n>"),
    (re.compile(r"policy version +\d+"), "policy version <n>"),
    (re.compile(r'"snapshot":\d+'), '"snapshot":<n>'),
    (re.compile(r"(127\.0\.0\.1:<port> +)\d+( +in )"), r"\1<n>\2"),
    (re.compile(r"^\d+( +<time> +)"), r"<n>\1"),
    (re.compile(r"(?<![.\d])\d+\.\d+\.\d+(?![.\d])"), "<release>"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    commands: Block
    expected: Block | None
    """What the page says they print."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Played:
    """What happened."""

    steps: Sequence[Step]
    outputs: Sequence[str]
    """What they printed, step by step; one more than there are steps if all were done."""
    exit_code: int
    group: int
    """The process group everything ran in."""
    directory: Path
    ports: Mapping[str, str]
    """Port on the page -> port used."""

    def assert_all_done(self, page: str) -> None:
        """In order, each with exit code 0."""
        done = len(self.outputs) - 1
        failed = f"{page}, block {done + 1}:\n{self.steps[done].commands.text}" if done < len(self.steps) else ""
        assert not failed, f"{failed}\n{self.outputs[-1]}"
        assert (self.exit_code, self.outputs[-1]) == (0, "")

    def assert_printed(self) -> None:
        """What the page says, line by line."""
        for step, output in zip(self.steps, self.outputs, strict=False):
            if step.expected is not None:
                line = missing(with_ports(step.expected.text, self.ports), output)
                what = f"after\n{step.commands.text}\nthe page has\n  {line}\nbut this was printed:\n{output}"
                assert not line, what

    def assert_nothing_runs(self) -> None:
        """The last step of the page ends all that the steps before it began."""
        with pytest.raises(ProcessLookupError):
            os.killpg(self.group, 0)
        for port in self.ports.values():
            with socket.socket() as probe:
                assert probe.connect_ex(("127.0.0.1", int(port))) != 0


def steps_of(text: str) -> list[Step]:
    """Every bash block with the text block right after it, if there is one."""
    found: list[Step] = []
    for part in parts(text):
        if isinstance(part, Block) and part.kind == "bash":
            found.append(Step(commands=part, expected=None))
        elif isinstance(part, Block) and part.kind == "text":
            assert found[-1].expected is None, f"line {part.line}: two outputs for one block of commands"
            found[-1] = Step(commands=found[-1].commands, expected=part)
    return found


def free_ports(count: int) -> list[str]:
    """Below the range from which the kernel gives ports away, so that nobody is given one of them meanwhile."""
    found: list[str] = []
    with ExitStack() as stack:
        while len(found) < count:
            port = random.SystemRandom().randrange(20_000, 32_000)
            with suppress(OSError):
                stack.enter_context(socket.create_server(("127.0.0.1", port)))
                found.append(str(port))
    return found


def with_ports(text: str, ports: Mapping[str, str]) -> str:
    """All at once: a port used may be another one's on the page."""
    return re.sub("|".join(rf"\b{written}\b" for written in ports), lambda match: ports[match[0]], text)


def play(
    steps: Sequence[Step], directory: Path, *, ports: Mapping[str, str], wrapper: str, start: Path, timeout_s: float
) -> Played:
    """Run the steps from `start`, which is below `directory`, with `wrapper` as the text of `hauberk`."""
    program = directory / "bin" / "hauberk"
    program.parent.mkdir()
    program.write_text(wrapper)
    program.chmod(0o755)
    script = "trap 'kill $(jobs -p) 2>/dev/null || true; wait' EXIT\n" + "".join(
        f"{with_ports(step.commands.text, ports)}echo '{MARK}'\n" for step in steps
    )
    environ = {name: value for name, value in os.environ.items() if not re.match("(?i)hauberk_|(http|no)_proxy", name)}
    path = os.pathsep.join([str(program.parent), str(Path(sys.executable).parent), environ["PATH"]])
    environ |= {"PATH": path, "TMPDIR": str(directory), "PYTHONPATH": str(ROOT), "NO_COLOR": "1"}
    output, exit_code, group = _run(script, directory, start, environ, timeout_s)
    outputs = output.split(f"{MARK}\n")
    return Played(steps=steps, outputs=outputs, exit_code=exit_code, group=group, directory=directory, ports=ports)


PLAIN, ANYWHERE = "", '[ "$1" = control-plane ] && set -- "$@" --listen 127.0.0.1:0 --join-listen 127.0.0.1:0'
PAGE_PORTS = ("15011", "15012")
PAGE_TIMEOUT_S = 120


def play_page(page: Path, factory: pytest.TempPathFactory, *, listen: str = PLAIN) -> Played:
    """Every command of `page`, in a directory of its own, with free ports for those that are written there. `listen`:
    ANYWHERE if the page starts a control plane on its default ports."""
    directory = factory.mktemp(page.stem)
    start = directory / "here"
    start.mkdir()
    ports = dict(zip(PAGE_PORTS, free_ports(len(PAGE_PORTS)), strict=True))
    hauberk = f"{shlex.quote(sys.executable)} -c 'from control_plane.cli.main import main; main()'"
    wrapper = f'#!/bin/sh\n{listen}\nexec {hauberk} "$@"\n'
    steps = steps_of(page.read_text())
    return play(steps, directory, ports=ports, wrapper=wrapper, start=start, timeout_s=PAGE_TIMEOUT_S)


def _run(
    script: str, directory: Path, start: Path, environ: Mapping[str, str], timeout_s: float
) -> tuple[str, int, int]:
    """Output, exit code and process group. Nothing of the group is left behind, whatever happens."""
    process = subprocess.Popen(
        ["bash", "-euo", "pipefail", "-c", script], cwd=start, env=environ, text=True, start_new_session=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        output, _ = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output, _ = process.communicate()
        logs = "".join(f"{log.name}:\n{log.read_text()}" for log in directory.glob("*/*.log"))
        pytest.fail(f"the commands did not end within {timeout_s:g} s; so far:\n{output}\n{logs}")
    return output, process.returncode, process.pid


def steady(line: str) -> str:
    """A line without what differs from run to run, and with one space where there are several."""
    for pattern, name in VARIABLE:
        line = pattern.sub(name, line)
    return " ".join(line.split())


def fits(line: str, pattern: str) -> bool:
    """`...` in a line of the page stands for anything."""
    return re.fullmatch(".*".join(map(re.escape, steady(pattern).split("..."))), steady(line)) is not None


def missing(expected: str, output: str) -> str:
    """The first line of the page that was not printed in its place; empty if all were. A line `...` skips lines."""
    lines = [line for line in output.splitlines() if line.strip()]
    at, may_skip = 0, False
    for pattern in filter(str.strip, expected.splitlines()):
        if pattern == "...":
            may_skip = True
            continue
        reach = range(at, len(lines)) if may_skip else range(at, min(at + 1, len(lines)))
        hit = next((n for n in reach if fits(lines[n], pattern)), None)
        if hit is None:
            return pattern
        at, may_skip = hit + 1, False
    return "" if may_skip or at == len(lines) else f"(only up to) {lines[at - 1]}"
