"""The first ten minutes of the README, as typed: every command runs, in order, and prints what the page says it prints.

The commands run in one bash under `set -euo pipefail`. Three things differ from a reader's: the directory is pytest's,
the ports are free ones, and a wrapper passes the control plane's ports to `hauberk`.
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
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.docs.markdown import DOCS, ROOT, Block, code, parts, section, table

TIMEOUT_S = 60
APP_PORTS = ("8080", "8081")
MARK = "@@ end of block"
WRAPPER = """\
#!/bin/sh
case "$1" in
control-plane) shift; set -- control-plane --listen 127.0.0.1:{listen} --join-listen 127.0.0.1:{join} "$@" ;;
run) shift; set -- run --control-plane 127.0.0.1:{listen} "$@" ;;
esac
exec {python} -c 'from control_plane.cli.main import main; main()' "$@"
"""
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
    (re.compile(r"(127\.0\.0\.1:<port> +)\d+( +in )"), r"\1<n>\2"),
    (re.compile(r"(?<![.\d])\d+\.\d+\.\d+(?![.\d])"), "<release>"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """What happened."""

    blocks: list[tuple[Block, Block | None]]
    """Commands, and what the page says they print."""
    outputs: list[str]
    """What they printed, block by block."""
    exit_code: int
    group: int
    """The process group everything ran in."""
    directory: Path
    ports: dict[str, str]
    """Port on the page -> port used."""


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


def ten_minutes() -> list[tuple[Block, Block | None]]:
    """Every bash block with the text block right after it, if there is one."""
    found: list[tuple[Block, Block | None]] = []
    for part in parts(section((ROOT / "README.md").read_text(), "The first ten minutes")):
        if isinstance(part, Block) and part.kind == "bash":
            found.append((part, None))
        elif isinstance(part, Block) and part.kind == "text":
            assert found[-1][1] is None, "two outputs for one block of commands"
            found[-1] = (found[-1][0], part)
    return found


def with_ports(text: str, ports: dict[str, str]) -> str:
    for written, used in ports.items():
        text = re.sub(rf"\b{written}\b", used, text)
    return text


def run_script(script: str, directory: Path, environ: dict[str, str]) -> tuple[str, int, int]:
    """Output, exit code and process group. Nothing of the group is left behind, whatever happens."""
    process = subprocess.Popen(
        ["bash", "-euo", "pipefail", "-c", script], cwd=directory, env=environ, text=True, start_new_session=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        output, _ = process.communicate(timeout=TIMEOUT_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output, _ = process.communicate()
        logs = "".join(f"{log.name}:\n{log.read_text()}" for log in directory.glob("*/*.log"))
        pytest.fail(f"the commands did not end within {TIMEOUT_S} s; so far:\n{output}\n{logs}")
    return output, process.returncode, process.pid


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    directory = tmp_path_factory.mktemp("readme")
    *used, listen, join = free_ports(len(APP_PORTS) + 2)
    ports = dict(zip(APP_PORTS, used, strict=True))
    wrapper = directory / "bin" / "hauberk"
    wrapper.parent.mkdir()
    wrapper.write_text(WRAPPER.format(listen=listen, join=join, python=shlex.quote(sys.executable)))
    wrapper.chmod(0o755)
    blocks = ten_minutes()
    script = "trap 'kill $(jobs -p) 2>/dev/null || true; wait' EXIT\n" + "".join(
        f"{with_ports(commands.text, ports)}echo '{MARK}'\n" for commands, _ in blocks
    )
    environ = {name: value for name, value in os.environ.items() if not re.match("(?i)hauberk_|(http|no)_proxy", name)}
    path = os.pathsep.join([str(wrapper.parent), str(Path(sys.executable).parent), environ["PATH"]])
    environ |= {"PATH": path, "TMPDIR": str(directory), "PYTHONPATH": str(ROOT), "NO_COLOR": "1"}
    output, exit_code, group = run_script(script, directory, environ)
    outputs = output.split(f"{MARK}\n")
    return Ran(blocks=blocks, outputs=outputs, exit_code=exit_code, group=group, directory=directory, ports=ports)


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


def test_every_command_of_the_first_ten_minutes_works(ran: Ran) -> None:
    """In order, each with exit code 0."""
    done = len(ran.outputs) - 1
    assert done == len(ran.blocks), f"README.md, block {done + 1}:\n{ran.blocks[done][0].text}\n{ran.outputs[-1]}"
    assert (ran.exit_code, ran.outputs[-1]) == (0, "")


def test_every_command_prints_what_the_page_says(ran: Ran) -> None:
    """Line by line, but for times, ids, ports and versions."""
    assert sum(expected is not None for _, expected in ran.blocks) >= 6
    for (commands, expected), output in zip(ran.blocks, ran.outputs, strict=False):
        if expected is not None:
            line = missing(with_ports(expected.text, ran.ports), output)
            assert not line, f"after\n{commands.text}\nthe page has\n  {line}\nbut this was printed:\n{output}"


def test_nothing_is_left_running(ran: Ran) -> None:
    """The last step of the page ends all that the steps before it began."""
    with pytest.raises(ProcessLookupError):
        os.killpg(ran.group, 0)
    for port in ran.ports.values():
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", int(port))) != 0


def test_the_data_directory_holds_what_the_operations_page_says(ran: Ran) -> None:
    """Every file with its mode, after a control plane that was stopped."""
    documented = {code(row[0]): row[1] for row in table(section((DOCS / "operations.md").read_text(), "Files")).rows}
    (data_dir,) = ran.directory.glob("*/mesh")
    found = {
        path.relative_to(data_dir).as_posix(): f"{path.stat().st_mode & 0o7777:04o}" for path in data_dir.rglob("*")
    }
    while_running = {"hauberk.db-wal", "hauberk.db-shm", "operator.sock"}
    assert {name.rstrip("/"): mode for name, mode in documented.items() if name not in while_running} == found
    assert while_running <= documented.keys()


@pytest.mark.parametrize(
    ("expected", "output", "line"),
    [
        ("a\nb", "a\nb\n", ""),
        ("a\nb", "a\n", "b"),
        ("a", "a\nb\n", "(only up to) a"),
        ("b", "a\nb\n", "b"),
        ("...\nb", "a\nb\n", ""),
        ("a\n...", "a\nb\n", ""),
        ("a ... c", "a b c\n", ""),
        ("token 0123456789abcdef", "token fedcba9876543210\n", ""),
        ("token 0123456789abcdef", "token none\n", "token 0123456789abcdef"),
    ],
)
def test_the_comparison_of_outputs_can_fail(expected: str, output: str, line: str) -> None:
    """What differs from run to run may differ, and nothing else."""
    assert missing(expected, output) == line
