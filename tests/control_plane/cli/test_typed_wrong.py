"""Each command typed wrong: one clear line on standard error, the exit code, nothing on standard output."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from control_plane.cli.main import cli
from control_plane.cli.verb import Verb
from tests.control_plane.cli.conftest import Hauberk

# What is typed, what the answer holds. All of these are usage errors.
USAGE = [
    ("sttus", "Did you mean 'status'?"),
    ("status --wait", "No such option"),
    ("status -o xml", "'xml' is not one of 'table', 'json', 'yaml'"),
    ("token creat", "No such command 'creat'"),
    ("token create", "Missing option '--service'"),
    ("revoke serials 7a", "'serials' is not one of 'identity', 'serial', 'token'"),
    ("revoke token 7a", "16 hexadecimal digits"),
    ("token create --service a --ttl 10", "write it with a unit, such as 30s"),
    ("token create --service a --label app", "write key=value"),
    ("token create --service a --label a=1 --label a=2", "--label a is given twice"),
    ("apply", "Missing option '-f' / '--file'"),
    ("apply -f x --dry-run --wait", "leave one of them out"),
    ("apply -f x --dry-run --confirm", "nothing to --confirm"),
    ("apply -f x --timeout soon", "'soon' is not a duration"),
    ("get", "Missing argument 'KIND'"),
    ("get polices", "no kind of resource"),
    ("get all web", "`get all` takes no NAME"),
    ("get mc default -n shop", "holds for the whole mesh"),
    ("get ap shop/web -n other", "names a namespace other than --namespace"),
    ("delete ap", "Missing argument 'NAME'"),
    ("delete all x", "no kind of resource"),
    ("delete ap x --dry-run --wait", "leave one of them out"),
    ("policy test", "Missing argument 'FILE...'"),
    ("policy test x --junit", "Option '--junit' requires an argument"),
    ("policy test x -o yaml", "'yaml' is not one of 'table', 'json'"),
    ("policy diff @live", "Missing argument 'NEW'"),
    ("policy diff @lve b --replay c", "neither @live nor @VERSION"),
    ("policy diff a b", "Missing option '--replay'"),
    ("policy diff a b --replay c --since 24", "write it with a unit, such as 30s"),
    ("policy diff a b --replay c --since 2026-11-01T00:00:00", "write 2026-11-01T00:00:00Z, or how long ago"),
    ("policy lint", "look at what is applied with --live"),
    ("policy lint x --live --workloads y", "leave one of them out"),
    ("policy histroy", "Did you mean 'history'?"),
    ("policy history latest", "'latest' is no version"),
    ("policy history 0", "'0' is no version"),
    ("policy history 7 --before 5", "leave it or VERSION out"),
    ("policy history --count 2000", "2000 is not in the range 1<=x<=1000"),
    ("policy rollback", "Missing argument 'VERSION'"),
    ("policy rollback -- -1", "'-1' is no version"),
    ("policy rollback 5 --dry-run --wait", "leave one of them out"),
    ("explain --from a/b --to c GET", "Missing argument 'PATH'"),
    ("explain --from a/b GET /", "Missing option '--to'"),
    ("explain --from a/b --to c /orders GET", "METHOD comes first"),
    ("explain --from a/b --to c --port 0 GET /", "0 is not in the range 1<=x<=65535"),
    ("explain --to c GET /", "Missing option '--from'; it is needed unless --decision ID"),
    ("apply -f policies -n shop", "write metadata.namespace into them"),
    ("explain --from a/b --to c", "Missing argument 'METHOD'"),
    ("explain --from a/b --to c -H x-team=red GET /", "write 'name: value', such as -H 'x-team: red'"),
    ("explain --from a/b --to c -H :x GET /", "write 'name: value'"),
    ("explain --from a/b --to c --claim groups GET /", "write name=value, such as --claim groups=dev"),
    ("explain --from a/b --to c --claims {sub} GET /", "is not JSON"),
    ("explain --from a/b --to c --claims [] GET /", "is not a JSON object"),
    ("explain --from a/b --to c --claims {} --claim a=b GET /", "use one of them"),
    ("explain --decision 00c0ffee00c0ffee GET /", "leave METHOD, PATH"),
    ("explain --decision 00c0ffee00c0ffee --from a/b", "leave METHOD, PATH"),
    ("explain --decision 00c0ffee00c0ffee --source-ip 10.0.0.1", "leave METHOD, PATH"),
    ("explain --decison 00c0ffee00c0ffee", "--decision"),
    ("run --service web", "Missing argument 'COMMAND"),
    ("run --service web --port http -- true", "'http' is not a valid integer"),
    ("run --service web --port 80 --protocol tcp -- true", "'tcp' is not one of 'http1', 'http2'"),
    ("sidecar", "Missing option '--config'"),
    ("control-plane --port 80", "No such option"),
    ("control-plane extra", "unexpected extra argument"),
    ("demo --chek", "--check"),
]

# The same for what is typed right and cannot be done.
FAILED = [
    ("status --data-dir {tmp}", "start one with `hauberk control-plane --data-dir {tmp}`"),
    ("get ap --socket {tmp}/none/operator.sock", "no control plane answers at {tmp}/none/operator.sock"),
    ("get ap --socket {tmp}/file", "{tmp}/file: is not a socket"),
    ("get ap --socket {tmp}/file/x", "no control plane answers"),
    ("get ap --data-dir {tmp}/" + "x" * 108, "longer than 107 bytes"),
    ("token create --service web --data-dir {tmp}", "no control plane answers"),
    ("delete ap x --data-dir {tmp}", "no control plane answers"),
    ("policy test {tmp}/none.yaml", "{tmp}/none.yaml: cannot be read"),
    ("policy test {tmp}/blank.yaml", "no PolicyTest; write one (kind: PolicyTest)"),
    ("policy test {tmp}/broken.yaml", "{tmp}/broken.yaml:1:1: kind: is missing"),
    ("policy diff {tmp}/none.yaml @live --replay x --data-dir {tmp}", "no control plane answers"),
    ("policy diff {tmp}/none.yaml {tmp}/none.yaml --replay x", "{tmp}/none.yaml: cannot be read"),
    ("policy diff {tmp}/blank.yaml {tmp}/blank.yaml --replay {tmp}/none.log", "{tmp}/none.log: cannot be read"),
    ("policy lint --live --data-dir {tmp}", "no control plane answers"),
    ("policy lint {tmp}/broken.yaml", "{tmp}/broken.yaml:1:1: kind: is missing"),
    ("policy lint {tmp}/blank.yaml", "the files hold no policies"),
    ("policy history --data-dir {tmp}", "no control plane answers"),
    ("policy rollback 5 --data-dir {tmp}", "no control plane answers"),
    ("explain --from a/b --to c GET / --data-dir {tmp}", "no control plane answers"),
    ("apply -f {tmp}/none.yaml", "{tmp}/none.yaml: cannot be read (No such file or directory)"),
    ("apply -f {tmp}/empty", "{tmp}/empty: holds no file ending in .yaml"),
    ("apply -f {tmp}/file", "{tmp}/file: is not UTF-8 text at byte 1"),
    ("sidecar --config {tmp}/none.yaml", "{tmp}/none.yaml: cannot be read"),
    ("sidecar --config {tmp}/file", "{tmp}/file: is not UTF-8 text"),
    ("run -- true", "--service is needed"),
    ("run --service web --protocol http2 -- true", "--app and --protocol need --port"),
    ("run --service Web -- true", "service"),
    ("run --service web --port 80 --app 10.0.0.1:80 -- true", "without its sidecar"),
    ("run --service web --token-file hauberk1.0.0.0.0 -- true", "holds the token itself"),
    ("control-plane --data-dir {tmp}/d --listen localhost", "--listen: 'localhost' is not an address"),
    ("control-plane --data-dir {tmp}/d --trust-domain Mesh!", "trust_domain"),
    ("control-plane --config {tmp}/none.yaml", "{tmp}/none.yaml: cannot be read"),
    ("control-plane --data-dir {tmp}/d --listen 127.0.0.1:9 --join-listen 127.0.0.1:9", "must differ from listen"),
]


@pytest.mark.parametrize(("typed", "told"), USAGE, ids=[typed for typed, _ in USAGE])
def test_a_usage_error_is_one_line_and_exit_code_2(typed: str, told: str, hauberk: Hauberk) -> None:
    """It says what is wrong and where the help is."""
    result = hauberk(*typed.split())
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith("hauberk: ")
    assert result.stderr.count("\n") == 1
    assert told in result.stderr
    assert "--help`)" in result.stderr


@pytest.mark.parametrize(("typed", "told"), FAILED, ids=[typed[:60] for typed, _ in FAILED])
def test_a_failure_is_one_line_and_exit_code_1(typed: str, told: str, hauberk: Hauberk, tmp_path: Path) -> None:
    """It says what is wrong and what to do next, and there is no traceback."""
    (tmp_path / "file").write_bytes(b"a\xff")
    (tmp_path / "empty").mkdir()
    (tmp_path / "blank.yaml").write_text("# nothing\n")
    (tmp_path / "broken.yaml").write_text("apiVersion: x\n")
    result = hauberk(*typed.format(tmp=tmp_path).split())
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.startswith("hauberk: ")
    assert result.stderr.count("\n") == 1
    assert told.format(tmp=tmp_path) in result.stderr


def verbs(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from verbs(command, (*path, name))
        else:
            yield (*path, name), command


@pytest.mark.parametrize("path", [path for path, _ in verbs(cli)], ids=" ".join)
def test_every_verb_has_help_with_an_example_of_itself(path: tuple[str, ...], hauberk: Hauberk) -> None:
    """And every option in it is explained."""
    result = hauberk(*path, "--help")
    assert result.exit_code == 0
    command = dict(verbs(cli))[path]
    assert isinstance(command, Verb)
    assert any("hauberk " + " ".join(path) in example for example in command.examples)
    assert all(f"  {example}\n" in result.stdout for example in command.examples)
    assert [param.name for param in command.params if isinstance(param, click.Option) and not param.help] == []


@pytest.mark.parametrize("group", ["policy", "token"])
def test_the_help_of_a_group_ends_with_examples(group: str, hauberk: Hauberk) -> None:
    """Of its verbs."""
    text = hauberk(group, "--help").stdout
    assert f"  hauberk {group} " in text.split("Examples:")[1]


def test_the_help_of_the_group_names_every_verb_in_one_line_each(hauberk: Hauberk) -> None:
    """Nothing is cut off with dots."""
    result = hauberk("--help")
    assert result.exit_code == 0
    assert all(f"  {name} " in result.stdout for name in cli.commands)
    assert "..." not in result.stdout.split("Commands:")[1]


def test_hauberk_alone_shows_its_help_and_fails(hauberk: Hauberk) -> None:
    """A script that lost its arguments should notice."""
    result = hauberk()
    assert (result.exit_code, result.stdout) == (2, "")
    assert "control-plane" in result.stderr


def test_the_version_is_printed(hauberk: Hauberk) -> None:
    """As the distribution has it."""
    result = hauberk("--version")
    assert result.exit_code == 0
    assert result.stdout.startswith("hauberk 0.")


def test_a_bug_is_one_line_too(hauberk: Hauberk, monkeypatch: pytest.MonkeyPatch) -> None:
    """The traceback is for whoever asks for it."""

    def broken(**_: object) -> None:
        raise KeyError("two\nlines")

    monkeypatch.setattr(cli.commands["status"], "callback", broken)
    result = hauberk("status")
    assert result.exit_code == 1
    assert result.stderr == (
        "hauberk: internal error: KeyError: 'two\\nlines'; HAUBERK_DEBUG=1 shows where: please report it\n"
    )
    monkeypatch.setenv("HAUBERK_DEBUG", "1")
    assert isinstance(hauberk("status").exception, KeyError)
