"""`hauberk run`: a sidecar and its app as one: it starts first, it ends last, and its exit code is the app's."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from control_plane.cli.verb import CliError, Verb

if TYPE_CHECKING:
    from sidecar.config import Config

# With --local: nothing is reachable from outside, and no two sidecars want the same port.
LOCAL = {
    "mesh_listen": "127.0.0.1:0",
    "outbound_listen": "127.0.0.1:0",
    "admin": "127.0.0.1:0",
    "health": "127.0.0.1:0",
}


@click.command(
    "run",
    cls=Verb,
    short_help="Run a command with a sidecar beside it.",
    context_settings={"allow_interspersed_args": False},
    examples=(
        "hauberk run --service orders --namespace shop --port 8080 --token-file orders.token -- python orders.py",
        "hauberk run --service orders --port 8080 --token-file orders.token --state-dir orders.state -- ./orders",
        "hauberk run --service web --port 8000 --local --token-file web.token -- uvicorn web:app --port 8000",
        "hauberk run --config sidecar.yaml -- ./orders",
        "hauberk run --service nightly --token-file nightly.token -- ./job.sh",
    ),
)
@click.option("--service", metavar="NAME", help="The service this is; needed unless --config says it.")
@click.option("-n", "--namespace", metavar="NAME", help="The service's namespace.  [default: default]")
@click.option("--port", type=click.IntRange(1, 65_535), help="What others call; none for a job that only calls.")
@click.option("--app", metavar="IP:PORT", help="Where the app listens, on loopback.  [default: 127.0.0.1:PORT]")
@click.option("--protocol", type=click.Choice(["http1", "http2"]), help="What the app speaks.  [default: http1]")
@click.option("--token-file", metavar="FILE", help="The join token; - for standard input.")
@click.option("--state-dir", metavar="DIR", help="Where its key is kept (0700): with it a restart needs no token.")
@click.option("--control-plane", metavar="HOST:PORT", help="Where the control plane is.  [default: 127.0.0.1:15012]")
@click.option("--trust-domain", metavar="NAME", help="Of the mesh.  [default: mesh.local]")
@click.option("--local", is_flag=True, help="Listen on loopback only, at free ports: for several on one machine.")
@click.option("--config", "config_file", metavar="FILE", help="The rest of the sidecar's configuration.")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def run(
    command: tuple[str, ...], *, service: str | None, namespace: str | None, port: int | None, app: str | None,
    protocol: str | None, token_file: str | None, state_dir: str | None, control_plane: str | None,
    trust_domain: str | None, local: bool, config_file: str | None,
) -> int:  # fmt: skip
    """Run COMMAND with a sidecar beside it.

    COMMAND starts once the certificate, the policy and the listeners are there, with HTTP_PROXY set so that its calls
    go through the mesh. Signals are passed on. On stop the sidecar deregisters, open requests finish, then the app is
    told to end; its exit code is this command's. What is given here replaces what --config says.
    """
    from sidecar.errors import SidecarError
    from sidecar.handover import become_sidecar

    flags: dict[str, object] = {
        "service": service,
        "namespace": namespace,
        "port": port,
        "app": app,
        "protocol": protocol,
        "join_token_file": token_file,
        "state_dir": state_dir,
        "control_plane": control_plane,
        "trust_domain": trust_domain,
        **(LOCAL if local else {}),
    }
    try:
        become_sidecar(settings(config_file, flags), command)
    except SidecarError as error:
        raise CliError(str(error)) from None


def settings(config_file: str | None, flags: dict[str, object]) -> Config:
    """The file's settings with what the command line says instead. Raises sidecar.errors.ConfigError."""
    from sidecar.config_load import load, with_overrides

    return with_overrides(None if config_file is None else load(config_file), **flags)
