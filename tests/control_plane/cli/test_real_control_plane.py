"""The command against a real control plane in its own process, on free ports."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from tests.control_plane.cli.conftest import Hauberk

COMMAND = [sys.executable, "-c", "from control_plane.cli.main import main; main()"]
FREE_PORTS = ("--listen", "127.0.0.1:0", "--join-listen", "127.0.0.1:0")
POLICY = """\
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata:
  name: web
  namespace: shop
spec:
  action: ALLOW
  rules:
    - from: [{source: {principals: [mesh.local/ns/shop/sa/web]}}]
"""


@contextmanager
def running(data_dir: Path) -> Iterator[subprocess.Popen[str]]:
    """`hauberk control-plane`, from the moment it answers; killed if it is still there at the end."""
    arguments = ["control-plane", "--data-dir", str(data_dir), *FREE_PORTS]
    with subprocess.Popen([*COMMAND, *arguments], stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            for line in process.stderr:
                if json.loads(line)["message"] == "control plane listening":
                    break
            yield process
        finally:
            process.kill()


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = tmp_path_factory.mktemp("cp") / "mesh"
    with running(path):
        yield path


@pytest.fixture
def real(hauberk: Hauberk, data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Hauberk:
    monkeypatch.setenv("HAUBERK_DATA_DIR", str(data_dir))
    return hauberk


def refused(*arguments: str) -> str:
    """What `hauberk control-plane` says when it does not start."""
    run = subprocess.run([*COMMAND, "control-plane", *arguments], capture_output=True, text=True, timeout=30)
    assert run.returncode == 1
    assert run.stdout == ""
    assert "Traceback" not in run.stderr
    return run.stderr.splitlines()[-1]


STRICTER = """\
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: NAME, namespace: pay}
spec: {jwtRules: [{issuer: "https://id.example", audiences: [pay]}]}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: NAME, namespace: pay}
spec:
  rules:
    - from: [{source: {principals: ["*"]}}]
      when:
        - {key: "request.headers[x-team]", values: [a]}
        - {key: "request.auth.claims[team]", notValues: [b]}
---
"""


def test_where_it_is_stricter_than_istio_apply_says_so_once(real: Hauberk, tmp_path: Path) -> None:
    """One line a sentence, also of several documents; the change that follows does not repeat it."""
    file = tmp_path / "pay.yaml"
    file.write_text(STRICTER.replace("NAME", "a") + STRICTER.replace("NAME", "b"))
    said = [line for line in real("apply", "-f", str(file)).stderr.splitlines() if line.startswith("warning: ")]
    for words in ("shared key", "access_token", "every value must match", "claims[team]"):
        (line,) = (one for one in said if words in one)
        assert line.count(f"{file}:") == 2
    assert len(said) == 4
    for kind in ("ra", "ap"):
        for name in ("a", "b"):
            assert real("delete", kind, f"pay/{name}").exit_code == 0


def test_a_policy_is_applied_shown_and_deleted(real: Hauberk, tmp_path: Path) -> None:
    """What comes out can go in again, a dry run changes nothing, and the second time nothing changes."""
    file = tmp_path / "web.yaml"
    file.write_text(POLICY)
    assert real("apply", "-f", str(file), "--dry-run").stdout == "AuthorizationPolicy shop/web created (dry run)\n"
    assert real("get", "ap", "shop/web").exit_code == 1
    created = real("apply", "-f", str(file), "--wait")
    assert (created.exit_code, created.stdout) == (0, "AuthorizationPolicy shop/web created\n")
    assert real("apply", "-f", str(file)).stdout == "AuthorizationPolicy shop/web unchanged\n"
    shown = real("get", "ap", "web", "-n", "shop", "-o", "yaml").stdout
    assert yaml.safe_load(shown) == yaml.safe_load(POLICY)
    assert str(file) in real("get", "all").stdout
    assert real("apply", "-f", "-", input=shown).exit_code == 0
    assert real("get", "ap", "shop/web", "-o", "yaml").stdout == shown
    assert real("delete", "ap", "shop/web", "--wait").exit_code == 0
    gone = real("get", "ap", "shop/web")
    assert (gone.exit_code, gone.stderr.count("\n")) == (1, 1)


def test_a_policy_with_a_fault_is_named_by_file_and_line_and_changes_nothing(real: Hauberk, tmp_path: Path) -> None:
    """Not even the document beside it that is right."""
    file = tmp_path / "web.yaml"
    file.write_text(POLICY + "---\n" + POLICY.replace("name: web", "name: bad").replace("rules:", "rulez:"))
    result = real("apply", "-f", str(file))
    assert (result.exit_code, result.stdout) == (1, "")
    assert re.match(rf"hauberk: {re.escape(str(file))}:18:\d+: spec\.rulez: ", result.stderr)
    assert real("get", "all", "-o", "json").stdout == "[]\n"


def test_a_token_is_made_and_the_mesh_tells_its_state(real: Hauberk) -> None:
    """The trust anchor's pin in the token is the one that status shows."""
    token = real("token", "create", "--service", "web", "-n", "shop", "-o", "json")
    assert json.loads(token.stdout)["spiffe_id"] == "spiffe://mesh.local/ns/shop/sa/web"
    assert re.fullmatch(r"hauberk1\.[0-9a-f]{16}\.[\w-]{22}\.[\w-]{43}\.\d+", json.loads(token.stdout)["token"])
    state = json.loads(real("status", "-o", "json").stdout)
    assert (state["trust_domain"], state["default_action"]) == ("mesh.local", "DENY")
    assert "no sidecar has joined yet" in real("status").stdout


@pytest.mark.parametrize(
    "typed",
    ["token create --service Web!", "token create --service web --ttl 25h", "token create --service web --label a=ü",
     "explain --from shop/web --to nobody GET /", "explain --from nonsense --to nobody GET /"],
)  # fmt: skip
def test_what_the_control_plane_refuses_is_one_line(typed: str, real: Hauberk) -> None:
    """In its words."""
    result = real(*typed.split())
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("hauberk: ")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("verb", ["revoke", "reinstate"])
@pytest.mark.parametrize(
    ("kind", "value", "told"),
    [
        ("identity", "orders", "namespace/service-account"),
        ("identity", "spiffe://other/ns/a/sa/b", "spiffe://other/ns/a/sa/b is not of this mesh"),
        ("serial", "xyz", "'xyz' is no serial number; write it in hexadecimal"),
    ],
)
def test_what_cannot_be_revoked_was_typed_wrong(verb: str, kind: str, value: str, told: str, real: Hauberk) -> None:
    """Exit code 2, and nothing of the names that fields of the API have."""
    result = real(verb, kind, value)
    assert (result.exit_code, result.stdout) == (2, "")
    assert told in result.stderr
    assert "value:" not in result.stderr


def test_a_second_control_plane_on_the_same_data_is_refused(data_dir: Path) -> None:
    """Two would tell two truths."""
    assert str(data_dir) in refused("--data-dir", str(data_dir), *FREE_PORTS)


def test_a_port_in_use_is_named(tmp_path: Path) -> None:
    """With the address that is taken."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        line = refused("--data-dir", str(tmp_path / "d"), "--listen", address, "--join-listen", "127.0.0.1:0")
    assert address in line


def test_a_data_directory_that_others_may_enter_is_refused(tmp_path: Path) -> None:
    """With the command that mends it, and nothing is written."""
    tmp_path.chmod(0o755)
    assert f"chmod 700 {tmp_path}" in refused("--data-dir", str(tmp_path), *FREE_PORTS)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_stops_when_told_and_comes_back_with_what_it_knew(number: int, hauberk: Hauberk, tmp_path: Path) -> None:
    """Exit code 0, the socket no longer answers, and the same trust anchor after the next start."""
    data_dir = tmp_path / "mesh"
    anchors = []
    for _ in range(2):
        with running(data_dir) as process:
            answer = hauberk("status", "-o", "json", "--data-dir", str(data_dir))
            anchors.append(json.loads(answer.stdout)["anchor_sha256"])
            assert os.stat(data_dir / "operator.sock").st_mode & 0o777 == 0o600
            process.send_signal(number)
            assert process.wait(timeout=30) == 0
        assert "no control plane answers" in hauberk("status", "--data-dir", str(data_dir)).stderr
    assert anchors[0] == anchors[1]


def test_a_reader_that_leaves_early_gets_no_traceback(data_dir: Path) -> None:
    """`hauberk ... | head -1`."""
    read, write = os.pipe()
    os.close(read)
    environment = {**os.environ, "HAUBERK_DATA_DIR": str(data_dir)}
    run = subprocess.run([*COMMAND, "status"], stdout=write, stderr=subprocess.PIPE, text=True, env=environment)
    os.close(write)
    assert (run.returncode, run.stderr) == (1, "")
