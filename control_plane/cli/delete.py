"""`hauberk delete`: take a resource away."""

from __future__ import annotations

from pathlib import Path

import click

from control_plane.cli.options import Kind, namespace_of, reaches_control_plane, split_name, wait_options
from control_plane.cli.verb import Verb


@click.command(
    "delete",
    cls=Verb,
    short_help="Delete a resource.",
    examples=("hauberk delete authorizationpolicy orders -n shop", "hauberk delete ap shop/orders --wait"),
)
@click.argument("kind", type=Kind())
@click.argument("name")
@click.option("-n", "--namespace", help="The resource's namespace.  [default: default]")
@wait_options
@reaches_control_plane
def delete(kind: str, name: str, *, namespace: str | None, wait: bool, timeout_s: float, socket: Path) -> None:
    """Delete the resource of a KIND called NAME.

    Taking away an ALLOW policy closes what it opened; taking away a DENY policy opens what others allow.
    """
    from control_plane.cli import client, propagation
    from control_plane.cli.output import printable
    from protos.hauberk.v1 import config_pb2

    name, namespace = split_name(name, namespace)
    request = config_pb2.DeleteRequest(
        kind=kind,
        name=name,
        namespace=namespace_of(kind, namespace),
        wait=wait,
        wait_timeout_s=timeout_s if wait else 0.0,
    )
    allowed_s = client.CALL_TIMEOUT_S + (timeout_s if wait else 0.0)
    with client.Client(socket) as control_plane:
        answer = control_plane.call("Config/Delete", request, config_pb2.DeleteResponse, timeout_s=allowed_s)
    click.echo(printable(f"{kind} {request.namespace}/{name}" if request.namespace else f"{kind} {name}") + " deleted")
    if wait:
        propagation.report(answer.propagation, answer.version, timeout_s)
