"""`hauberk explain`: would this request pass, and which rule says so? Asked of the evaluator that enforces."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from control_plane.cli.options import output_option, reaches_control_plane
from control_plane.cli.verb import Verb

if TYPE_CHECKING:
    from protos.hauberk.v1 import config_pb2


@click.command(
    "explain",
    cls=Verb,
    short_help="Ask whether a request would be allowed, and why.",
    examples=(
        "hauberk explain --from shop/web --to orders.shop GET /orders/7",
        "hauberk explain --from spiffe://mesh.local/ns/shop/sa/web --to orders.shop --port 8080 POST /orders",
        "hauberk explain --check --from shop/web --to orders.shop GET /admin || echo denied",
    ),
)
@click.option("--from", "source", required=True, metavar="IDENTITY", help="Who calls: SPIFFE ID or NAMESPACE/ACCOUNT.")
@click.option("--to", "service", required=True, metavar="SERVICE", help="Who is called: NAME.NAMESPACE.")
@click.option("--port", type=click.IntRange(1, 65_535), help="The service's port.  [default: its only one]")
@click.option("--host", default="", help="The request's host.  [default: the service's name]")
@click.option("--check", is_flag=True, help="Exit with 1 if the answer is no.")
@click.argument("method")
@click.argument("path")
@output_option()
@reaches_control_plane
def explain(
    method: str, path: str, *, source: str, service: str, port: int | None, host: str, check: bool, output: str,
    socket: Path,
) -> int:  # fmt: skip
    """Say whether a request would be allowed now, which rule decides, and what came nearest.

    Nothing is sent to the service. METHOD and PATH are the request's, such as GET /orders/7.
    """
    from control_plane.cli.client import Client
    from control_plane.cli.output import plain, print_data
    from protos.hauberk.v1 import config_pb2

    if not path.startswith(("/", "*")):
        raise click.UsageError(f"{path!r} is not a path; METHOD comes first and PATH begins with /: GET /orders/7")
    request = config_pb2.ExplainRequest(
        from_identity=source, to_service=service, port=port or 0, method=method, path=path, host=host
    )
    with Client(socket) as control_plane:
        answer = control_plane.call("Config/Explain", request, config_pb2.ExplainResponse)
    if output == "table":
        show(answer)
    else:
        print_data(plain(answer), output)
    return 1 if check and not answer.allowed else 0


def show(answer: config_pb2.ExplainResponse) -> None:
    """The verdict, then every rule that came near with each of its conditions."""
    from control_plane.cli.output import print_pairs, print_table, printable

    click.secho("ALLOWED" if answer.allowed else "DENIED", fg="green" if answer.allowed else "red", bold=True)
    print_pairs(
        [
            ("from", answer.from_identity),
            ("to", answer.to_identity),
            ("rule", answer.rule + (f" ({answer.source})" if answer.source else "")),
            ("reason", answer.reason),
            ("version", str(answer.version)),
        ]
    )
    for miss in answer.near_misses:
        where = f" ({miss.source})" if miss.source else ""
        click.echo(printable(f"\nnearest: {miss.rule}{where}"))
        rows = [
            ["yes" if one.matched else "NO", one.field, ", ".join(one.wanted), one.got or "(nothing)"]
            for one in miss.conditions
        ]
        print_table(["MATCHES", "CONDITION", "WANTED", "GOT"], rows)
