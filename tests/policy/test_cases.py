"""Every case of `cases/*.yaml` and `regressions/*.yaml`, decided by hand, held against everything that decides.

Add a case by adding a line; `tables.py` says how they are written."""

from __future__ import annotations

import pytest

from sidecar.rules.authz import Authorizer
from tests.policy import naive, tables
from tests.policy.plain import in_force
from tests.policy.tables import Case

CASES = [*tables.cases("cases"), *tables.cases("regressions")]
CASES_MIN = 850


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_the_table(case: Case) -> None:
    """The interpreter written from the documentation, and the evaluator asked in both ways after YAML and wire."""
    plainly = in_force(case.documents, case.called)
    assert case.expected == naive.judge(
        plainly.policies, case.facts, default=plainly.default_action, trusted_proxies=plainly.trusted_proxies
    )
    snapshot = tables.snapshot_of(case.documents, case.called)
    authorizer = Authorizer(snapshot)
    assert case.expected == tables.asked_whole(authorizer, case.facts)
    assert case.expected == tables.asked_by_peer(authorizer, case.facts)
    assert case.expected == naive.judge(
        snapshot.policies,
        case.facts,
        default=snapshot.default_action,
        trusted_proxies=snapshot.trusted_proxies_count,
    )


def test_the_table_is_large_and_says_nothing_twice() -> None:
    """A case that is there twice with two answers would be noticed; with one answer it is noise."""
    assert len(CASES) >= CASES_MIN
    assert len({case.id for case in CASES}) == len(CASES)
