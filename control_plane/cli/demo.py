"""`hauberk demo`: a small mesh with real services, step by step; `--check` turns what it saw into an exit code."""

from __future__ import annotations

import hashlib
import http.client
import json
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from control_plane.cli.demo_mesh import NAMESPACE, DemoMesh
from control_plane.cli.interrupts import Interrupts
from control_plane.cli.verb import CliError

WEB, BILLING = f"web.{NAMESPACE}", f"billing.{NAMESPACE}"
UPLOAD_OCTETS = 64 * 1024 * 1024
MEMORY_GROWTH_OCTETS_MAX = 16 * 1024 * 1024
LOAD_THREADS = 4
ROTATION_S = 22.0
"""A certificate of 30 s is renewed after 15 s, give or take 10 %."""
CHANGE_TIMEOUT_S = 5.0
BACK_TIMEOUT_S = 20.0
"""A sidecar that was refused asks again at growing intervals."""
BROKEN_OFF = ("IncompleteRead", "RemoteDisconnected")
"""An answer that was on its way when its caller lost the right to it."""
NO_SECRET = f"""\
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: nobody-to-web, namespace: {NAMESPACE}}}
spec:
  selector: {{matchLabels: {{app: web}}}}
  action: DENY
  rules: [{{}}]
"""
SHORT_LIVES = """\
apiVersion: hauberk.dev/v1
kind: MeshConfig
metadata: {name: default}
spec: {trustDomain: mesh.local, certificateLifetime: 30s, defaultAction: DENY}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One thing the demo set out to show."""

    what: str
    as_promised: bool
    detail: str


class Demo:
    """The steps, in the order in which they are told."""

    def __init__(self, mesh: DemoMesh, console: Console) -> None:
        self._mesh = mesh
        self._console = console
        self.seen: list[Seen] = []

    def run(self) -> None:
        for step in (
            self.denied_by_default,
            self.allowed,
            self.denied_with_reason,
            self.changed_while_running,
            self.large_upload,
            self.rotation,
            self.revocation,
            self.restart,
        ):
            step()

    def _show(self, what: str, as_promised: bool, detail: str) -> None:
        self.seen.append(Seen(what=what, as_promised=as_promised, detail=detail))
        mark = "[green]ok[/]" if as_promised else "[red]NOT SO[/]"
        self._console.print(f"  {mark}  [bold]{what}[/]: {detail}", soft_wrap=True)

    def denied_by_default(self) -> None:
        status, _, decision = self._mesh.call(WEB, "/")
        self._show("without a policy nothing is allowed", status == 403 and bool(decision), f"GET {WEB}/ -> {status}")

    def allowed(self) -> None:
        self._mesh.hauberk("apply", "-f", str(self._mesh.examples / "policies"), "--wait")
        status, body, _ = self._mesh.call(WEB, "/")
        caller = _json(body).get("called_by", "")
        self._show(
            "allowed HTTP call",
            status == 200 and caller == f"spiffe://mesh.local/ns/{NAMESPACE}/sa/edge",
            f"GET {WEB}/ -> {status}, web was told it is {caller}",
        )
        status, body, _ = self._mesh.call(WEB, "/order?item=mail")
        order = _json(body)
        invoice = order.get("invoice", {})
        written_in = invoice.get("written_in") if isinstance(invoice, dict) else None
        self._show(
            "allowed gRPC call",
            status == 200 and order.get("service") == "orders" and written_in is not None,
            f"web -> orders (gRPC Place) -> billing (HTTP, {written_in}): order {order.get('order')}",
        )

    def denied_with_reason(self) -> None:
        status, _, decision = self._mesh.call(BILLING, "/invoices")
        why = _json(self._mesh.hauberk(
            "explain", "--from", f"{NAMESPACE}/edge", "--to", BILLING, "GET", "/invoices", "-o", "json"
        ).encode())  # fmt: skip
        self._show(
            "denied call, with its reason",
            status == 403 and bool(decision) and why.get("allowed") is False,
            f"edge -> GET {BILLING}/invoices -> {status} (decision {decision}): {why.get('reason')}",
        )
        status, body, _ = self._mesh.call(WEB, "/admin")
        self._show("/admin is nobody's", status == 403 and b"secret" not in body, f"GET {WEB}/admin -> {status}")

    def changed_while_running(self) -> None:
        policy = self._mesh.directory / "nobody-to-web.yaml"
        policy.write_text(NO_SECRET)
        with self._load(WEB, "/") as counted:
            time.sleep(0.5)
            before = counted[403]
            self._mesh.hauberk("apply", "-f", str(policy), "--wait")
            denied = self._until(lambda: counted[403] > before)
            self._mesh.hauberk("delete", "authorizationpolicy", "nobody-to-web", "-n", NAMESPACE, "--wait")
            allowed = self._until(lambda: self._mesh.call(WEB, "/")[0] == 200)
        self._show(
            "a policy change takes effect while it runs",
            before == 0 and denied and allowed and set(counted) <= {200, 403, *BROKEN_OFF},
            f"200 -> 403 on apply, -> 200 on delete ({_counts(counted)})",
        )

    def large_upload(self) -> None:
        content = bytes(range(256)) * (UPLOAD_OCTETS // 256)
        before = {name: self._mesh.resident_octets(name) for name in ("edge", "web")}
        began = time.monotonic()
        status, body, _ = self._mesh.call(WEB, "/upload", "PUT", content, timeout_s=60)
        took = time.monotonic() - began
        growth = max(self._mesh.resident_octets(name) - before[name] for name in before)
        whole = _json(body).get("sha256") == hashlib.sha256(content).hexdigest()
        self._show(
            "a large upload streams",
            status == 200 and whole and growth < MEMORY_GROWTH_OCTETS_MAX,
            f"{UPLOAD_OCTETS >> 20} MB in {took:.1f} s, intact; sidecars grew by at most {growth / 1048576:.1f} MB",
        )

    def rotation(self) -> None:
        names = ("edge", "web", "orders", "billing")
        config = self._mesh.directory / "short-lives.yaml"
        config.write_text(SHORT_LIVES)
        with self._load(WEB, "/") as counted:
            self._mesh.hauberk("apply", "-f", str(config), "--wait")
            self._mesh.hauberk("ca", "prepare", "root")
            is_active = self._until(lambda: self._mesh.try_hauberk("ca", "activate", "root"))
            before = {name: self._mesh.status(name) for name in names}
            with self._console.status("30-second certificates, a new root, constant load ..."):
                time.sleep(ROTATION_S)
            after = {name: self._mesh.status(name) for name in names}
        rotated = sum(before[n]["certificate_serial"] != after[n]["certificate_serial"] for n in names)
        failed = sum(count for status, count in counted.items() if status != 200)
        self._show(
            "root and certificates rotate under load",
            is_active and rotated == len(names) and failed == 0 and counted[200] > 0,
            f"{rotated} of {len(names)} sidecars have a new certificate under a new root; {_counts(counted)};"
            f" {failed} failed",
        )

    def revocation(self) -> None:
        """Whoever is revoked can call nobody, with what they hold now either; until they are reinstated."""
        began = time.monotonic()
        self._mesh.hauberk("revoke", "identity", f"{NAMESPACE}/edge", "--reason", "demo", "--wait")
        refused = self._until(lambda: self._asked() != 200)
        took = time.monotonic() - began
        status = self._asked()
        self._mesh.hauberk("reinstate", "identity", f"{NAMESPACE}/edge")
        back = self._until(lambda: self._asked() == 200, BACK_TIMEOUT_S)
        self._show(
            "a revoked workload is out at once",
            refused and status != 200 and back,
            f"{NAMESPACE}/edge revoked: GET {WEB}/ -> {status} after {took:.1f} s; reinstated: {self._asked()}",
        )

    def restart(self) -> None:
        """Its join token is spent; the node key in its state directory is what it comes back with."""
        before = self._mesh.status("edge")
        began = time.monotonic()
        self._mesh.kill("edge")
        self._mesh.start_edge()
        back = self._until(lambda: self._asked() == 200, BACK_TIMEOUT_S)
        took = time.monotonic() - began
        after = self._mesh.status("edge")
        self._show(
            "a killed sidecar comes back without a token",
            back and before["node_id"] == after["node_id"] and before["pid"] != after["pid"],
            f"kill -9, started again: GET {WEB}/ -> 200 after {took:.1f} s",
        )

    def _asked(self) -> int:
        """The status of a call that may be broken off; then 0."""
        try:
            return self._mesh.call(WEB, "/")[0]
        except (OSError, http.client.HTTPException):
            return 0

    def _until(self, is_so: Callable[[], bool], timeout_s: float = CHANGE_TIMEOUT_S) -> bool:
        deadline = time.monotonic() + timeout_s
        while not is_so():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)
        return True

    @contextmanager
    def _load(self, host: str, path: str) -> Iterator[Counter[object]]:
        """Constant requests from a few threads on kept connections; counts statuses, and errors by their names."""
        counted: Counter[object] = Counter()
        stop = threading.Event()

        def ask() -> None:
            connection = http.client.HTTPConnection("127.0.0.1", self._mesh.ports["edge"], timeout=10)
            while not stop.wait(0.005):
                try:
                    connection.request("GET", path, headers={"Host": host})
                    answer = connection.getresponse()
                    answer.read()
                    counted[answer.status] += 1
                except (OSError, http.client.HTTPException) as error:
                    counted[type(error).__name__] += 1
                    connection.close()
            connection.close()

        threads = [threading.Thread(target=ask) for _ in range(LOAD_THREADS)]
        try:
            for thread in threads:
                thread.start()
            yield counted
        finally:
            stop.set()
            for thread in threads:
                if thread.ident is not None:  # else an interrupt came before it was started
                    thread.join()


def demo(*, check: bool, keep_dir: bool, http2_engine: str) -> int:
    """Exit code: 0, or 1 if something was not as promised. Ctrl-C leaves nothing behind."""
    console = Console(highlight=False)
    interrupts = Interrupts()
    whole = False
    with DemoMesh(interrupts, keep_dir=keep_dir, http2_engine=http2_engine) as mesh:
        try:
            with interrupts.allowed():
                whole = _play(mesh, console, check=check)
        except KeyboardInterrupt:
            console.print("stopping ...")
        if keep_dir:
            console.print(f"State and logs are in {mesh.directory}")
    return 0 if whole or not check else 1


def _play(mesh: DemoMesh, console: Console, *, check: bool) -> bool:
    """Start, show, and with `check` tell whether all was as promised; else stay until interrupted."""
    began = time.monotonic()
    with console.status("starting a control plane and three services, each with its sidecar ..."):
        mesh.start_control_plane()
        mesh.start_services()
    console.print(f"A mesh of four sidecars is up ({time.monotonic() - began:.1f} s). What it does:")
    play = Demo(mesh, console)
    play.run()
    if check:
        _print_table(console, play.seen, time.monotonic() - began)
        return all(seen.as_promised for seen in play.seen)
    _print_commands(console, mesh)
    while True:
        signal.pause()


def _print_table(console: Console, seen: list[Seen], took_s: float) -> None:
    table = Table(title=f"hauberk demo --check, {took_s:.0f} s")
    for column in ("what", "seen", "as promised"):
        table.add_column(column, overflow="fold")
    for one in seen:
        table.add_row(one.what, one.detail, "yes" if one.as_promised else "NO")
    console.print(table)


def _print_commands(console: Console, mesh: DemoMesh) -> None:
    edge = f"127.0.0.1:{mesh.ports['edge']}"
    console.print(f"""
It stays up until Ctrl-C. In another terminal:

  export HAUBERK_DATA_DIR={mesh.data_dir}
  hauberk status
  hauberk ca status
  hauberk get authorizationpolicies -n {NAMESPACE}
  hauberk explain --from {NAMESPACE}/edge --to {BILLING} GET /invoices
  curl -i http://{edge}/ -H 'Host: {WEB}'              # allowed
  curl -i http://{edge}/invoices -H 'Host: {BILLING}'  # denied
  hauberk delete authorizationpolicy web-from-edge -n {NAMESPACE} --wait
  hauberk revoke identity {NAMESPACE}/orders --wait    # hauberk reinstate identity {NAMESPACE}/orders
  curl http://127.0.0.1:{mesh.ports["edge_admin"]}/metrics
  tail -f {mesh.directory}/web.log
""")


def _counts(counted: Counter[object]) -> str:
    """ "1200 x 200, 3 x 403" """
    return ", ".join(f"{count} x {what}" for what, count in counted.most_common())


def _json(content: bytes) -> dict[str, object]:
    """What a service answered, if it is a JSON object."""
    try:
        value = json.loads(content)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


__all__ = ["CliError", "demo"]
