"""`hauberk ca prepare|activate|taint|revoke|install`: one step of one authority's life.

What breaks somebody is said first, and asked about: a dry run names them, then comes the question, then the step.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from control_plane.cli.options import output_option, reaches_control_plane
from control_plane.cli.verb import CliError, Verb

if TYPE_CHECKING:
    from control_plane.cli.client import Client
    from protos.hauberk.v1 import admin_pb2

LEVELS = ("root", "intermediate", "jwt")
PEM_OCTETS_MAX = 65_536
BREAKS_SHOWN = 20
STEP_TIMEOUT_S = 60.0

F = TypeVar("F", bound=Callable[..., Any])


class AuthorityId(click.ParamType[str]):
    """32 hexadecimal digits, or the first of them."""

    name = "id"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        text = str(value).lower()
        if not text or len(text) > 32 or set(text) - set("0123456789abcdef"):
            self.fail(f"{str(value)!r} is no id of an authority; `hauberk ca status` lists them", param, ctx)
        return text


def yes_option(command: F) -> F:
    """Adds --yes."""
    return click.option("--yes", is_flag=True, help="Do not ask.")(command)


@click.command(
    "prepare",
    cls=Verb,
    short_help="Make a new authority; it signs nothing yet.",
    examples=(
        "hauberk ca prepare root",
        "hauberk ca prepare intermediate",
        "hauberk ca prepare intermediate --csr intermediate.csr   # with an offline root",
    ),
)
@click.argument("level", type=click.Choice(LEVELS))
@click.option(
    "--csr", type=click.Path(path_type=Path), metavar="FILE",
    help="Where the request for the offline root goes; - for standard output.",
)  # fmt: skip
@click.option("--force", is_flag=True, help="Another one, although one is prepared already.")
@output_option()
@reaches_control_plane
def prepare(*, level: str, csr: Path | None, force: bool, output: str, socket: Path) -> None:
    """Make a new authority of LEVEL and publish it to every sidecar. Breaks nobody.

    With an offline root a new intermediate is a key and a request for its certificate (PKCS#10): have the root sign
    what --csr writes, and install it. Asked again it is the same request.
    """
    from control_plane.cli.client import Client
    from control_plane.cli.output import note
    from protos.hauberk.v1 import admin_pb2

    request = admin_pb2.CaStepRequest(step="prepare", level=level, force=force)
    with Client(socket) as control_plane:
        if csr is not None:
            _check_root_is_offline(control_plane, level)
        answer = control_plane.call("Admin/CaStep", request, admin_pb2.CaStepResponse, timeout_s=STEP_TIMEOUT_S)
    if csr is not None and str(csr) != "-":
        _write(csr, answer.csr_pem)
        note(f"the request is in {csr}; have the offline root sign it, then: hauberk ca install FILE")
    elif answer.csr_pem and (csr is not None or output == "table"):
        click.echo(answer.csr_pem, nl=False)
        note("have the offline root sign this request, then: hauberk ca install FILE")
        return
    _report(answer, output, "is made and published" if not answer.csr_pem else "is requested")


@click.command(
    "activate",
    cls=Verb,
    short_help="Let a prepared authority sign from now on.",
    examples=("hauberk ca activate root", "hauberk ca activate intermediate 3f9a", "hauberk ca activate root --force"),
)
@click.argument("level", type=click.Choice(LEVELS))
@click.argument("authority_id", metavar="[ID]", type=AuthorityId(), default=None, required=False)
@click.option("--force", is_flag=True, help="Although sidecars do not know it: they will refuse their peers.")
@yes_option
@output_option()
@reaches_control_plane
def activate(
    *, level: str, authority_id: str | None, force: bool, yes: bool, output: str, socket: Path
) -> None:  # fmt: skip
    """Let the prepared authority of LEVEL sign; the one before stays trusted until nothing stands under it.

    Refused as long as a sidecar with a live certificate has not acknowledged it; `hauberk ca status` says who is waited
    for. --force cuts those off, after saying who they are.
    """
    _step("activate", level, authority_id or "", force=force, yes=yes, output=output, socket=socket)


@click.command(
    "taint",
    cls=Verb,
    short_help="Have everybody leave an authority at once.",
    examples=("hauberk ca taint 3f9a02c1",),
)
@click.argument("authority_id", metavar="ID", type=AuthorityId())
@output_option()
@reaches_control_plane
def taint(*, authority_id: str, output: str, socket: Path) -> None:
    """Have whoever holds a certificate under ID renew at once. It stays trusted meanwhile, so this breaks nobody.

    For an authority that signs: prepare and activate another one first.
    """
    _step("taint", "", authority_id, force=False, yes=True, output=output, socket=socket)


@click.command(
    "revoke",
    cls=Verb,
    short_help="Have nobody trust an authority any more.",
    examples=("hauberk ca revoke 3f9a02c1", "hauberk ca revoke 3f9a02c1 --force --yes"),
)
@click.argument("authority_id", metavar="ID", type=AuthorityId())
@click.option("--force", is_flag=True, help="Although live certificates stand under it: their holders are cut off.")
@yes_option
@output_option()
@reaches_control_plane
def revoke(*, authority_id: str, force: bool, yes: bool, output: str, socket: Path) -> None:
    """Have nobody trust ID any more, nor what it signed. Open connections that rest on it end within seconds.

    Refused as long as live certificates stand under it: taint it first and wait until they are replaced. --force cuts
    their holders off, after saying who they are.
    """
    _step("revoke", "", authority_id, force=force, yes=yes, output=output, socket=socket)


@click.command(
    "install",
    cls=Verb,
    short_help="Take the certificate that an offline root signed.",
    examples=("hauberk ca install intermediate.pem", "cat intermediate.pem root.pem | hauberk ca install -"),
)
@click.argument("file", type=click.Path(path_type=Path), metavar="FILE")
@output_option()
@reaches_control_plane
def install(*, file: Path, output: str, socket: Path) -> None:
    """Take the signed certificate of a requested intermediate: PEM, then its root if that is not known yet.

    It is checked before it is used: a leaf signed with it must verify. The first of a mesh signs at once, a later one
    takes over when it is due; `hauberk ca activate intermediate` does it now.
    """
    from control_plane.cli.client import Client
    from protos.hauberk.v1 import admin_pb2

    request = admin_pb2.CaInstallRequest(certificate_pem=_read(file))
    with Client(socket) as control_plane:
        answer = control_plane.call("Admin/CaInstall", request, admin_pb2.CaStepResponse, timeout_s=STEP_TIMEOUT_S)
    _report(answer, output, "is installed")


def _step(what: str, level: str, authority_id: str, *, force: bool, yes: bool, output: str, socket: Path) -> None:
    from control_plane.cli.client import Client
    from control_plane.cli.output import note, printable
    from protos.hauberk.v1 import admin_pb2

    request = admin_pb2.CaStepRequest(step=what, level=level, authority_id=authority_id, dry_run=force)
    with Client(socket) as control_plane:

        def call() -> admin_pb2.CaStepResponse:
            return control_plane.call("Admin/CaStep", request, admin_pb2.CaStepResponse, timeout_s=STEP_TIMEOUT_S)

        answer = call()
        if force:
            request.force, request.dry_run = True, False
            if answer.breaks:
                note(f"{len(answer.breaks)} will be cut off until they have renewed or joined again:")
                shown = [*answer.breaks[:BREAKS_SHOWN], *(["..."] if len(answer.breaks) > BREAKS_SHOWN else [])]
                for one in shown:
                    note(printable(f"  {one}"))
                if not yes and not click.confirm(f"{what} {_name(answer)}?", default=False, err=True):
                    raise CliError("nothing was changed")
            # Exactly the one that was asked about, whatever has been prepared meanwhile.
            request.authority_id = answer.authority.authority_id or authority_id
            answer = call()
    _report(answer, output, f"is {answer.authority.phase}")


def _report(answer: admin_pb2.CaStepResponse, output: str, done: str) -> None:
    from control_plane.cli.output import clock, plain, print_data

    if output != "table":
        print_data(plain(answer), output)
        return
    ends = f", good until {clock(answer.authority.not_after)}" if answer.authority.not_after else ""
    click.echo(f"{_name(answer)} {done}{ends}")


def _name(answer: admin_pb2.CaStepResponse) -> str:
    from control_plane.cli.output import printable

    return printable(f"{answer.authority.level} {answer.authority.authority_id}")


def _check_root_is_offline(control_plane: Client, level: str) -> None:
    """Asked before anything is made: is there to be a request? Raises CliError."""
    from protos.hauberk.v1 import admin_pb2

    held = control_plane.call("Admin/CaStatus", admin_pb2.CaStatusRequest(), admin_pb2.CaStatusResponse).authorities
    root_is_here = any(one.level == "root" and one.phase == "active" and one.has_key for one in held)
    if root_is_here or level != "intermediate":
        why = (
            "the root is kept by the control plane itself"
            if root_is_here
            else f"no {level} is asked of an offline root"
        )
        raise CliError(f"{why}, so there is no request for --csr: leave it out; nothing was changed")


def _write(path: Path, text: str) -> None:
    """A new file. A request is no secret."""
    try:
        with path.open("x", encoding="ascii") as file:
            file.write(text)
    except FileExistsError:
        raise CliError(f"{path}: exists already and is left as it is; remove it or choose another --csr") from None
    except OSError as error:
        raise CliError(f"{path}: cannot be written ({os.strerror(error.errno or 0)}); choose another --csr") from None


def _read(path: Path) -> str:
    try:
        if str(path) == "-":
            octets = sys.stdin.buffer.read(PEM_OCTETS_MAX + 1)
        else:
            with path.open("rb") as file:
                octets = file.read(PEM_OCTETS_MAX + 1)
    except OSError as error:
        why = os.strerror(error.errno or 0)
        raise CliError(f"{path}: cannot be read ({why}); give a file with the certificates, or - for stdin") from None
    if len(octets) > PEM_OCTETS_MAX:
        raise CliError(f"{path}: longer than {PEM_OCTETS_MAX} bytes; give two certificates in PEM, no more")
    try:
        return _certificates(path, octets.decode("ascii"))
    except UnicodeDecodeError:
        raise CliError(
            f"{path}: is not PEM; convert it with `openssl x509 -inform DER -in {path} -out {path}.pem`"
        ) from None


def _certificates(path: Path, text: str) -> str:
    """The likeliest mistakes are told with the file's name. Raises CliError."""
    if "PRIVATE KEY" in text:
        raise CliError(f"{path}: holds a private key; keep that on the machine of the root, and give the certificates")
    if "-----BEGIN CERTIFICATE-----" in text:
        return text
    if "-----BEGIN CERTIFICATE REQUEST-----" in text:
        raise CliError(f"{path}: is the request; have the offline root sign it, and install what comes back")
    raise CliError(f"{path}: holds no certificate in PEM; give the signed intermediate, then its root")
