"""Style is a test: who may import whom, how long things may get, which calls are banned, what must be fresh."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("benchmarks", "certs", "control_plane", "deploy", "protos", "sidecar")
GENERATED = re.compile(r"_pb2\.pyi?$")

FILE_LINES_MAX = 400
FUNCTION_LINES_MAX = 70
"""Without the docstring: documentation costs nothing."""

# What is longer than the law allows, and how long it may be. May only shrink: an entry that is no longer needed, or
# that allows more than is there, fails the test.
LONG_FILES: dict[str, int] = {}
LONG_FUNCTIONS: dict[str, int] = {}

# Calls that have no place here, and what to write instead.
BANNED_CALLS = {
    "eval": "a parser",
    "exec": "a function",
    "yaml.load": "the strict loader, which refuses duplicate keys",
    "yaml.unsafe_load": "the strict loader",
    "yaml.full_load": "the strict loader",
    "os.system": "subprocess with a list",
    "os.popen": "subprocess with a list",
    "subprocess.getoutput": "subprocess with a list",
    "tempfile.mktemp": "tempfile.mkstemp",
}
BANNED_IMPORTS = {
    "pickle": "protobuf or JSON: unpickling runs what it reads",
    "marshal": "protobuf or JSON",
    "shelve": "the store",
}
# In the sidecar's data path: `urlsplit("//admin/x")` takes `admin` for a host, and repairs what should be refused.
BANNED_IN_DATA_PATH = {"urlsplit", "urlparse"}
MAY_PRINT = ("control_plane/cli/", "benchmarks/straight_line.py")
MAY_IMPORT_GRPC = {"control_plane/api/server.py", "control_plane/cli/client.py"}


def sources() -> Iterator[tuple[str, str]]:
    """Every source file of ours as (path from the root, text), without generated code."""
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            if not GENERATED.search(path.name):
                yield path.relative_to(ROOT).as_posix(), path.read_text()


def trees() -> Iterator[tuple[str, ast.Module]]:
    for path, text in sources():
        yield path, ast.parse(text, path)


def dotted(node: ast.expr) -> str:
    """`a.b.c` as written; empty for anything that is not a name."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return ""


def imported(node: ast.AST) -> list[tuple[str, str]]:
    """(module, name) for what an import statement brings in."""
    if isinstance(node, ast.Import):
        return [(alias.name, "") for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        return [(node.module or "", alias.name) for alias in node.names]
    return []


def function_lengths(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """(name, lines) of every function, decorators and docstring not counted."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        lines = (node.end_lineno or node.lineno) - node.lineno + 1
        if ast.get_docstring(node, clean=False) is not None:
            lines -= (node.body[0].end_lineno or 0) - node.body[0].lineno + 1
        yield node.name, lines


def check_lengths(found: dict[str, int], limit: int, exceptions: dict[str, int]) -> list[str]:
    """What breaks the law, and which exceptions are too generous."""
    problems = [
        f"{name}: {lines} lines, at most {exceptions.get(name, limit)}"
        for name, lines in found.items()
        if lines > exceptions.get(name, limit)
    ]
    for name, allowed in exceptions.items():
        lines = found.get(name, 0)
        if lines <= limit:
            problems.append(f"{name}: {lines} lines, the exception is no longer needed: remove it")
        elif lines < allowed:
            problems.append(f"{name}: {lines} lines, the exception allows {allowed}: lower it")
    return problems


def test_the_import_law_is_kept() -> None:
    """Who may import whom is written in pyproject.toml, `[tool.importlinter]`."""
    run = subprocess.run(
        [Path(sys.executable).parent / "lint-imports", "--no-cache"], cwd=ROOT, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stdout + run.stderr


def test_only_the_edges_of_the_control_plane_import_grpc() -> None:
    """Anything else of grpc would tie decisions to a transport; and the sidecar does without its threads."""
    found = {path for path, tree in trees() for node in ast.walk(tree) for module, _ in imported(node)
             if re.match(r"(grpc|grpc_health|grpc_reflection)(\.|$)", module)
             and not path.startswith("deploy/examples/")}  # fmt: skip  # the examples' apps are nobody's edge
    assert found <= MAY_IMPORT_GRPC


def test_files_stay_short() -> None:
    """A file one reads at a sitting."""
    found = {path: text.count("\n") for path, text in sources()}
    assert check_lengths(found, FILE_LINES_MAX, LONG_FILES) == []


def test_functions_stay_short() -> None:
    """A function one sees at a glance."""
    found: dict[str, int] = {}
    for path, tree in trees():
        for name, lines in function_lengths(tree):
            key = f"{path}:{name}"
            found[key] = max(lines, found.get(key, 0))
    assert check_lengths(found, FUNCTION_LINES_MAX, LONG_FUNCTIONS) == []


def test_an_exception_that_is_not_needed_fails_the_length_law() -> None:
    """The lists above only ever shrink."""
    assert check_lengths({"a": 10}, 9, {}) == ["a: 10 lines, at most 9"]
    assert check_lengths({"a": 10}, 9, {"a": 10}) == []
    assert check_lengths({"a": 10}, 9, {"a": 11}) == ["a: 10 lines, the exception allows 11: lower it"]
    assert check_lengths({"a": 9}, 9, {"a": 11}) == ["a: 9 lines, the exception is no longer needed: remove it"]
    assert check_lengths({}, 9, {"a": 11}) == ["a: 0 lines, the exception is no longer needed: remove it"]


def banned(path: str, tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        for module, name in imported(node):
            if (root := module.split(".")[0]) in BANNED_IMPORTS:
                yield f"{path}:{getattr(node, 'lineno', 0)}: import {root}: use {BANNED_IMPORTS[root]}"
            if path.startswith("sidecar/") and name in BANNED_IN_DATA_PATH:
                yield f"{path}:{getattr(node, 'lineno', 0)}: {name}: it repairs what should be refused"
        if not isinstance(node, ast.Call):
            continue
        called = dotted(node.func)
        if called in BANNED_CALLS:
            yield f"{path}:{node.lineno}: {called}(): use {BANNED_CALLS[called]}"
        if path.startswith("sidecar/") and called.split(".")[-1] in BANNED_IN_DATA_PATH:
            yield f"{path}:{node.lineno}: {called}(): it repairs what should be refused"
        if called == "print" and not path.startswith(MAY_PRINT):
            yield f"{path}:{node.lineno}: print(): libraries do not print"
        for keyword in node.keywords:
            if keyword.arg == "shell" and not (isinstance(keyword.value, ast.Constant) and not keyword.value.value):
                yield f"{path}:{node.lineno}: shell=: pass a list and no shell"


def test_no_banned_call_is_used() -> None:
    """What runs strings, unpickles, or parses too kindly has no place in a thing that guards others."""
    assert [problem for path, tree in trees() for problem in banned(path, tree)] == []


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "from pickle import loads",
        "eval('1')",
        "import yaml; yaml.load(text)",
        "import subprocess; subprocess.run('ls', shell=True)",
        "import subprocess; subprocess.run('ls', shell=flag)",
        "from urllib.parse import urlsplit",
        "import urllib.parse; urllib.parse.urlsplit(target)",
        "import os; os.system('ls')",
        "print('hello')",
    ],
)
def test_the_search_for_banned_calls_finds_them(code: str) -> None:
    """The search itself can fail."""
    assert list(banned("sidecar/x.py", ast.parse(code)))


def test_every_package_opens_with_its_map() -> None:
    """`__init__.py` says what is where, for whoever arrives."""
    without = [path for path, tree in trees() if path.endswith("__init__.py") and not ast.get_docstring(tree)]
    assert without == []


def test_every_source_file_says_what_it_is_for() -> None:
    """A module without a docstring makes its reader guess."""
    without = [path for path, tree in trees() if tree.body and not ast.get_docstring(tree)]
    assert without == []


def test_generated_code_is_what_the_proto_files_say(tmp_path: Path) -> None:
    """`make protos` was run after the last change of a .proto file."""
    protos = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "protos").rglob("*.proto"))
    assert protos
    outputs = [f"--python_out={tmp_path}", f"--pyi_out={tmp_path}"]
    subprocess.run([sys.executable, "-m", "grpc_tools.protoc", "-I.", *outputs, *protos], cwd=ROOT, check=True)
    fresh = {path.relative_to(tmp_path).as_posix(): path.read_bytes() for path in tmp_path.rglob("*_pb2.py*")}
    committed = {
        path.relative_to(ROOT).as_posix(): path.read_bytes()
        for path in (ROOT / "protos").rglob("*_pb2.py*")
        if "__pycache__" not in path.parts
    }
    assert committed.keys() == fresh.keys()
    stale = [name for name, code in fresh.items() if committed[name] != code]
    assert stale == []


def locked(name: str) -> dict[str, str]:
    """Package -> version of a lock file; every one of them must carry a hash."""
    entries = re.findall(r"^([A-Za-z0-9_.-]+)==(\S+)[^\n]*\\\n((?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)",
                         (ROOT / name).read_text(), re.MULTILINE)  # fmt: skip
    return {package.lower().replace("_", "-"): version for package, version, _ in entries}


@pytest.mark.parametrize("name", ["requirements.lock", "requirements-dev.lock", "benchmarks/requirements.lock"])
def test_a_lock_holds_nothing_but_pinned_and_hashed_packages(name: str) -> None:
    """No index address, no local path: the lock is as good on any machine."""
    packages = locked(name)
    code = [line.split(" ")[0] for line in (ROOT / name).read_text().splitlines() if re.match(r"[^ #]", line)]
    assert len(code) == len(packages)
    assert all("==" in line for line in code)
    assert not re.search(r"://|/(tmp|home|root|work|opt)/", (ROOT / name).read_text())


def test_the_locks_cover_what_the_project_asks_for() -> None:
    """`make lock` was run after the last change of the dependencies, and both locks pin the same versions."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    runtime, dev = locked("requirements.lock"), locked("requirements-dev.lock")

    def names(requirements: list[str]) -> set[str]:
        return {re.split(r"[\[<>=!~; ]", item)[0].lower().replace("_", "-") for item in requirements}

    wanted = names(project["project"]["dependencies"]) | names(project["build-system"]["requires"])
    assert wanted <= runtime.keys()
    assert names(project["project"]["optional-dependencies"]["dev"]) <= dev.keys()
    assert runtime.items() <= dev.items()
