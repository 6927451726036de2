"""`hauberk token create`: a string with which one sidecar may join the mesh, once. `hauberk token list`: those made."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from control_plane.cli.options import Duration, Label, output_option, reaches_control_plane
from control_plane.cli.verb import CliError, Verb, Verbs

if TYPE_CHECKING:
    from protos.hauberk.v1 import admin_pb2


@click.group(
    "token",
    cls=Verbs,
    examples=("hauberk token create --service orders --namespace shop --out orders.token", "hauberk token list"),
)
def token() -> None:
    """Make the tokens with which sidecars join, and list them."""


@token.command(
    "create",
    cls=Verb,
    short_help="Make a join token.",
    examples=(
        "hauberk token create --service orders --namespace shop --out orders.token",
        "hauberk token create --service orders --namespace shop --label app=orders --ttl 30m > orders.token",
        "hauberk token create --service web | hauberk run --service web --port 8080 --token-file - -- ./web",
    ),
)
@click.option("--service", required=True, metavar="NAME", help="The service that the sidecar will stand for.")
@click.option("-n", "--namespace", default="default", show_default=True, help="The service's namespace.")
@click.option(
    "--service-account", default="", metavar="SA", help="Part of its identity.  [default: the service's name]"
)
@click.option(
    "--label", "labels", type=Label(), multiple=True, help="For policy selectors; may be given more than once."
)
@click.option(
    "--ttl", "ttl_s", type=Duration(), default="10m", show_default=True, metavar="DURATION", help="At most 24h."
)
@click.option(
    "--out", type=click.Path(path_type=Path), metavar="FILE", help="Write the token to a new file, mode 0600."
)
@output_option(default=None)
@reaches_control_plane
def create(
    *, service: str, namespace: str, service_account: str, labels: tuple[tuple[str, str], ...], ttl_s: float,
    out: Path | None, output: str | None, socket: Path,
) -> None:  # fmt: skip
    """Make a join token: it works once, until it expires, and is shown only now.

    The token alone goes to standard output, so that it can be redirected; what it stands for goes to standard error.
    The sidecar's service, namespace, account and labels are what is said here, whatever the sidecar says.
    """
    from control_plane.cli.client import Client
    from protos.hauberk.v1 import admin_pb2

    request = admin_pb2.CreateTokenRequest(
        service=service, namespace=namespace, service_account=service_account, labels=_labels(labels), ttl_s=ttl_s
    )
    with Client(socket) as control_plane:
        # The file first: a token that cannot be written down would be lost.
        file = None if out is None else _new_file(out)
        try:
            answer = control_plane.call("Admin/CreateToken", request, admin_pb2.CreateTokenResponse)
            if file is not None:
                with os.fdopen(file, "w", encoding="ascii") as stream:
                    stream.write(answer.token + "\n")
        except BaseException:
            if out is not None:
                out.unlink(missing_ok=True)
            raise
    show(answer, request, out, output)


def _labels(labels: tuple[tuple[str, str], ...]) -> dict[str, str]:
    found: dict[str, str] = {}
    for key, value in labels:
        if key in found:
            raise click.UsageError(f"--label {key} is given twice; keep one")
        found[key] = value
    return found


def _new_file(path: Path) -> int:
    """A descriptor of a file that was not there before and that only this user may read."""
    try:
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        raise CliError(f"{path}: exists already and is left as it is; remove it or choose another --out") from None
    except OSError as error:
        raise CliError(f"{path}: cannot be written ({error.strerror}); choose another --out") from None


def show(
    answer: admin_pb2.CreateTokenResponse, request: admin_pb2.CreateTokenRequest, out: Path | None, output: str | None
) -> None:
    """The token to standard output unless it went to a file; what it stands for to standard error."""
    from control_plane.cli.output import clock, note, plain, print_data, print_pairs, printable, span

    if output is None:
        note(f"token {answer.token_id} for {printable(answer.spiffe_id)}, good once until {clock(answer.expires_at)}"
             f" ({span(request.ttl_s)})" + (f", written to {out}" if out else ""))  # fmt: skip
        if out is None:
            click.echo(answer.token)
        return
    data = plain(answer)
    if out is not None:
        data["token"] = f"in {out}"
    if output == "table":
        data["expires_at"] = clock(answer.expires_at)
        print_pairs([(name.replace("_", " "), str(value)) for name, value in data.items()])
    else:
        print_data(data, output)


@token.command(
    "list",
    cls=Verb,
    short_help="List join tokens and who came in with them.",
    examples=("hauberk token list", "hauberk token list -o json | jq -r '.tokens[].token_id'"),
)
@output_option()
@reaches_control_plane
def list_tokens(*, output: str, socket: Path) -> None:
    """List the join tokens, oldest first: for whom, until when, who made them, and whether they were used.

    By its ID a token is revoked, and with it all that came of it: hauberk revoke token ID. The token itself is not
    stored and was shown only when it was made. A token is forgotten some time after it has expired.
    """
    from control_plane.cli.client import Client
    from control_plane.cli.output import note, plain, print_data
    from protos.hauberk.v1 import admin_pb2

    with Client(socket) as control_plane:
        answer = control_plane.call("Admin/ListTokens", admin_pb2.ListTokensRequest(), admin_pb2.ListTokensResponse)
    if output == "table":
        show_list(answer)
    else:
        print_data(plain(answer), output)
    if answer.left_off:
        note(f"{answer.left_off} older ones are not shown")


def show_list(answer: admin_pb2.ListTokensResponse) -> None:
    """One line each."""
    from control_plane.cli.output import clock, note, print_table

    if not answer.tokens:
        note("there is no join token; `hauberk token create --service NAME` makes one")
        return
    rows = [
        [
            one.token_id,
            f"{one.namespace}/{one.service}",
            _state(one, answer.server_time),
            clock(one.created_at),
            one.created_by or "-",
            ", ".join(one.node_ids) or "-",
        ]
        for one in answer.tokens
    ]
    print_table(["ID", "SERVICE", "STATE", "CREATED", "BY", "NODE"], rows)


def _state(one: admin_pb2.JoinToken, now: float) -> str:
    from control_plane.cli.output import clock, until

    used = f"used {clock(one.used_at)}" if one.used_at else ""
    if one.revoked:
        return f"revoked, {used}" if used else "revoked"
    if used or one.expires_at <= now:
        return used or f"expired {clock(one.expires_at)}"
    return f"good until {clock(one.expires_at)} ({until(one.expires_at, now)})"
