"""`hauberk policy`: try policies out before they are in force, and look at those that were.

One file per verb; they are added to the group here.
"""

from __future__ import annotations

import click


@click.group("policy")
def policy() -> None:
    """Rehearse policies, and look at their history."""
