"""AuthorizationPolicy, `security.istio.io/v1`, read from a document.

Fields and meaning are Istio's (https://istio.io/latest/docs/reference/config/security/authorization-policy/). Stricter
than theirs: an empty list is refused, because Istio takes it for no condition, and so is anything that could never
match. External authorizers (CUSTOM, `provider`) are refused by name.
"""

from __future__ import annotations

from control_plane.policy import documents, own_annotations, values, when
from control_plane.policy.documents import Node, Scalar
from control_plane.policy.model import NOTHING, PolicySpec
from control_plane.policy.reader import Fields, Problems, did_you_mean, list_items
from control_plane.policy.selection import SELECTOR_FIELDS, TARGET_FIELDS, read_selection
from sidecar.rules.snapshot import Action, AuthorizationPolicy, Operation, Rule, Source

_EXTERNAL = "external authorizers are not here yet: state who may in ALLOW and DENY rules, and demand a token with"
_EXTERNAL += " RequestAuthentication and requestPrincipals"

SPEC_FIELDS = (*SELECTOR_FIELDS, *TARGET_FIELDS, "action", "rules")
RULE_FIELDS = ("from", "to", "when")
SOURCE_FIELDS = (
    "principals", "notPrincipals", "namespaces", "notNamespaces", "serviceAccounts", "notServiceAccounts",
    "requestPrincipals", "notRequestPrincipals", "ipBlocks", "notIpBlocks", "remoteIpBlocks", "notRemoteIpBlocks",
)  # fmt: skip
OPERATION_FIELDS = ("hosts", "notHosts", "ports", "notPorts", "methods", "notMethods", "paths", "notPaths")
SPEC_NOT_YET = {"provider": _EXTERNAL}
ACTIONS_NOT_YET = ("CUSTOM",)


def read_spec(node: Node, *, namespace: str, name: str, source: str, ours: Fields) -> PolicySpec:
    """The spec, as far as it could be read; what could not is in the problems. `ours`: its annotations."""
    problems = ours.problems
    spec = Fields(node, "spec", problems, known=SPEC_FIELDS)
    spec.refuse_others(SPEC_NOT_YET)
    rules_node = spec.node_of("rules")
    policy = AuthorizationPolicy(
        namespace=namespace,
        name=name,
        action=spec.value("action", _action) or Action.ALLOW,
        rules=() if rules_node is None else _rules(rules_node, namespace, problems),
        source=source,
        shadow=own_annotations.is_shadow(ours),
    )
    return PolicySpec(policy=policy, selection=read_selection(spec))


def _action(text: str) -> Action:
    if text in Action.__members__:
        return Action[text]
    if text in ACTIONS_NOT_YET:
        raise values.BadValue(f"{text} is not yet supported", _EXTERNAL)
    known = ", ".join(Action.__members__)
    raise values.BadValue(
        f"{values.shown(text)} is not an action", did_you_mean(text, Action.__members__) or f"use one of {known}"
    )


def _rules(node: Node, namespace: str, problems: Problems) -> tuple[Rule, ...]:
    if isinstance(node, Scalar) and node.guess == "null":
        # Istio reads this as "no rules", a person as "nothing yet": the two differ for an ALLOW policy.
        problems.add(node, "spec.rules", "is empty", "write `rules: []` for none, `rules: [{}]` for everything")
        return ()
    return tuple(_rule(item, path, namespace, problems) for path, item in list_items(node, "spec.rules", problems))


def _rule(node: Node, path: str, namespace: str, problems: Problems) -> Rule:
    rule = Fields(node, path, problems, known=RULE_FIELDS)
    rule.refuse_others()
    conditions = (when.read_condition(item, where, namespace, problems) for where, item in rule.items("when"))
    return Rule(
        sources=tuple(_source(inner, namespace) for inner in _inner(rule, "from", "source", SOURCE_FIELDS)),
        operations=tuple(_operation(inner) for inner in _inner(rule, "to", "operation", OPERATION_FIELDS)),
        when=tuple(one for one in conditions if one is not None),
        line=node.place.line,
    )


def _inner(rule: Fields, outer_name: str, name: str, known: tuple[str, ...]) -> list[Fields]:
    """`from: [{source: {...}}]` and `to: [{operation: {...}}]`: the inner mappings, none of them empty."""
    found: list[Fields] = []
    for path, item in rule.items(outer_name):
        outer = Fields(item, path, rule.problems, known=(name,))
        outer.refuse_others()
        node = outer.node_of(name, required=True)
        if node is None:
            continue
        inner = Fields(node, outer.path_of(name), rule.problems, known=known)
        inner.refuse_others(NOTHING)
        if isinstance(node, documents.Mapping) and not node.entries:
            hint = f"name a condition, or remove `{outer_name}` to mean everything"
            rule.problems.add(node, inner.path, "is empty", hint)
        found.append(inner)
    return found


def _source(fields: Fields, namespace: str) -> Source:
    accounts, not_accounts = (
        tuple(map(_principal_of, fields.strings(name, values.service_account(namespace))))
        for name in ("serviceAccounts", "notServiceAccounts")
    )
    if accounts or not_accounts:
        _refuse_beside_accounts(fields)
    return Source(
        principals=fields.strings("principals", values.principal) + accounts,
        not_principals=fields.strings("notPrincipals", values.principal) + not_accounts,
        namespaces=fields.strings("namespaces", values.namespace_pattern),
        not_namespaces=fields.strings("notNamespaces", values.namespace_pattern),
        request_principals=fields.strings("requestPrincipals", values.claim_pattern),
        not_request_principals=fields.strings("notRequestPrincipals", values.claim_pattern),
        ip_blocks=fields.strings("ipBlocks", values.block),
        not_ip_blocks=fields.strings("notIpBlocks", values.block),
        remote_ip_blocks=fields.strings("remoteIpBlocks", values.block),
        not_remote_ip_blocks=fields.strings("notRemoteIpBlocks", values.block),
    )


def _principal_of(service_account: str) -> str:
    namespace, _, name = service_account.partition("/")
    return f"*/ns/{namespace}/sa/{name}"


def _refuse_beside_accounts(fields: Fields) -> None:
    """As Istio does: what the two would mean together nobody could say."""
    for name in ("principals", "notPrincipals", "namespaces", "notNamespaces"):
        if name in fields.entries:
            key, _ = fields.entries[name]
            hint = "name the callers in one of the two ways"
            fields.problems.add(key, fields.path_of(name), "stands beside service accounts", hint)


def _operation(fields: Fields) -> Operation:
    return Operation(
        hosts=fields.strings("hosts", values.host),
        not_hosts=fields.strings("notHosts", values.host),
        ports=fields.strings("ports", values.port, plain="int"),
        not_ports=fields.strings("notPorts", values.port, plain="int"),
        methods=fields.strings("methods", values.method),
        not_methods=fields.strings("notMethods", values.method),
        paths=fields.strings("paths", values.path),
        not_paths=fields.strings("notPaths", values.path),
    )
