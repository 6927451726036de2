"""The services behind sidecar B: nghttpd for HTTP/2 and gRPC, nginx for HTTP/1.1. Both outrun any proxy."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path

from benchmarks.system import free_port, listens, started, wait_until
from benchmarks.tools import need

NGINX = """\
{user}
daemon off;
worker_processes 1;
pid {directory}/nginx.pid;
error_log stderr warn;
events {{ worker_connections 4096; }}
http {{
  access_log off;
  types {{ }}
  default_type application/octet-stream;
  open_file_cache max=1000;
  keepalive_requests 1000000000;
  client_body_temp_path {directory}/body;
  proxy_temp_path {directory}/proxy;
  fastcgi_temp_path {directory}/fastcgi;
  uwsgi_temp_path {directory}/uwsgi;
  scgi_temp_path {directory}/scgi;
  server {{ listen 127.0.0.1:{port} backlog=4096; root {files}; }}
}}
"""


def start_http2(stack: ExitStack, *, directory: Path, files: Path, core: str, is_grpc: bool) -> int:
    """The port it listens on. `is_grpc`: every answer ends in a trailer that says OK."""
    port = free_port()
    command = [
        need("nghttpd"),
        "--no-tls",
        "--address=127.0.0.1",
        f"--htdocs={files}",
        f"--mime-types-file={files / 'mime.types'}",
        *(["--trailer=grpc-status: 0"] if is_grpc else []),
        str(port),
    ]
    process = started(stack, "nghttpd", command, core=core, directory=directory)
    wait_until(lambda: listens(port), "nghttpd listens", (process, directory / "nghttpd.log"))
    return port


def start_http1(stack: ExitStack, *, directory: Path, files: Path, core: str) -> int:
    """The port it listens on."""
    port = free_port()
    config = directory / "nginx.conf"
    user = "user root root;" if os.geteuid() == 0 else ""  # or it could not read what lies in a directory of ours
    config.write_text(NGINX.format(user=user, directory=directory, files=files, port=port))
    command = [need("nginx"), "-e", "stderr", "-p", str(directory), "-c", str(config)]
    process = started(stack, "nginx", command, core=core, directory=directory)
    wait_until(lambda: listens(port), "nginx listens", (process, directory / "nginx.log"))
    return port
