"""Calls over the unix socket: every way they fail is one line that says what to do next."""

from __future__ import annotations

import os
import socket
import threading
from pathlib import Path

import grpc
import pytest

from control_plane.cli import client as client_module
from control_plane.cli.client import Client
from control_plane.cli.verb import CliError
from protos.hauberk.v1 import admin_pb2
from tests.control_plane.cli.fake_control_plane import serving


def status(socket: Path, timeout_s: float = 5.0) -> admin_pb2.StatusResponse:
    with Client(socket) as client:
        return client.call("Admin/Status", admin_pb2.StatusRequest(), admin_pb2.StatusResponse, timeout_s=timeout_s)


@pytest.mark.parametrize("name", ["plain", "with space", "per%41cent", "question?mark", "ha#sh", "é"])
def test_a_socket_may_lie_in_a_directory_of_any_name(name: str, tmp_path: Path) -> None:
    """Its path travels in a URI and arrives as it was."""
    directory = tmp_path / name
    directory.mkdir()
    # The server is given a plain path; the client must find it under the other name.
    with serving(tmp_path / "s") as fake:
        os.rename(tmp_path / "s", directory / "s")
        fake.answers["Admin/Status"] = admin_pb2.StatusResponse(trust_domain="mesh.local")
        assert status(directory / "s").trust_domain == "mesh.local"


@pytest.mark.parametrize(
    ("code", "text", "told"),
    [
        (grpc.StatusCode.INVALID_ARGUMENT, "a.yaml:1: no", "a.yaml:1: no"),
        (grpc.StatusCode.PERMISSION_DENIED, "may not\x07", "may not\\x07"),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "too many; try again in 3 s", "too many; try again in 3 s"),
        (grpc.StatusCode.FAILED_PRECONDITION, "", "the control plane refused: FAILED_PRECONDITION"),
        (grpc.StatusCode.UNAVAILABLE, "stopping; try again", "stopping; try again"),
        (grpc.StatusCode.INTERNAL, "bug", "the control plane failed (bug); its log says more"),
        (grpc.StatusCode.UNKNOWN, "", "the control plane failed (UNKNOWN); its log says more"),
    ],
)
def test_a_refusal_is_told_in_the_control_planes_words(
    code: grpc.StatusCode, text: str, told: str, tmp_path: Path
) -> None:
    """Less what a terminal would act on."""
    with serving(tmp_path / "s") as fake:
        fake.answers["Admin/Status"] = (code, text)
        with pytest.raises(CliError) as caught:
            status(tmp_path / "s")
    assert caught.value.message == told


def test_a_control_plane_of_another_version_is_named_as_such(tmp_path: Path) -> None:
    """A method it does not have."""
    with serving(tmp_path / "s"), pytest.raises(CliError, match="another version"):
        status(tmp_path / "s")


def test_a_control_plane_that_does_not_answer_is_not_waited_for(tmp_path: Path) -> None:
    """It took the call and says nothing."""
    caller_gave_up = threading.Event()

    def stall() -> admin_pb2.StatusResponse:
        caller_gave_up.wait()
        return admin_pb2.StatusResponse()

    with serving(tmp_path / "s") as fake:
        fake.answers["Admin/Status"] = stall
        try:
            with pytest.raises(CliError, match=r"did not answer within 0\.2 s"):
                status(tmp_path / "s", timeout_s=0.2)
        finally:
            caller_gave_up.set()


def test_who_sits_before_a_terminal_is_told_of_a_long_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And gets the answer; a program that reads standard error is told nothing."""
    monkeypatch.setattr(client_module, "QUIET_S", 0.01)
    for is_terminal in (True, False):
        looked = threading.Event()

        def isatty(looked: threading.Event = looked, is_terminal: bool = is_terminal) -> bool:
            looked.set()
            return is_terminal

        def answer(looked: threading.Event = looked) -> admin_pb2.StatusResponse:
            looked.wait(5)
            return admin_pb2.StatusResponse(trust_domain="mesh.local")

        monkeypatch.setattr("sys.stderr.isatty", isatty)
        with serving(tmp_path / f"s{is_terminal}") as fake:
            fake.answers["Admin/Status"] = answer
            assert status(tmp_path / f"s{is_terminal}").trust_domain == "mesh.local"
        assert ("waiting for the answer, up to 5 s ..." in capsys.readouterr().err) is is_terminal


def test_a_socket_nobody_listens_on_any_more_is_told_as_nobody(tmp_path: Path) -> None:
    """What a killed control plane leaves behind."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
    with pytest.raises(CliError, match=r"no control plane answers at .*start one with"):
        status(tmp_path / "s")


def test_a_path_that_leads_nowhere_is_told(tmp_path: Path) -> None:
    """Here a link to itself."""
    (tmp_path / "s").symlink_to(tmp_path / "s")
    with pytest.raises(CliError, match=r"s: cannot be used \(.*\); check --socket and --data-dir"):
        status(tmp_path / "s")


def test_the_channel_is_closed_when_done(tmp_path: Path) -> None:
    """A call after that is a bug, not a hang."""
    with serving(tmp_path / "s") as fake:
        fake.answers["Admin/Status"] = admin_pb2.StatusResponse()
        with Client(tmp_path / "s") as client:
            pass
        with pytest.raises(ValueError, match="closed"):
            client.call("Admin/Status", admin_pb2.StatusRequest(), admin_pb2.StatusResponse)
