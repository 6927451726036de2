"""`hauberk get`: what has been applied."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from control_plane.cli.options import Kind, namespace_of, output_option, reaches_control_plane, split_name
from control_plane.cli.verb import Verb

if TYPE_CHECKING:
    from protos.hauberk.v1 import config_pb2


@click.command(
    "get",
    cls=Verb,
    short_help="Print what has been applied.",
    examples=(
        "hauberk get authorizationpolicies",
        "hauberk get ap orders -n shop -o yaml > orders.yaml",
        "hauberk get all -o json",
    ),
)
@click.argument("kind", type=Kind(or_all=True))
@click.argument("name", required=False)
@click.option("-n", "--namespace", help="Only this namespace.  [default: all; for one NAME: default]")
@output_option()
@reaches_control_plane
def get(kind: str, name: str | None, *, namespace: str | None, output: str, socket: Path) -> None:
    """Print resources: all of a KIND, or the one called NAME.

    KIND is authorizationpolicy (ap), peerauthentication (pa), requestauthentication (ra), meshconfig (mc), or all.
    With -o yaml they are printed as they were applied, so that the output can be applied again.
    """
    from control_plane.cli.client import Client
    from protos.hauberk.v1 import config_pb2

    if name is None:
        listing = config_pb2.ListRequest(kind=kind, namespace=namespace or "")
        with Client(socket) as control_plane:
            found = list(control_plane.call("Config/List", listing, config_pb2.ListResponse).resources)
    else:
        if not kind:
            raise click.UsageError("`get all` takes no NAME; say of which kind it is, such as `get ap NAME`")
        name, namespace = split_name(name, namespace)
        request = config_pb2.GetRequest(kind=kind, name=name, namespace=namespace_of(kind, namespace))
        with Client(socket) as control_plane:
            found = [control_plane.call("Config/Get", request, config_pb2.GetResponse).resource]
    show(found, output)


def show(found: Sequence[config_pb2.Resource], output: str) -> None:
    """YAML as applied, JSON with its origin, or one line each."""
    from control_plane.cli.output import clock, note, plain, print_data, print_table, printable

    if output == "yaml":
        click.echo("---\n".join(printable(one.yaml.rstrip("\n")) + "\n" for one in found), nl=False)
    elif output == "json":
        import yaml

        documents = [plain(one) for one in found]
        for document in documents:
            document["document"] = yaml.safe_load(document.pop("yaml"))
        print_data(documents, "json")
    elif not found:
        note("nothing found; `hauberk apply -f FILE` adds resources")
    else:
        rows = [
            [
                one.kind,
                one.namespace or "-",
                one.name,
                str(one.version),
                clock(one.applied_at),
                one.applied_by,
                one.source,
            ]
            for one in found
        ]
        print_table(["KIND", "NAMESPACE", "NAME", "VERSION", "APPLIED", "BY", "FROM"], rows)
