"""`hauberk run`: one life for a sidecar and its app, in a real mesh."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Iterator

import pytest

from tests.e2e.clients import Answer, ask, outcome
from tests.e2e.harness import ALLOW_ALL, JOB, WEB_APP, Inbound, Member, Mesh, eventually


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    with Mesh(tmp_path_factory.mktemp("run")) as mesh:
        mesh.start_control_plane()
        mesh.apply(ALLOW_ALL)
        yield mesh


@pytest.fixture(scope="module")
def web(mesh: Mesh) -> Member:
    web = mesh.sidecar("web", calls={"job": 8080, "late": 8080})
    mesh.wait_ready(web)
    return web


@pytest.fixture
def job(mesh: Mesh, web: Member) -> Iterator[Member]:
    job = mesh.run("job", JOB, inbound=[Inbound(8080)])
    mesh.wait_ready(job)
    mesh.wait_reached(web, "job")
    yield job
    job.process.signal(signal.SIGTERM)
    job.process.wait()


def endpoints(mesh: Mesh, service: str) -> list[str]:
    return [one["address"] for one in mesh.workloads() if one["service"] == service and one.get("address")]


@pytest.mark.parametrize(("command", "code"), [([*JOB, "end", "0"], 0), ([*JOB, "end", "7"], 7), (["true"], 0)])
def test_a_job_that_ends_ends_its_sidecar(mesh: Mesh, command: list[str], code: int) -> None:
    """And its exit code is the command's."""
    job = mesh.run("brief", command)
    assert job.process.wait() == code
    assert not job.is_ready


def test_a_job_killed_by_a_signal_is_told_as_shells_do(mesh: Mesh) -> None:
    """128 + 9."""
    assert mesh.run("killed", ["sh", "-c", "kill -9 $$"]).process.wait() == 137


@pytest.mark.parametrize(("command", "code"), [("/no/such/program", 127), ("/etc/passwd", 126)])
def test_a_command_that_cannot_be_started_is_told(mesh: Mesh, command: str, code: int) -> None:
    """Before anything joins: the token is still good afterwards."""
    token = mesh.token("never")
    run = mesh.run("never", [command], token=token)
    assert run.process.wait() == code
    assert command in run.process.log
    assert "Traceback" not in run.process.log
    assert mesh.run("never", ["true"], token=token).process.wait() == 0


def test_a_job_calls_the_mesh_without_knowing_of_it(mesh: Mesh, job: Member) -> None:
    """HTTP_PROXY is set, so any client that heeds it can name services."""
    caller = mesh.run("caller", [*JOB, "call", "http://job.shop:8080/hello"])
    assert caller.process.wait() == 0
    assert "app: 200" in caller.process.log


def test_the_app_is_told_how_to_reach_the_mesh_and_no_token(web: Member, job: Member) -> None:
    """Addresses and identity; nothing with which another could join (security.md G13)."""
    environ = json.loads(ask(web.ports["job"], "/environ").body)
    assert environ["HAUBERK_SPIFFE_ID"] == "spiffe://mesh.local/ns/shop/sa/job"
    assert environ["HTTP_PROXY"] == f"http://127.0.0.1:{job.proxy}"
    assert environ["HAUBERK_ADMIN"] == f"127.0.0.1:{job.admin}"
    assert "hauberk1." not in json.dumps(environ)


def test_signals_are_passed_on(job: Member) -> None:
    """SIGHUP and SIGUSR1 mean something to the app and nothing to the sidecar."""
    for number in (signal.SIGHUP, signal.SIGUSR1):
        job.process.signal(number)
        job.process.wait_log(f"app: {number.name}")
    assert job.is_ready


def test_an_endpoint_is_there_while_its_job_is(mesh: Mesh, web: Member, job: Member) -> None:
    """The job ends by itself: its sidecar deregisters, and callers hear 503."""
    assert len(endpoints(mesh, "job")) == 1
    assert ask(web.ports["job"], "/end/3").status == 200
    assert job.process.wait() == 3
    assert endpoints(mesh, "job") == []
    eventually(lambda: outcome(web.ports["job"], "/") == 503, 5, "callers are told that nobody is there")


def test_sigterm_lets_what_is_in_flight_finish(mesh: Mesh, web: Member, job: Member) -> None:
    """Deregister, drain, then the app; new callers are told 503 meanwhile; the exit code is the app's."""
    answers: list[Answer] = []
    thread = threading.Thread(target=lambda: answers.append(ask(web.ports["job"], "/wait")))
    thread.start()
    job.process.wait_log("app: waiting")
    job.process.signal(signal.SIGTERM)
    eventually(lambda: not job.is_ready, 5, "it is no longer ready")
    eventually(lambda: endpoints(mesh, "job") == [], 5, "it is no longer in the registry")
    eventually(lambda: outcome(web.ports["job"], "/") == 503, 5, "new callers are told that nobody is there")
    assert "app: SIGTERM" not in job.process.log
    job.process.signal(signal.SIGUSR1)
    thread.join(20)
    assert [answer.status for answer in answers] == [200]
    assert job.process.wait() == 0
    assert "app: SIGTERM" in job.process.log


def test_a_second_sigterm_does_not_wait_for_what_is_in_flight(web: Member, job: Member) -> None:
    """Whoever stops it twice means it."""
    seen: list[int | str] = []
    thread = threading.Thread(target=lambda: seen.append(outcome(web.ports["job"], "/wait")))
    thread.start()
    job.process.wait_log("app: waiting")
    job.process.signal(signal.SIGTERM)
    eventually(lambda: not job.is_ready, 5, "it is stopping")
    job.process.signal(signal.SIGTERM)
    assert job.process.wait(4) == 0
    thread.join(20)
    assert seen != [200]


def test_an_app_that_does_not_listen_is_told_to_callers_and_to_the_log(mesh: Mesh, web: Member) -> None:
    """503 for callers while it does not; the log says what is waited for; then it is reached without a restart."""
    flag = mesh.directory / "go"
    script = f'until [ -e {flag} ]; do sleep 0.05; done; exec "$@"'
    late = mesh.run(
        "late",
        ["sh", "-c", script, "sh", *WEB_APP],
        inbound=[Inbound(8080)],
        timeouts={"app_start_s": 0.5, "drain_s": 2},
    )
    late.process.wait_log(f"does not listen on 127.0.0.1:{late.app} yet")
    assert late.page("/ready") == (503, "app\n")
    assert outcome(web.ports["late"]) == 503
    flag.touch()
    mesh.wait_ready(late)
    mesh.wait_reached(web, "late")
    assert late.process.stop() in (0, 143)  # uvicorn ends by the signal that told it to


def test_an_app_everybody_can_reach_is_pointed_out(mesh: Mesh) -> None:
    """A wildcard listener goes past the sidecar and its policy."""
    exposed = mesh.run("exposed", [*WEB_APP, "--host", "0.0.0.0"], inbound=[Inbound(8080)])
    exposed.process.wait_log("the app listens on 0.0.0.0")
    assert exposed.process.stop() in (0, 143)
