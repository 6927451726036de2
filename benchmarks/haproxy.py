"""HAProxy as two sidecars, where it is installed: one process of one thread each.

It does a little less than the others. It finds no URI among a certificate's names, so the caller is told by the
subject, and of the service only the authority that signed it is checked; paths are not made canonical.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from benchmarks import tools, work
from benchmarks.certificates import Files, issue
from benchmarks.system import Pair, Running, Setup, free_port, listens, started, wait_until

COMMON = """\
global
  nbthread 1
  maxconn 4000
  ssl-default-bind-options ssl-min-ver TLSv1.3 no-tls-tickets
  ssl-default-server-options ssl-min-ver TLSv1.3
  log stderr format raw local0
defaults
  mode http
  log global
  option httplog
  option dontlog-normal
  http-reuse always
  timeout connect 1s
  timeout client 300s
  timeout server 300s
"""


class HAProxy:
    name = "haproxy"

    def __init__(self) -> None:
        self._executable = tools.need("haproxy")
        self.version = tools.first_line(self._executable, "-v")

    @contextlib.contextmanager
    def start(self, setup: Setup) -> Iterator[Running]:
        names = {"a": work.principal(work.CALLER), "b": work.principal(work.SERVICE)}
        files = issue(setup.directory / "certificates", names)
        port, mesh_port = free_port(), free_port()
        strangers = [work.stranger_ports(index) for index in range(work.CROWD_SERVICES)] if setup.crowd else []
        sides = {
            "inbound": (mesh_port, inbound(mesh_port, setup.app, setup.is_http1, files["b"], setup.rules)),
            "outbound": (port, outbound(port, mesh_port, files["a"], strangers, setup.is_http1)),
        }
        with ExitStack() as stack:
            pids = {}
            for side, (listener, config) in sides.items():
                path = setup.directory / f"haproxy-{side}.cfg"
                path.write_text(config)
                process = started(
                    stack,
                    f"haproxy-{side}",
                    [self._executable, "-db", "-f", str(path)],
                    core=getattr(setup.cores, side),
                    directory=setup.directory,
                )
                log: Path = setup.directory / f"haproxy-{side}.log"
                wait_until(lambda listener=listener: listens(listener), f"haproxy {side} listens", (process, log))  # type: ignore[misc]  # bound now
                pids[side] = process.pid
            yield Pair(port=port, mesh_port=mesh_port, caller=files["a"], outbound=[pids["outbound"]],
                       inbound=[pids["inbound"]])  # fmt: skip


def outbound(port: int, mesh_port: int, files: Files, strangers: Sequence[Sequence[int]], is_http1: bool) -> str:
    """Sidecar A."""
    # From HTTP/2 to HTTP/1.1 it leaves the reason phrase empty, which h2load takes for no answer.
    reason = "  http-response set-status 200 reason OK if { status 200 }\n" if is_http1 else ""
    tls = f"proto h2 alpn h2 ssl crt {files.both} ca-file {files.anchors} verify required"
    others = "".join(
        f"backend stranger-{index}\n" + "".join(f"  server s{one} 127.0.0.1:{one} {tls}\n" for one in ports)
        for index, ports in enumerate(strangers)
    )
    return (
        f"{COMMON}frontend outbound\n  bind 127.0.0.1:{port}\n  default_backend service\n{reason}"
        f"backend service\n  server b 127.0.0.1:{mesh_port} {tls}\n{others}"
    )


def inbound(mesh_port: int, app: int, is_http1: bool, files: Files, rules: Sequence[work.Rule]) -> str:
    """Sidecar B."""
    lines = [
        "frontend inbound",
        f"  bind 127.0.0.1:{mesh_port} ssl crt {files.both} ca-file {files.anchors} verify required alpn h2",
        "  tcp-request session set-var(sess.caller) ssl_c_s_dn(O)",
        "  http-request set-header x-forwarded-client-cert URI=spiffe://%[var(sess.caller)]",
    ]
    for index, rule in enumerate(rules):
        lines += [
            f"  acl caller-{index} var(sess.caller) -m str {rule.principal}",
            f"  acl path-{index} path {rule.path}",
            f"  acl path-{index} path_beg {rule.prefix}",
            f"  acl method-{index} method {' '.join(rule.methods)}",
            f"  http-request allow if caller-{index} method-{index} path-{index}",
        ]
    lines += [
        "  http-request deny deny_status 403",
        "  default_backend app",
        "backend app",
        f"  server app 127.0.0.1:{app}{'' if is_http1 else ' proto h2'}",
    ]
    return COMMON + "\n".join(lines) + "\n"
