"""Ours as two sidecars, in a real mesh: a control plane, two join tokens, `hauberk sidecar --config` twice, policy."""

from __future__ import annotations

import contextlib
import json
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from typing import Any

import trio
from cryptography.hazmat.primitives import serialization

from benchmarks import work
from benchmarks.certificates import Files, written
from benchmarks.crowd import gathered
from benchmarks.interpreter import equipped, version_of
from benchmarks.system import Pair, Running, Setup, pinned
from benchmarks.tools import ROOT
from sidecar.config_load import parse
from sidecar.identity.bootstrap import join, read_token
from tests.e2e.harness import Inbound, Member, Mesh, Process

POLICY_RULES = 100
"""In one document; what is applied at once may not be larger than a megabyte."""


class PinnedMesh(Mesh):
    """A mesh whose processes run where they are to."""

    def __init__(self, setup: Setup, tree: Path, python: str) -> None:
        """`python`: runs the two sidecars; everything else is run by this one."""
        super().__init__(setup.directory)
        self._cores = setup.cores
        self._tree = tree
        self._python = python

    def start(self, name: str, command: Sequence[str], environ: Mapping[str, str] | None = None) -> Process:
        core = {work.CALLER: self._cores.outbound, work.SERVICE: self._cores.inbound}.get(name, self._cores.rest)
        if name in (work.CALLER, work.SERVICE):
            command = [self._python if word == sys.executable else word for word in command]
        return super().start(name, pinned(core, command), {"PYTHONPATH": str(self._tree), **(environ or {})})


class Ours:
    def __init__(self, engine: str, *, name: str = "ours", tree: Path = ROOT, python: str = sys.executable) -> None:
        """`tree`: the checkout whose code is run; another one than this is how a change is compared with what was.

        `python`: what runs it (`benchmarks.interpreter`). Raises Missing if that cannot be equipped."""
        self.name = name
        self._engine = engine
        self._tree = tree
        self._python = equipped(python)
        self.version = f"{version('hauberk')} {revision(tree)} ({engine}) on CPython {version_of(python)}"

    @contextlib.contextmanager
    def start(self, setup: Setup) -> Iterator[Running]:
        with PinnedMesh(setup, self._tree, self._python) as mesh, ExitStack() as stack:
            mesh.start_control_plane()
            apply(mesh, setup.rules)
            common: dict[str, Any] = {"http2_engine": self._engine, "access_log": "denied"}
            service = mesh.sidecar(
                work.SERVICE,
                inbound=[Inbound(work.SERVICE_PORT, f"127.0.0.1:{setup.app}", "http1" if setup.is_http1 else "http2")],
                **common,
            )
            strangers = stranger_names() if setup.crowd else []
            if strangers:
                stack.enter_context(gathered(plan(mesh, strangers), core=setup.cores.rest))
            calls = dict.fromkeys([work.SERVICE, *strangers], work.SERVICE_PORT)
            caller = mesh.sidecar(work.CALLER, calls=calls, **common)
            mesh.wait_ready(service, caller)
            mesh.wait_reached(caller, work.SERVICE)
            yield Pair(
                port=caller.ports[work.SERVICE],
                mesh_port=int(service.status["mesh"].rpartition(":")[2]),
                caller=joined(mesh),
                outbound=pids(caller),
                inbound=pids(service),
            )


def pids(member: Member) -> list[int]:
    """taskset becomes what it starts, so a process is still the one that was started."""
    return [member.process.popen.pid]


def revision(tree: Path) -> str:
    """Of a checkout, with a mark if it was changed since; empty where there is no git."""
    command = ["git", "-C", str(tree), "describe", "--always", "--dirty"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    except FileNotFoundError:
        return ""


def joined(mesh: Mesh) -> Files:
    """Joins as the caller once more, and puts what that gives into files: for load that plays a sidecar."""
    where = {
        "service": work.CALLER,
        "namespace": work.NAMESPACE,
        "control_plane": f"127.0.0.1:{mesh.listen}",
        "join_token_file": str(mesh.token(work.CALLER)),
    }
    config = parse(where, "benchmark")
    member = trio.run(join, config, read_token(config.join_token_file), time.time)
    chain = "".join(map(ssl.DER_cert_to_PEM_cert, member.svid.chain_der))
    key = member.svid.private_key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    anchors = "".join(map(ssl.DER_cert_to_PEM_cert, member.bundle.anchors_der))
    return written(mesh.directory, "caller", chain=chain.encode(), key=key, anchors=anchors.encode())


def stranger_names() -> list[str]:
    return [f"stranger-{index:02}" for index in range(work.CROWD_SERVICES)]


def plan(mesh: Mesh, services: Sequence[str]) -> dict[str, Any]:
    """For `benchmarks.crowd`: a token for each service, and addresses where nobody is for each of its instances."""
    return {
        "control_plane": f"127.0.0.1:{mesh.listen}",
        "members": [
            {
                "service": name,
                "namespace": work.NAMESPACE,
                "join_token_file": str(mesh.token(name)),
                "addresses": [f"127.0.0.1:{port}" for port in work.stranger_ports(index)],
            }
            for index, name in enumerate(services)
        ],
    }


def document(name: str, rules: Sequence[work.Rule]) -> str:
    policy = {
        "apiVersion": "security.istio.io/v1",
        "kind": "AuthorizationPolicy",
        "metadata": {"name": name, "namespace": work.NAMESPACE},
        "spec": {
            "selector": {"matchLabels": {"app": work.SERVICE}},
            "action": "ALLOW",
            "rules": [
                {
                    "from": [{"source": {"principals": [rule.principal]}}],
                    "to": [{"operation": {"methods": list(rule.methods), "paths": [rule.path, f"{rule.prefix}*"]}}],
                }
                for rule in rules
            ],
        },
    }
    return json.dumps(policy) + "\n"  # JSON is YAML


def apply(mesh: Mesh, rules: Sequence[work.Rule]) -> None:
    documents = [
        document(f"rules-{start:05}", rules[start : start + POLICY_RULES])
        for start in range(0, len(rules), POLICY_RULES)
    ]
    for start in range(0, len(documents), 20):
        file = Path(mesh.directory / f"policy-{start:05}.yaml")
        file.write_text("---\n".join(documents[start : start + 20]))
        mesh.done("apply", "-f", str(file))
