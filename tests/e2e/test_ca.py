"""Certificate authorities in a real mesh: a root that openssl keeps, and a mesh in which everything has expired."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from certs.spiffe_id import TrustDomain
from certs.succession import follow
from protos.hauberk.v1 import admin_pb2
from tests.control_plane.support import ca_of_copy
from tests.e2e.clients import load, outcome
from tests.e2e.harness import ALLOW_ALL, WEB_APP, Inbound, Mesh, eventually

pytestmark = pytest.mark.slow

SIGNER = """\
set -eu
request=$(mktemp)
trap 'rm -f "$request" "$request.pem"' EXIT
cat >"$request"
openssl x509 -req -in "$request" -CA {root}/root.pem -CAkey {root}/root.key -days 7 -extfile {root}/intermediate.cnf \\
  -out "$request.pem"
cat "$request.pem" {root}/root.pem
"""
EXTENSIONS = """\
basicConstraints = critical, CA:TRUE, pathlen:0
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
subjectAltName = URI:spiffe://mesh.local
"""


def authorities(mesh: Mesh) -> list[admin_pb2.Authority]:
    answer = mesh.operator("Admin/CaStatus", admin_pb2.CaStatusRequest(), admin_pb2.CaStatusResponse)
    return list(answer.authorities)


def active(mesh: Mesh, level: str) -> str:
    """Its id; empty: there is none."""
    return next((one.authority_id for one in authorities(mesh) if (one.level, one.phase) == (level, "active")), "")


def offline_root(directory: Path) -> None:
    """Made by the openssl command, as somebody would who keeps one in a safe."""
    assert shutil.which("openssl"), "the openssl command is missing; install openssl 3"
    directory.mkdir()
    (directory / "intermediate.cnf").write_text(EXTENSIONS)
    made = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc"]
    made += ["-keyout", str(directory / "root.key"), "-out", str(directory / "root.pem"), "-days", "3650"]
    made += ["-subj", "/CN=mesh root", "-addext", "basicConstraints=critical,CA:TRUE,pathlen:1"]
    made += ["-addext", "keyUsage=critical,keyCertSign,cRLSign", "-addext", "subjectAltName=URI:spiffe://mesh.local"]
    subprocess.run(made, check=True, capture_output=True)


def test_a_mesh_lives_under_a_root_that_a_command_keeps(tmp_path: Path) -> None:
    """The command signs what is asked for; turning the intermediate over twice under load loses no request."""
    offline_root(tmp_path / "safe")
    signer = tmp_path / "signer.sh"
    signer.write_text(SIGNER.format(root=shlex.quote(str(tmp_path / "safe"))))
    ca = {"root": "offline", "sign_command": ["/bin/sh", str(signer)]}
    with Mesh(tmp_path, ca=ca, certificate_lifetime_s=6) as mesh:
        mesh.start_control_plane()
        eventually(lambda: active(mesh, "intermediate"), 30, "the command has signed the first intermediate")
        (root,) = [one for one in authorities(mesh) if one.level == "root"]
        assert (root.phase, root.has_key) == ("active", False)
        orders = mesh.run("orders", WEB_APP, inbound=[Inbound(8080)])
        web = mesh.sidecar("web", calls={"orders": 8080})
        mesh.wait_ready(orders, web)
        mesh.apply(ALLOW_ALL)
        mesh.wait_reached(web, "orders")
        with load(web.ports["orders"]) as running:
            for _ in range(2):
                before = active(mesh, "intermediate")
                assert "is requested" in mesh.done("ca", "prepare", "intermediate", "--csr", f"{before}.csr")
                eventually(
                    lambda: any(one.phase == "prepared" for one in authorities(mesh)), 20, "the command has signed"
                )
                mesh.done("ca", "activate", "intermediate")
                now_signing = active(mesh, "intermediate")
                assert now_signing != before
                eventually(lambda before=before: _phase(mesh, before) == "revoked", 40, "the one before is retired")  # type: ignore[misc]  # bound now
        assert (running.failed, running.failures) == (0, [])
        assert running.answered > 20


def _phase(mesh: Mesh, authority_id: str) -> str:
    return next((one.phase for one in authorities(mesh) if one.authority_id == authority_id), "")


SHORT = {"root_lifetime_s": 16, "intermediate_lifetime_s": 8}
LEAF_S = 3


def expired(mesh: Mesh) -> tuple[bytes, float]:
    """Stops the control plane and waits until nothing of its CA is good any more: the anchor of then (DER)."""
    held = authorities(mesh)
    (root,) = [one for one in held if (one.level, one.phase) == ("root", "active")]
    ends = max(one.not_after for one in held if one.level != "jwt")
    (process,) = [one for one in mesh.processes if one.name == "control-plane" and one.is_running]
    process.stop()
    eventually(lambda: time.time() > ends + LEAF_S, SHORT["root_lifetime_s"] + 20, "everything has expired")
    return x509.load_pem_x509_certificate(root.certificate_pem.encode()).public_bytes(Encoding.DER), ends


def recover(mesh: Mesh) -> subprocess.CompletedProcess[str]:
    return mesh.hauberk("ca", "recover", "--config", str(mesh.directory / "control-plane.yaml"),
                        "--data-dir", str(mesh.data_dir))  # fmt: skip


def test_a_mesh_in_which_everything_has_expired_is_recovered(tmp_path: Path) -> None:
    """The control plane starts and says what to do; one command later members join again, and whoever knows the old
    anchor finds the new one."""
    with Mesh(tmp_path, ca=SHORT, certificate_lifetime_s=LEAF_S) as mesh:
        mesh.start_control_plane()
        mesh.apply(ALLOW_ALL)
        old_der, _ = expired(mesh)
        mesh.start_control_plane()
        assert "run `hauberk ca recover`" in mesh.hauberk("ca", "status").stderr
        mesh.processes[-1].stop()
        run = recover(mesh)
        assert run.returncode == 0, run.stderr
        assert " is active, good until " in run.stdout
        assert "start the control plane" in run.stderr
        again = recover(mesh)
        assert again.returncode == 1
        assert "has not expired" in again.stderr
        ca = ca_of_copy(mesh.data_dir, time.time())
        assert follow([old_der], ca.successions(), TrustDomain.parse("mesh.local"))[-1] == ca.anchor_der
        mesh.start_control_plane()
        orders = mesh.run("orders", WEB_APP, inbound=[Inbound(8080)])
        web = mesh.sidecar("web", calls={"orders": 8080})
        mesh.wait_ready(orders, web)
        eventually(lambda: outcome(web.ports["orders"]) == 200, 20, "calls pass again")


def test_sidecars_with_a_state_dir_come_back_by_themselves_after_a_recovery(tmp_path: Path) -> None:
    """They were running all the time; nobody touches them."""
    with Mesh(tmp_path, ca=SHORT, certificate_lifetime_s=LEAF_S) as mesh:
        mesh.start_control_plane()
        state = {name: str(tmp_path / f"{name}-state") for name in ("orders", "web")}
        orders = mesh.run("orders", WEB_APP, inbound=[Inbound(8080)], state_dir=state["orders"])
        web = mesh.sidecar("web", calls={"orders": 8080}, state_dir=state["web"])
        mesh.wait_ready(orders, web)
        mesh.apply(ALLOW_ALL)
        eventually(lambda: outcome(web.ports["orders"]) == 200, 20, "calls pass")
        expired(mesh)
        assert outcome(web.ports["orders"]) != 200
        assert recover(mesh).returncode == 0
        mesh.start_control_plane()
        eventually(lambda: outcome(web.ports["orders"]) == 200, 60, "calls pass again, and nobody did anything")
        assert orders.process.is_running
        assert web.process.is_running
