"""The Workload API and the certificate files of real sidecars, read by the `spiffe` package and by openssl."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from sidecar.identity.svid_files import CURRENT
from tests.e2e.harness import APPS, PYTHON, Member, Mesh, eventually
from tests.sidecar.identity.workload_api.served import client

CLIENT = [PYTHON, str(APPS / "spiffe_client.py")]
WEB = "spiffe://mesh.local/ns/shop/sa/web"
LIFETIME_S = 6
Event = dict[str, Any]


class SpiffeClient:
    """`apps/spiffe_client.py` in a process of its own: what it says, and questions to it."""

    def __init__(self, mesh: Mesh, socket: Path) -> None:
        self.events: list[Event] = []
        self._errors = (mesh.directory / "spiffe-client.log").open("wb")
        self._popen = subprocess.Popen(
            CLIENT,
            env={**os.environ, "SPIFFE_ENDPOINT_SOCKET": f"unix://{socket}"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self._popen.stdout is not None
        for line in self._popen.stdout:
            self.events.append(json.loads(line))

    def of(self, event: str) -> list[Event]:
        return [one for one in list(self.events) if one["event"] == event]

    def last(self, event: str) -> Event:
        found = self.of(event)
        return found[-1] if found else {}

    def ask(self, **what: str) -> Event:
        """The answer."""
        assert self._popen.stdin is not None
        answers = {"jwt": "jwt", "validate": "valid"}[what["do"]], "error"
        before = sum(len(self.of(one)) for one in answers)
        self._popen.stdin.write(json.dumps(what) + "\n")
        self._popen.stdin.flush()
        eventually(lambda: sum(len(self.of(one)) for one in answers) > before, 30, f"an answer to {what}")
        return next(one for one in reversed(self.events) if one["event"] in answers)

    def stop(self) -> None:
        self._popen.kill()
        self._popen.wait()
        self._reader.join()
        for stream in (self._popen.stdin, self._popen.stdout):
            if stream is not None:
                stream.close()
        self._errors.close()


@contextmanager
def spiffe_client(mesh: Mesh, socket: Path) -> Iterator[SpiffeClient]:
    client = SpiffeClient(mesh, socket)
    try:
        yield client
    finally:
        client.stop()


class FileReader:
    """Reads the files as a careful app does, over and over, and has openssl judge each set it has not seen before."""

    def __init__(self, directory: Path) -> None:
        self.serials: list[str] = []
        self.reads = 0
        self.faults: list[str] = []
        self._directory = directory
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> FileReader:
        self._thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            generation = self._directory / os.readlink(self._directory / CURRENT)
            try:
                serial = judged(generation)
            except AssertionError as fault:
                self.faults.append(str(fault))
                return
            self.reads += 1
            if serial not in self.serials:
                self.serials.append(serial)


def openssl(*arguments: str) -> str:
    program = shutil.which("openssl")
    assert program, "no openssl: install it (on Debian and Ubuntu: apt-get install openssl)"
    run = subprocess.run([program, *arguments], capture_output=True, text=True, timeout=30)
    assert run.returncode == 0, f"openssl {' '.join(arguments)}: {run.stdout}{run.stderr}"
    return run.stdout


def judged(generation: Path) -> str:
    """The leaf's serial number. AssertionError unless chain, key and bundle belong together."""
    svid, key, bundle = (str(generation / name) for name in ("svid.pem", "svid.key", "bundle.pem"))
    openssl("verify", "-CAfile", bundle, "-untrusted", svid, svid)
    assert openssl("x509", "-in", svid, "-noout", "-pubkey") == openssl("pkey", "-in", key, "-pubout")
    assert json.loads((generation / "jwt_bundle.json").read_text())["keys"]
    return openssl("x509", "-in", svid, "-noout", "-serial").strip().partition("=")[2].lower().lstrip("0")


def generations(files: Path) -> list[Path]:
    return [one for one in files.iterdir() if one.is_dir() and not one.is_symlink()]


def rotated(client: SpiffeClient, count: int, within_s: float = 40.0) -> None:
    """Until the client has seen so many certificates more than now."""
    before = len({one["serial"] for one in client.of("x509")})
    eventually(
        lambda: len({one["serial"] for one in client.of("x509")}) >= before + count, within_s, f"{count} rotations"
    )


def with_token(client: SpiffeClient, audience: str) -> None:
    """A token is issued, holds for the client that verifies by itself, and for the sidecar."""
    got = client.ask(do="jwt", audience=audience)
    assert got.get("spiffe_id") == WEB, got
    assert client.ask(do="validate", audience=audience, token=got["token"]) == {"event": "valid", "spiffe_id": WEB}
    refused = client.ask(do="validate", audience="another", token=got["token"])
    assert "the token is not valid: audience" in refused["error"]


@pytest.mark.slow
def test_clients_of_others_follow_every_rotation(tmp_path: Path) -> None:
    """Leaves, two roots, keys for tokens: X509Source and JwtSource are never without, and openssl takes every set."""
    socket, files = tmp_path / "agent.sock", tmp_path / "svid"
    with Mesh(tmp_path, certificate_lifetime_s=LIFETIME_S, ca={"jwt_key_lifetime_s": 20}) as mesh:
        mesh.start_control_plane()
        web = mesh.sidecar("web", workload_api=str(socket), svid_dir=str(files))
        mesh.wait_ready(web)
        eventually(lambda: "kid" in (files / "jwt_bundle.json").read_text(), 10, "keys for tokens are in the files")
        with FileReader(files) as reader, spiffe_client(mesh, socket) as client:
            eventually(lambda: client.last("x509") and client.last("jwt_bundle"), 30, "both sources have begun")
            kids = set(client.last("jwt_bundle")["kids"])
            rotated(client, 2)
            for number in range(2):
                first = client.last("x509")["anchors"]
                mesh.done("ca", "prepare", "root")
                eventually(lambda: len(client.last("x509")["anchors"]) == 2, 10, "the new root is told")
                with_token(client, f"orders-{number}")
                # Refused until every sidecar has said that it knows it.
                eventually(lambda: mesh.hauberk("ca", "activate", "root").returncode == 0, 10, "the new root signs")
                rotated(client, 1)
                eventually(
                    lambda first=first: set(first).isdisjoint(client.last("x509")["anchors"]),  # type: ignore[misc]  # bound now
                    40,
                    "the old root is gone",
                )
                rotated(client, 1)
            with_token(client, "billing")
            eventually(
                lambda: any(kids.isdisjoint({one}) for one in client.last("jwt_bundle")["kids"]), 30, "another key"
            )
            with_token(client, "after")
            eventually(lambda: client.last("x509")["serial"] in reader.serials, 10, "the files have the newest")
        assert reader.faults == []
        assert len(reader.serials) >= 6
        assert all(one["fits"] and one["spiffe_id"] == WEB and one["issuers"] for one in client.of("x509"))
        assert "worth nothing" not in web.process.log


@pytest.mark.slow
def test_a_sidecar_that_is_killed_and_started_again_is_found_again(tmp_path: Path) -> None:
    """The socket it left behind is replaced, its files are taken over, and clients come back by themselves."""
    socket, files = tmp_path / "agent.sock", tmp_path / "svid"

    def start(mesh: Mesh) -> Member:
        web = mesh.sidecar("web", workload_api=str(socket), svid_dir=str(files))
        mesh.wait_ready(web)
        return web

    with Mesh(tmp_path) as mesh:
        mesh.start_control_plane()
        web = start(mesh)
        with spiffe_client(mesh, socket) as client:
            eventually(lambda: client.last("x509"), 30, "the source has begun")
            before = client.last("x509")["serial"]
            web.process.kill()
            assert socket.is_socket()
            web = start(mesh)
            eventually(lambda: client.last("x509")["serial"] != before, 30, "the source has the new certificate")
        eventually(lambda: judged(files / CURRENT) == client.last("x509")["serial"], 10, "the files have it too")
        eventually(lambda: len(generations(files)) == 1, 20, "older sets are removed")
        web.process.stop()
        assert not socket.exists()
        assert judged(files / CURRENT) == client.last("x509")["serial"]


def test_an_app_beside_hauberk_run_finds_the_socket(tmp_path: Path) -> None:
    """By SPIFFE_ENDPOINT_SOCKET: the client is given no other address."""
    with Mesh(tmp_path) as mesh:
        mesh.start_control_plane()
        job = mesh.run("web", CLIENT, workload_api=str(tmp_path / "agent.sock"))
        assert job.process.wait(60) == 0
        events = [json.loads(line) for line in job.process.log.splitlines() if line.startswith('{"event"')]
        assert {one["event"] for one in events} == {"x509", "jwt_bundle"}
        assert events[0]["spiffe_id"] == WEB


def test_tokens_outlast_a_control_plane_that_is_away(tmp_path: Path) -> None:
    """What was issued is handed out again; what was not is UNAVAILABLE; and it is there when the control plane is."""
    socket = tmp_path / "agent.sock"
    with Mesh(tmp_path) as mesh:
        control_plane = mesh.start_control_plane()
        web = mesh.sidecar("web", workload_api=str(socket))
        mesh.wait_ready(web)
        with spiffe_client(mesh, socket) as client:
            eventually(lambda: client.last("jwt_bundle"), 30, "the source has begun")
            token = client.ask(do="jwt", audience="orders")["token"]
            control_plane.kill()
            eventually(lambda: not web.is_connected, 10, "the sidecar knows")
            assert client.ask(do="jwt", audience="orders")["token"] == token
            assert client.ask(do="validate", audience="orders", token=token)["spiffe_id"] == WEB
            assert "the control plane cannot be asked" in client.ask(do="jwt", audience="billing")["error"]
            mesh.start_control_plane()
            eventually(lambda: web.is_connected, 20, "the sidecar is back")
            assert client.ask(do="jwt", audience="billing")["spiffe_id"] == WEB


def test_a_revoked_workload_gets_nothing_more(tmp_path: Path) -> None:
    """PERMISSION_DENIED within seconds, although no snapshot reaches it any more."""
    socket = tmp_path / "agent.sock"

    def status() -> grpc.StatusCode:
        with client(socket) as one:
            try:
                next(one.x509_svids())
            except grpc.RpcError as error:
                code: grpc.StatusCode = error.code()
                return code
            return grpc.StatusCode.OK

    with Mesh(tmp_path) as mesh:
        mesh.start_control_plane()
        mesh.wait_ready(mesh.sidecar("web", workload_api=str(socket)))
        assert status() is grpc.StatusCode.OK
        mesh.done("revoke", "identity", WEB)
        eventually(lambda: status() is grpc.StatusCode.PERMISSION_DENIED, 5, "it is refused")


def test_a_socket_that_cannot_be_made_is_told_at_the_start(tmp_path: Path) -> None:
    """With the way out, and before the join token is spent."""
    (tmp_path / "agent.sock").write_text("precious")
    with Mesh(tmp_path) as mesh:
        mesh.start_control_plane()
        web = mesh.sidecar("web", workload_api=str(tmp_path / "agent.sock"))
        assert web.process.wait() == 1
        assert "something that is no socket is there; choose another path or remove it" in web.process.log
