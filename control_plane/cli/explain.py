"""`hauberk explain`: would this request pass, or why was that one denied? Asked of the evaluator that enforces."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from control_plane.cli.options import output_option, reaches_control_plane
from control_plane.cli.verb import Verb

if TYPE_CHECKING:
    from protos.hauberk.v1 import config_pb2


class Header(click.ParamType[tuple[str, str]]):
    """`name: value`, as a pair."""

    name = "name: value"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        if isinstance(value, tuple):
            return value
        name, colon, text = str(value).partition(":")
        if not colon or not name or name != name.strip():
            self.fail(f"{_shown(name)} is not a header; write 'name: value', such as -H 'x-team: red'", param, ctx)
        return name, text.strip(" \t")


class Claim(click.ParamType[tuple[str, str]]):
    """`name=value`, as a pair."""

    name = "name=value"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        if isinstance(value, tuple):
            return value
        name, equals, text = str(value).partition("=")
        if not equals or not name:
            self.fail(f"{str(value)!r} is not a claim; write name=value, such as --claim groups=dev", param, ctx)
        return name, text


class Claims(click.ParamType[str]):
    """A JSON object."""

    name = "json"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            found = json.loads(value)
        except ValueError as error:
            self.fail(f'is not JSON ({error}); write an object, such as \'{{"sub": "ann"}}\'', param, ctx)
        if not isinstance(found, dict):
            self.fail('is not a JSON object; write one, such as \'{"sub": "ann"}\'', param, ctx)
        return str(value)


@click.command(
    "explain",
    cls=Verb,
    short_help="Ask whether a request would be allowed or why one was denied.",
    examples=(
        "hauberk explain --decision 68f45541b206c3a8",
        "hauberk explain --from shop/web --to orders.shop GET /orders/7",
        "hauberk explain --from shop/web --to orders.shop -H 'x-team: red' --claim iss=https://id.example GET /orders",
        "hauberk explain --from plaintext --to orders.shop --source-ip 10.0.0.9 GET /health",
        "hauberk explain --check --from shop/web --to orders.shop GET /admin || echo denied",
    ),
)
@click.option("--decision", metavar="ID", help="A decision that was made; its id is in the answer and the access log.")
@click.option(
    "--from", "source", metavar="IDENTITY", help="Who calls: SPIFFE ID, NAMESPACE/ACCOUNT, or plaintext for nobody."
)
@click.option("--to", "service", metavar="SERVICE", help="Who is called: NAME.NAMESPACE.")
@click.option("--port", type=click.IntRange(1, 65_535), help="The service's port.  [default: its only one]")
@click.option("--host", help="The request's host.  [default: the service's name]")
@click.option("-H", "--header", "headers", type=Header(), multiple=True, help="A header of the request. Repeatable.")
@click.option(
    "--claim", "claims", type=Claim(), multiple=True,
    help="A claim of the user's token. Repeatable; the same name twice is a list.",
)  # fmt: skip
@click.option("--claims", "claims_json", type=Claims(), metavar="JSON", help="All claims of the user's token.")
@click.option("--source-ip", metavar="IP", help="The caller's address.")
@click.option("--remote-ip", metavar="IP", help="The first client's.  [default: by x-forwarded-for, as a sidecar does]")
@click.option("--destination-ip", metavar="IP", help="The address that was called.")
@click.option("--sni", metavar="NAME", help="The server name of the TLS handshake.")
@click.option("--check", is_flag=True, help="Exit with 1 if the answer is no.")
@click.argument("method", required=False)
@click.argument("path", required=False)
@output_option()
@reaches_control_plane
def explain(check: bool, output: str, socket: Path, **asked: Any) -> int:
    """Say whether a request would be allowed now, which rule decides, and what came nearest; or, with --decision, the
    same of a request that was made.

    Nothing is sent to the service. METHOD and PATH are the request's, such as GET /orders/7. If several services
    reported the same decision, --to chooses one.
    """
    from control_plane.cli.client import Client
    from control_plane.cli.output import plain, print_data
    from protos.hauberk.v1 import config_pb2

    request = config_pb2.ExplainRequest(**(_of_decision(asked) if asked["decision"] else _of_request(asked)))
    with Client(socket) as control_plane:
        answer = control_plane.call("Config/Explain", request, config_pb2.ExplainResponse)
    if output == "table":
        show(answer)
    else:
        print_data(plain(answer), output)
    return 1 if check and not answer.allowed else 0


def _of_decision(asked: dict[str, Any]) -> dict[str, Any]:
    """Raises UsageError."""
    if any(value for name, value in asked.items() if name not in ("decision", "service")):
        raise click.UsageError(
            "--decision says which request; leave METHOD, PATH and what else describes one out (--to may stay)"
        )
    return {"decision_id": asked["decision"], "to_service": asked["service"] or ""}


def _of_request(asked: dict[str, Any]) -> dict[str, Any]:
    """Raises UsageError."""
    for option, name in (("--from", "source"), ("--to", "service")):
        if not asked[name]:
            raise click.UsageError(f"Missing option '{option}'; it is needed unless --decision ID is asked about.")
    for name in ("method", "path"):
        if not asked[name]:
            raise click.UsageError(f"Missing argument '{name.upper()}'.")
    path = asked["path"]
    if not path.startswith(("/", "*")):
        raise click.UsageError(f"{path!r} is not a path; METHOD comes first and PATH begins with /: GET /orders/7")
    return {
        "from_identity": asked["source"],
        "to_service": asked["service"],
        "port": asked["port"] or 0,
        "method": asked["method"],
        "path": path,
        "host": asked["host"] or "",
        "headers": [{"name": name, "value": value} for name, value in asked["headers"]],
        "claims_json": _claims(asked["claims_json"], asked["claims"]),
        "source_ip": asked["source_ip"] or "",
        "remote_ip": asked["remote_ip"] or "",
        "destination_ip": asked["destination_ip"] or "",
        "sni": asked["sni"] or "",
    }


def _claims(text: str | None, pairs: Iterable[tuple[str, str]]) -> str:
    """As it was typed, or of pairs; empty: no token. Raises UsageError for both."""
    single: dict[str, str | list[str]] = {}
    for name, value in pairs:
        held = single.get(name)
        single[name] = value if held is None else [*([held] if isinstance(held, str) else held), value]
    if text and single:
        raise click.UsageError("--claim and --claims are two ways to say the same; use one of them")
    return text or (json.dumps(single) if single else "")


def _shown(text: str) -> str:
    """Of what may be a secret with its name forgotten: not much."""
    return repr(text[:8] + "..." if len(text) > 8 else text)


def show(answer: config_pb2.ExplainResponse) -> None:
    """The verdict and its reasons, then every rule that came near with each of its conditions."""
    from control_plane.cli.output import clock, print_pairs

    click.secho("ALLOWED" if answer.allowed else "DENIED", fg="green" if answer.allowed else "red", bold=True)
    shadow = f"{'ALLOWED' if answer.shadow_allowed else 'DENIED'} by {answer.shadow_rule}" if answer.shadow_rule else ""
    pairs = [
        ("decision", answer.decision_id),
        ("when", clock(answer.decided_at) if answer.decided_at else ""),
        ("request", answer.request),
        ("from", answer.from_identity),
        ("to", answer.to_identity),
        ("rule", answer.rule + (f" ({answer.source})" if answer.source else "")),
        ("reason", answer.reason),
        ("version", str(answer.version)),
        ("in shadow", shadow),
        ("audit", ", ".join(answer.audit_rules)),
        ("note", answer.note),
    ]
    print_pairs([(name, text) for name, text in pairs if text])
    unknown = bool(answer.decision_id)  # what a sidecar does not tell was not judged again
    if answer.conditions:
        deciding = answer.shadow_rule if answer.decision_id and answer.allowed else answer.rule
        _show_rule("conditions", deciding, "", answer.conditions, unknown)
    for miss in answer.near_misses:
        _show_rule("nearest", miss.rule, miss.source, miss.conditions, unknown)


def _show_rule(title: str, rule: str, source: str, conditions: Iterable[config_pb2.Condition], unknown: bool) -> None:
    """`unknown`: it is not known whether what is hidden matched."""
    from control_plane.cli.output import print_table, printable

    where = f" ({source})" if source else ""
    click.echo(printable(f"\n{title}: {rule}{where}"))
    rows = [
        [
            "?" if one.hidden and unknown else "yes" if one.matched else "NO",
            one.field,
            ", ".join(one.wanted),
            "(hidden)" if one.hidden else one.got or "(nothing)",
        ]
        for one in conditions
    ]
    print_table(["MATCHES", "CONDITION", "WANTED", "GOT"], rows)
