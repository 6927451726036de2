"""The `hauberk` command: every verb, and the one place where an error becomes a line and an exit code.

0: done. 1: refused or failed. 2: typed wrong. `hauberk run` ends with its app's exit code. Errors go to standard error,
one clear line each; a traceback only with HAUBERK_DEBUG=1.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

import click

from control_plane.cli.apply import apply
from control_plane.cli.audit import audit
from control_plane.cli.backup import backup, restore
from control_plane.cli.ca import ca
from control_plane.cli.delete import delete
from control_plane.cli.explain import explain
from control_plane.cli.get import get
from control_plane.cli.policy import policy
from control_plane.cli.revoke import reinstate, revocations, revoke
from control_plane.cli.run import run
from control_plane.cli.serve_control_plane import control_plane
from control_plane.cli.serve_sidecar import sidecar
from control_plane.cli.status import status
from control_plane.cli.tokens import token
from control_plane.cli.verb import Verb, Verbs

NAME = "hauberk"
INTERRUPTED = 130
"""128 + SIGINT, as shells have it."""


class Hauberk(Verbs):
    """The group of all verbs. Verbs return their exit code, or None for 0."""

    def main(
        self, args: Sequence[str] | None = None, prog_name: str | None = None, *_args: Any, **extra: Any
    ) -> NoReturn:
        extra.pop("standalone_mode", None)
        if os.environ.get("NO_COLOR"):  # https://no-color.org
            extra["color"] = False
        try:
            code = super().main(args, prog_name or NAME, standalone_mode=False, **extra)
        except click.exceptions.NoArgsIsHelpError as error:
            click.echo(error.format_message(), err=True)
            sys.exit(2)
        except click.ClickException as error:
            click.echo(describe(error), err=True)
            sys.exit(error.exit_code)
        except (click.Abort, KeyboardInterrupt):
            sys.exit(INTERRUPTED)
        except BrokenPipeError:
            # Whoever read us has seen enough (`| head`). What is still buffered must not be tried again at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            sys.exit(1)
        except Exception as error:
            if os.environ.get("HAUBERK_DEBUG"):
                raise
            what = " ".join(f"{type(error).__name__}: {error}".split())
            click.echo(f"{NAME}: internal error: {what}; HAUBERK_DEBUG=1 shows where: please report it", err=True)
            sys.exit(1)
        sys.exit(code if isinstance(code, int) else 0)


def describe(error: click.ClickException) -> str:
    """`hauberk: message`; for what was typed wrong with where its help is."""
    message = error.format_message().rstrip(".")
    if isinstance(error, click.UsageError):
        path = error.ctx.command_path if error.ctx else NAME
        return f"{NAME}: {' '.join(message.split())} (see `{path} --help`)"
    return f"{NAME}: {message}"


def _show_version(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        from importlib.metadata import version

        click.echo(f"{NAME} {version(NAME)}")
        ctx.exit()


@click.group(cls=Hauberk, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option("--version", is_flag=True, expose_value=False, is_eager=True, callback=_show_version, help="Print it.")
def cli() -> None:
    """Hauberk, a zero-trust service mesh: mutual TLS between services, policy on every request.

    Start with `hauberk demo`, or with `hauberk control-plane --help`.
    """


@click.command(
    "demo",
    cls=Verb,
    short_help="Run a small mesh with real services.",
    examples=("hauberk demo", "hauberk demo --check"),
)
@click.option("--check", is_flag=True, help="Print what was seen as a table and exit 0 only if all of it was so.")
@click.option("--keep-dir", is_flag=True, help="Leave the demo's directory (state, logs) behind and say where it is.")
@click.option(
    "--http2-engine",
    type=click.Choice(["relay", "reference"]),
    default="relay",
    show_default=True,
    help="Which HTTP/2 implementation the sidecars use.",
)
def demo(*, check: bool, keep_dir: bool, http2_engine: str) -> int:
    """Run a small mesh with three real services, on this machine and without root.

    Shows an allowed call, a denied one, a policy change, an upload, a rotation of certificates and root under load, a
    revocation, and a sidecar that is killed and comes back; then stays up and prints commands to try. Ctrl-C ends it
    and leaves nothing behind.
    """
    from control_plane.cli.demo import demo as play

    return play(check=check, keep_dir=keep_dir, http2_engine=http2_engine)


for _verb in (
    demo,
    control_plane,
    token,
    run,
    sidecar,
    apply,
    get,
    delete,
    explain,
    policy,
    status,
    revoke,
    reinstate,
    revocations,
    ca,
    audit,
    backup,
    restore,
):
    cli.add_command(_verb)


def main() -> NoReturn:
    """The console script."""
    cli.main()
