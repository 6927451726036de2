"""What the tests of rehearsals have in common: documents in, results out."""

from __future__ import annotations

from control_plane.policy.rehearse.sources import Source, resources_of
from control_plane.policy.rehearse.trial import Result, run, trials_of

NOW = 1_780_000_000.0

POLICY = """\
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata:
  name: orders
  namespace: shop
spec:
  selector:
    matchLabels:
      app: orders
  rules:
    - from:
        - source:
            principals: [mesh.local/ns/shop/sa/web]
      to:
        - operation:
            methods: [GET]
            paths: ["/orders/*"]
"""

HEAD = """\
apiVersion: hauberk.dev/v1
kind: PolicyTest
metadata: {name: shop}
spec:
  workloads:
    - {service: orders, namespace: shop, ports: [8080]}
    - {service: db, namespace: shop, ports: [{port: 5432, protocol: tcp}]}
    - {service: web, namespace: shop, ports: [8080, 9000]}
"""


def results(expectations: str, policies: str = POLICY, head: str = HEAD) -> list[Result]:
    """`expectations`: items of the list, without indentation."""
    listed = "".join(f"    {line}\n" for line in expectations.strip().splitlines())
    text = f"{head}  expectations:\n{listed}"
    given = resources_of([Source(name="policies.yaml", text=policies)])
    found: list[Result] = []
    for trial in trials_of(Source(name="test.yaml", text=text), given, lambda _file, _path: []):
        found += run(trial, NOW)
    return found


def faults(expectations: str, policies: str = POLICY, head: str = HEAD) -> list[str]:
    """Of all results."""
    return [fault for one in results(expectations, policies, head) for fault in one.faults]
