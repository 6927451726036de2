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
@click.option("--dry-run", is_flag=True, help="Say who would gain and lose what, but delete nothing.")
@click.option("--confirm", is_flag=True, help="Ask before it is deleted.")
@wait_options
@reaches_control_plane
def delete(
    kind: str,
    name: str,
    *,
    namespace: str | None,
    dry_run: bool,
    confirm: bool,
    wait: bool,
    timeout_s: float,
    socket: Path,
) -> None:
    """Delete the resource of a KIND called NAME.

    Taking away an ALLOW policy closes what it opened; taking away a DENY policy opens what others allow. Who gains and
    who loses what is said before.
    """
    from control_plane.cli import client, impact, propagation
    from control_plane.cli.output import printable
    from protos.hauberk.v1 import config_pb2

    impact.check_options(dry_run=dry_run, confirm=confirm, wait=wait)
    name, namespace = split_name(name, namespace)
    request = config_pb2.DeleteRequest(kind=kind, name=name, namespace=namespace_of(kind, namespace), dry_run=True)
    with client.Client(socket) as control_plane:

        def call(timeout_s: float) -> config_pb2.DeleteResponse:
            return control_plane.call("Config/Delete", request, config_pb2.DeleteResponse, timeout_s=timeout_s)

        answer = call(client.CHANGE_TIMEOUT_S)
        impact.report(answer.impact)
        if not dry_run:
            impact.ask(confirm)
            impact.make_real(request, answer.version, wait, timeout_s)
            answer = call(client.CHANGE_TIMEOUT_S + request.wait_timeout_s)
    full_name = f"{kind} {request.namespace}/{name}" if request.namespace else f"{kind} {name}"
    click.echo(printable(full_name) + (" would be deleted (dry run)" if dry_run else " deleted"))
    if wait:
        propagation.report(answer.propagation, answer.version, timeout_s)
