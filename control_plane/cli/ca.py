"""`hauberk ca`: the certificate authorities; what they do by themselves, and what an operator may do.

One file for each kind of verb; they are added to the group here.
"""

from __future__ import annotations

import click

from control_plane.cli.ca_offline import recover, rotate_kek
from control_plane.cli.ca_rehearse import rehearse
from control_plane.cli.ca_status import status
from control_plane.cli.ca_steps import activate, install, prepare, revoke, taint
from control_plane.cli.ca_vouch import vouch
from control_plane.cli.verb import Verbs


@click.group(
    "ca",
    cls=Verbs,
    short_help="Look at the certificate authorities, and rotate them.",
    examples=(
        "hauberk ca status",
        "hauberk ca rehearse root",
        "hauberk ca prepare root",
        "hauberk ca recover --data-dir /var/lib/hauberk",
    ),
)
def ca() -> None:
    """Look at the certificate authorities, and rotate them by hand.

    Everything rotates by itself; these verbs are for doing it sooner, for a root that is kept offline, for a key that
    leaked, and for a mesh in which everything has expired.
    """


for _verb in (status, prepare, activate, taint, revoke, install, rehearse, recover, rotate_kek, vouch):
    ca.add_command(_verb)
