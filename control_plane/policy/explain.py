"""What the evaluator says about one request. The very one that enforces, so the two cannot disagree."""

from __future__ import annotations

from sidecar.rules.authz import Authorizer, Facts
from sidecar.rules.explain import Explanation
from sidecar.rules.snapshot import Snapshot


def explain(snapshot: Snapshot, facts: Facts) -> Explanation:
    """`snapshot` is the one of the workload that is called, `facts` what is asked of it."""
    return Authorizer(snapshot).explain(facts)
