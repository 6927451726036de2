"""`hauberk policy`: try policies out before they are in force, and look at those that were.

One file per verb; they are added to the group here.
"""

from __future__ import annotations

import click

from control_plane.cli.policy_diff import diff
from control_plane.cli.policy_history import history
from control_plane.cli.policy_lint import lint
from control_plane.cli.policy_rollback import rollback
from control_plane.cli.policy_test import test
from control_plane.cli.verb import Verbs


@click.group(
    "policy",
    cls=Verbs,
    examples=(
        "hauberk policy lint policies/ --live",
        "hauberk policy diff @live policies/ --replay access.log",
        "hauberk policy history",
    ),
)
def policy() -> None:
    """Rehearse policies, and look at their history."""


for _verb in (test, diff, lint, history, rollback):
    policy.add_command(_verb)
