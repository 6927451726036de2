"""Policies as people write them, requests, verdicts: the whole way from YAML over the wire form to the decision.

A policy is one line, `NAME ACTION RULES`. A case is one line, `CALLER METHOD HOST:PORT PATH -> VERDICT [RULE]`:

    CALLER   web (namespace shop), other/web, - (nobody authenticated), @ada (an operator)
    METHOD   `tcp` is an opaque TCP exchange: no host and no path
    VERDICT  allow or deny; RULE is `name#index`, and left out when the default decided
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from control_plane.policy.compile import Selectable, policies_for, policy_to_proto
from control_plane.policy.explain import explain
from control_plane.policy.model import MeshConfigSpec
from control_plane.policy.parse import parse_documents
from sidecar.rules.authz import Authorizer, Facts, Permit
from sidecar.rules.decode import policy_from_proto
from sidecar.rules.snapshot import Action, AuthorizationPolicy
from tests.sidecar.rules.builders import TD, snapshot, workload

BILLING = Selectable(namespace="shop", labels={"app": "billing"})
TABLE = {
    "no policy: the default denies": (
        "",
        """
        web        GET  billing.shop:8080  /                 -> deny
        -          GET  billing.shop:8080  /                 -> deny
        @ada       GET  billing.shop:8080  /                 -> deny
        web        tcp  :5432                                -> deny
        """,
    ),
    "no policy, defaultAction ALLOW": (
        "default ALLOW",
        """
        web        GET  billing.shop:8080  /                 -> allow
        other/x    PUT  billing.shop:8080  /any              -> allow
        web        tcp  :5432                                -> allow
        """,
    ),
    "H03 an ALLOW policy without rules allows nobody, whatever the default": (
        """
        default ALLOW
        a ALLOW []
        """,
        """
        web        GET  billing.shop:8080  /                 -> deny
        web        tcp  :5432                                -> deny
        """,
    ),
    "H03 a DENY policy without rules does nothing": (
        """
        default ALLOW
        d DENY []
        """,
        """
        web        GET  billing.shop:8080  /                 -> allow
        """,
    ),
    "a rule without conditions is everything": (
        "a ALLOW [{}]",
        """
        web        GET  billing.shop:8080  /                 -> allow a#0
        other/x    PUT  elsewhere:1        /any              -> allow a#0
        @ada       GET  billing.shop:8080  /                 -> allow a#0
        web        tcp  :5432                                -> allow a#0
        """,
    ),
    "with defaultAction ALLOW, an ALLOW policy closes the rest": (
        """
        default ALLOW
        a ALLOW [{to: [{operation: {paths: [/open]}}]}]
        """,
        """
        web        GET  billing.shop:8080  /open             -> allow a#0
        web        GET  billing.shop:8080  /else             -> deny
        """,
    ),
    "with defaultAction ALLOW, a DENY policy alone leaves the rest open": (
        """
        default ALLOW
        d DENY [{to: [{operation: {paths: [/shut]}}]}]
        """,
        """
        web        GET  billing.shop:8080  /shut             -> deny d#0
        web        GET  billing.shop:8080  /else             -> allow
        """,
    ),
    "principals: exact": (
        "a ALLOW [{from: [{source: {principals: [mesh.local/ns/shop/sa/web]}}]}]",
        """
        web        GET  billing.shop:8080  /                 -> allow a#0
        webb       GET  billing.shop:8080  /                 -> deny
        we         GET  billing.shop:8080  /                 -> deny
        Web        GET  billing.shop:8080  /                 -> deny
        other/web  GET  billing.shop:8080  /                 -> deny
        -          GET  billing.shop:8080  /                 -> deny
        web        tcp  :5432                                -> allow a#0
        """,
    ),
    "C21 principals: a dot is a dot": (
        "a ALLOW [{from: [{source: {principals: [mesh.local/ns/shop/sa/w.b]}}]}]",
        """
        w.b        GET  billing.shop:8080  /                 -> allow a#0
        web        GET  billing.shop:8080  /                 -> deny
        """,
    ),
    "principals: prefix": (
        "a ALLOW [{from: [{source: {principals: [mesh.local/ns/shop/*]}}]}]",
        """
        web        GET  billing.shop:8080  /                 -> allow a#0
        load       GET  billing.shop:8080  /                 -> allow a#0
        other/web  GET  billing.shop:8080  /                 -> deny
        @ada       GET  billing.shop:8080  /                 -> deny
        """,
    ),
    "C20 principals: suffix, for HTTP and TCP alike": (
        'a ALLOW [{from: [{source: {principals: ["*/sa/web"]}}]}]',
        """
        web        GET  billing.shop:8080  /                 -> allow a#0
        other/web  GET  billing.shop:8080  /                 -> allow a#0
        load       GET  billing.shop:8080  /                 -> deny
        web        tcp  :5432                                -> allow a#0
        load       tcp  :5432                                -> deny
        """,
    ),
    "C24 principals: presence is anybody with a name": (
        'a ALLOW [{from: [{source: {principals: ["*"]}}]}]',
        """
        web        GET  billing.shop:8080  /                 -> allow a#0
        @ada       GET  billing.shop:8080  /                 -> allow a#0
        -          GET  billing.shop:8080  /                 -> deny
        -          tcp  :5432                                -> deny
        """,
    ),
    "C24 notPrincipals in ALLOW never lets nobody in": (
        "a ALLOW [{from: [{source: {notPrincipals: [mesh.local/ns/shop/sa/load]}}]}]",
        """
        web        GET  billing.shop:8080  /                 -> allow a#0
        load       GET  billing.shop:8080  /                 -> deny
        -          GET  billing.shop:8080  /                 -> deny
        """,
    ),
    "C24 notPrincipals in DENY denies nobody too": (
        """
        a ALLOW [{}]
        d DENY [{from: [{source: {notPrincipals: [mesh.local/ns/shop/sa/web]}}]}]
        """,
        """
        web        GET  billing.shop:8080  /                 -> allow a#0
        load       GET  billing.shop:8080  /                 -> deny d#0
        -          GET  billing.shop:8080  /                 -> deny d#0
        """,
    ),
    "namespaces": (
        "a ALLOW [{from: [{source: {namespaces: [shop, test-*]}}]}]",
        """
        web        GET  billing.shop:8080  /                 -> allow a#0
        test-1/x   GET  billing.shop:8080  /                 -> allow a#0
        test/x     GET  billing.shop:8080  /                 -> deny
        shops/web  GET  billing.shop:8080  /                 -> deny
        other/web  GET  billing.shop:8080  /                 -> deny
        @ada       GET  billing.shop:8080  /                 -> deny
        -          GET  billing.shop:8080  /                 -> deny
        """,
    ),
    "notNamespaces": (
        "a ALLOW [{from: [{source: {notNamespaces: [other]}}]}]",
        """
        web        GET  billing.shop:8080  /                 -> allow a#0
        other/web  GET  billing.shop:8080  /                 -> deny
        @ada       GET  billing.shop:8080  /                 -> deny
        -          GET  billing.shop:8080  /                 -> deny
        """,
    ),
    "fields of one source are ANDed, sources are ORed": (
        """
        a ALLOW [{from: [{source: {namespaces: [shop], notPrincipals: ["*/sa/load"]}},
                         {source: {principals: [mesh.local/ns/other/sa/web]}}]}]
        """,
        """
        web        GET  billing.shop:8080  /                 -> allow a#0
        load       GET  billing.shop:8080  /                 -> deny
        other/web  GET  billing.shop:8080  /                 -> allow a#0
        other/x    GET  billing.shop:8080  /                 -> deny
        """,
    ),
    "paths: exact, and case counts": (
        "a ALLOW [{to: [{operation: {paths: [/invoices]}}]}]",
        """
        web        GET  billing.shop:8080  /invoices         -> allow a#0
        web        GET  billing.shop:8080  /invoices/        -> deny
        web        GET  billing.shop:8080  /invoices/7       -> deny
        web        GET  billing.shop:8080  /invoicesX        -> deny
        web        GET  billing.shop:8080  /Invoices         -> deny
        web        GET  billing.shop:8080  /                 -> deny
        web        tcp  :5432                                -> deny
        """,
    ),
    "paths: prefix": (
        "a ALLOW [{to: [{operation: {paths: [/api/*]}}]}]",
        """
        web        GET  billing.shop:8080  /api/             -> allow a#0
        web        GET  billing.shop:8080  /api/v1/x         -> allow a#0
        web        GET  billing.shop:8080  /api              -> deny
        web        GET  billing.shop:8080  /apix             -> deny
        web        GET  billing.shop:8080  /v1/api/x         -> deny
        """,
    ),
    "paths: suffix": (
        'a ALLOW [{to: [{operation: {paths: ["*.png"]}}]}]',
        """
        web        GET  billing.shop:8080  /a/b.png          -> allow a#0
        web        GET  billing.shop:8080  /a/b.png/x        -> deny
        web        GET  billing.shop:8080  /a/bpng           -> deny
        """,
    ),
    "paths: presence is any HTTP request, and no TCP": (
        'a ALLOW [{to: [{operation: {paths: ["*"]}}]}]',
        """
        web        GET      billing.shop:8080  /             -> allow a#0
        web        OPTIONS  billing.shop:8080  *             -> allow a#0
        web        tcp      :5432                            -> deny
        """,
    ),
    "notPaths": (
        'a ALLOW [{to: [{operation: {paths: ["/*"], notPaths: [/private, /private/*]}}]}]',
        """
        web        GET  billing.shop:8080  /                 -> allow a#0
        web        GET  billing.shop:8080  /privateer        -> allow a#0
        web        GET  billing.shop:8080  /private          -> deny
        web        GET  billing.shop:8080  /private/x        -> deny
        """,
    ),
    "C14 /admin and /admin/ are two paths": (
        """
        a ALLOW [{}]
        d DENY [{to: [{operation: {paths: [/admin]}}]}]
        """,
        """
        web        GET  billing.shop:8080  /admin            -> deny d#0
        web        GET  billing.shop:8080  /admin/           -> allow a#0
        web        GET  billing.shop:8080  /admin.           -> allow a#0
        """,
    ),
    "C14 unless the policy says both": (
        """
        a ALLOW [{}]
        d DENY [{to: [{operation: {paths: [/admin, /admin/*]}}]}]
        """,
        """
        web        GET  billing.shop:8080  /admin            -> deny d#0
        web        GET  billing.shop:8080  /admin/           -> deny d#0
        web        GET  billing.shop:8080  /admin/x          -> deny d#0
        web        GET  billing.shop:8080  /administrator    -> allow a#0
        """,
    ),
    "C06 a DENY reads the path with and without parameters": (
        """
        a ALLOW [{to: [{operation: {paths: [/ok, "/ok;v=1"]}}]}]
        d DENY [{to: [{operation: {paths: [/admin, /admin/*]}}]}]
        """,
        """
        web        GET  billing.shop:8080  /admin;a=b        -> deny d#0
        web        GET  billing.shop:8080  /;/admin          -> deny d#0
        web        GET  billing.shop:8080  /admin;x/y        -> deny d#0
        web        GET  billing.shop:8080  /ok;v=1           -> allow a#0
        web        GET  billing.shop:8080  /ok;v=2           -> deny
        """,
    ),
    "C10 the query is not in the path": (
        """
        a ALLOW [{}]
        d DENY [{to: [{operation: {paths: [/admin]}}]}]
        """,
        """
        web        GET  billing.shop:8080  /admin?x          -> deny d#0
        web        GET  billing.shop:8080  /ok?/admin        -> allow a#0
        """,
    ),
    "methods": (
        "a ALLOW [{to: [{operation: {methods: [GET, HEAD, M*]}}]}]",
        """
        web        GET    billing.shop:8080  /               -> allow a#0
        web        HEAD   billing.shop:8080  /               -> allow a#0
        web        MKCOL  billing.shop:8080  /               -> allow a#0
        web        POST   billing.shop:8080  /               -> deny
        web        GETX   billing.shop:8080  /               -> deny
        web        get    billing.shop:8080  /               -> deny
        web        tcp    :5432                              -> deny
        """,
    ),
    "notMethods": (
        "a ALLOW [{to: [{operation: {notMethods: [DELETE]}}]}]",
        """
        web        GET     billing.shop:8080  /              -> allow a#0
        web        DELETE  billing.shop:8080  /              -> deny
        web        tcp     :5432                             -> deny
        """,
    ),
    "C15 C16 hosts: case and port take no part": (
        'a ALLOW [{to: [{operation: {hosts: [Billing.shop, "*.example.com", "api-*"]}}]}]',
        """
        web        GET  billing.shop:8080       /            -> allow a#0
        web        GET  BILLING.SHOP:8080       /            -> allow a#0
        web        GET  billing.shop.:8080      /            -> allow a#0
        web        GET  a.b.example.com:80      /            -> allow a#0
        web        GET  example.com:80          /            -> deny
        web        GET  api-7:80                /            -> allow a#0
        web        GET  xbilling.shop:8080      /            -> deny
        web        GET  billing.shop.evil:8080  /            -> deny
        """,
    ),
    "C16 a DENY on a host holds on every port": (
        """
        a ALLOW [{}]
        d DENY [{to: [{operation: {hosts: [secret.com]}}]}]
        """,
        """
        web        GET  secret.com:443  /                    -> deny d#0
        web        GET  secret.com:1    /                    -> deny d#0
        web        GET  public.com:443  /                    -> allow a#0
        """,
    ),
    "notHosts": (
        "a ALLOW [{to: [{operation: {notHosts: [secret.com]}}]}]",
        """
        web        GET  public.com:443  /                    -> allow a#0
        web        GET  secret.com:443  /                    -> deny
        """,
    ),
    "ports, for HTTP and TCP": (
        'a ALLOW [{to: [{operation: {ports: [8080, "5432"]}}]}]',
        """
        web        GET  billing.shop:8080  /                 -> allow a#0
        web        GET  billing.shop:80    /                 -> deny
        web        GET  billing.shop:808   /                 -> deny
        web        tcp  :5432                                -> allow a#0
        web        tcp  :5433                                -> deny
        """,
    ),
    "notPorts": (
        "a ALLOW [{to: [{operation: {notPorts: [22]}}]}]",
        """
        web        GET  billing.shop:8080  /                 -> allow a#0
        web        tcp  :22                                  -> deny
        web        tcp  :23                                  -> allow a#0
        """,
    ),
    "C23 HTTP fields in ALLOW never let TCP through": (
        "a ALLOW [{to: [{operation: {ports: [5432], methods: [GET]}}]}]",
        """
        web        GET  billing.shop:5432  /                 -> allow a#0
        web        tcp  :5432                                -> deny
        """,
    ),
    "C23 HTTP fields in DENY deny TCP by what remains": (
        """
        a ALLOW [{}]
        d DENY [{to: [{operation: {ports: [5432], paths: [/admin]}}]}]
        """,
        """
        web        GET  billing.shop:5432  /                 -> allow a#0
        web        GET  billing.shop:5432  /admin            -> deny d#0
        web        tcp  :5432                                -> deny d#0
        web        tcp  :5433                                -> allow a#0
        """,
    ),
    "fields of one operation are ANDed, operations are ORed": (
        "a ALLOW [{to: [{operation: {methods: [GET], paths: [/a*]}}, {operation: {methods: [POST], paths: [/b]}}]}]",
        """
        web        GET   billing.shop:8080  /ab              -> allow a#0
        web        POST  billing.shop:8080  /b               -> allow a#0
        web        POST  billing.shop:8080  /ab              -> deny
        web        GET   billing.shop:8080  /b               -> deny
        """,
    ),
    "from and to are ANDed, rules are ORed": (
        """
        a ALLOW [{from: [{source: {principals: ["*/sa/web"]}}], to: [{operation: {methods: [GET]}}]},
                 {from: [{source: {principals: ["*/sa/edge"]}}]}]
        """,
        """
        web        GET   billing.shop:8080  /                -> allow a#0
        web        POST  billing.shop:8080  /                -> deny
        edge       POST  billing.shop:8080  /                -> allow a#1
        edge       GET   billing.shop:8080  /                -> allow a#1
        load       GET   billing.shop:8080  /                -> deny
        """,
    ),
    "H04 DENY before ALLOW, and names in their order": (
        """
        z-allow ALLOW [{}]
        b-allow ALLOW [{to: [{operation: {paths: [/b]}}]}]
        y-deny DENY [{to: [{operation: {paths: [/x]}}]}]
        c-deny DENY [{to: [{operation: {paths: [/x, /y]}}]}]
        """,
        """
        web        GET  billing.shop:8080  /x                -> deny c-deny#0
        web        GET  billing.shop:8080  /y                -> deny c-deny#0
        web        GET  billing.shop:8080  /b                -> allow b-allow#0
        web        GET  billing.shop:8080  /z                -> allow z-allow#0
        """,
    ),
    "several ALLOW policies are ORed": (
        """
        a ALLOW [{from: [{source: {principals: ["*/sa/web"]}}]}]
        b ALLOW [{from: [{source: {principals: ["*/sa/edge"]}}]}]
        n ALLOW []
        """,
        """
        web        GET  billing.shop:8080  /                 -> allow a#0
        edge       GET  billing.shop:8080  /                 -> allow b#0
        load       GET  billing.shop:8080  /                 -> deny
        """,
    ),
    "gRPC: a method is a path": (
        "a ALLOW [{to: [{operation: {methods: [POST], paths: [/shop.v1.Orders/Get, /shop.v1.Admin/*]}}]}]",
        """
        web        POST  orders.shop:9090  /shop.v1.Orders/Get      -> allow a#0
        web        POST  orders.shop:9090  /shop.v1.Orders/GetAll   -> deny
        web        POST  orders.shop:9090  /shop.v1.Orders/Place    -> deny
        web        POST  orders.shop:9090  /shop.v1.Admin/Anything  -> allow a#0
        web        POST  orders.shop:9090  /shopxv1.Orders/Get      -> deny
        """,
    ),
}


def read_policies(lines: str) -> tuple[tuple[AuthorizationPolicy, ...], Action]:
    """Parsed from YAML, sent over the wire form and read again."""
    default, yaml = Action.DENY, ""
    for line in lines.strip().replace("\n                 ", " ").splitlines():
        if line.split()[0] == "default":
            default = Action[line.split()[1]]
            continue
        name, action, rules = line.split(maxsplit=2)
        yaml += "---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n"
        yaml += f"metadata: {{name: {name}, namespace: shop}}\n"
        yaml += f"spec: {{action: {action}, rules: {rules}}}\n"
    selected = policies_for(parse_documents(yaml, "table.yaml"), BILLING, MeshConfigSpec(), TD)
    received = tuple(policy_from_proto(policy_to_proto(policy)) for policy in selected)
    assert received == selected
    return received, default


def read_case(line: str) -> tuple[Facts, str]:
    request, _, verdict = line.partition(" -> ")
    caller, method, authority, *path = request.split()
    host, _, port = authority.rpartition(":")
    facts = Facts(principal=workload(caller), port=int(port))
    if method != "tcp":
        facts = replace(facts, method=method, host=host, path=path[0])
    return facts, verdict.strip()


CASES = {
    f"{title}: {' '.join(line.split())}": (policies, " ".join(line.split()))
    for title, (policies, lines) in TABLE.items()
    for line in lines.strip().splitlines()
}


@pytest.mark.parametrize(("policies", "case"), CASES.values(), ids=CASES.keys())
def test_verdict(policies: str, case: str) -> None:
    """Enforced, specialised to the caller and explained: one verdict."""
    read, default = read_policies(policies)
    asked, wanted = read_case(case)
    current = snapshot(read, default=default)
    verdict = Authorizer(current).authorize(asked)
    peer = Authorizer(current).for_peer(asked.peer)
    assert peer.authorize(asked.host, asked.port, asked.method, asked.path) == verdict
    rule = "" if verdict.rule == "default" else " " + verdict.rule.removeprefix("shop/")
    assert ("allow" if isinstance(verdict, Permit) else "deny") + rule == wanted
    explanation = explain(current, asked)
    assert (explanation.allowed, explanation.rule) == (isinstance(verdict, Permit), verdict.rule)


def test_the_table_is_large_enough_to_mean_something() -> None:
    """And no case stands there twice."""
    assert len(CASES) == sum(len(lines.strip().splitlines()) for _, lines in TABLE.values())
    assert len(CASES) >= 150
