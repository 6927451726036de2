"""`hauberk ca vouch`: an operator's word for whom the mesh trusts."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from control_plane.cli.ca_offline import config_option, settings_of
from control_plane.cli.ca_steps import yes_option
from control_plane.cli.options import data_dir_option
from control_plane.cli.verb import CliError, Verb

if TYPE_CHECKING:
    from control_plane.offline import Unvouched


@click.command(
    "vouch",
    cls=Verb,
    short_help="Say that whom a database trusts is right, although nothing vouches for it.",
    examples=("hauberk ca vouch --data-dir /var/lib/hauberk",),
)
@data_dir_option
@config_option
@yes_option
@click.pass_context
def vouch(ctx: click.Context, *, data_dir: Path, config_file: Path | None, yes: bool) -> None:
    """Look at whom the database trusts, and say that it is right. The control plane must be stopped meanwhile.

    A database that was made by an older version, or edited by hand, is refused at the start: the key-encryption key
    does not vouch for what is in it, and whoever can write it could have put a root of their own there. If you do not
    know every authority that is shown, restore a backup instead.
    """
    from control_plane import offline
    from control_plane.cli.output import note
    from control_plane.errors import ControlPlaneError, StoreLocked

    config = settings_of(ctx, data_dir, config_file)
    try:
        with offline.unvouched(config, time.time()) as found:
            if not found.doubts:
                note("all of it is vouched for already; nothing was changed")
                return
            _show(found)
            if not yes and not click.confirm("Is that whom the mesh is to trust?", default=False, err=True):
                raise CliError("nothing was changed")
            found.vouch()
    except StoreLocked as error:
        raise CliError(f"{error}; this is done while no control plane runs") from None
    except ControlPlaneError as error:
        raise CliError(str(error)) from None
    click.echo(f"vouched for: {len(found.authorities)} authorities, {len(found.revocations)} revocations")


def _show(found: Unvouched) -> None:
    from control_plane.cli.output import clock, note, print_table, printable

    rows = [
        (
            one.level.value,
            one.phase.value,
            printable(one.authority_id),
            clock(one.not_after),
            "here" if one.sealed_key else "elsewhere",
        )
        for one in found.authorities
    ]
    print_table(("LEVEL", "PHASE", "ID", "GOOD UNTIL", "KEY"), rows)
    note(f"and {len(found.revocations)} revocations")
    for one in found.doubts:
        note(f"note: {printable(one)}")
