"""AuthorizationPolicy, `security.istio.io/v1`, read from a document.

Fields and meaning are Istio's (https://istio.io/latest/docs/reference/config/security/authorization-policy/). Fields of
theirs that are not here yet are refused by name. Stricter than theirs: an empty list is refused, because Istio takes it
for no condition, and so is anything that could never match.
"""

from __future__ import annotations

from collections.abc import Mapping

from control_plane.policy import documents, values
from control_plane.policy.documents import Node, Scalar
from control_plane.policy.model import PolicySpec
from control_plane.policy.reader import NOTHING, Fields, Problems, did_you_mean, list_items, string_map
from sidecar.rules.snapshot import Action, AuthorizationPolicy, Operation, Rule, Source

_JWT = "it needs RequestAuthentication, which is not here yet"
_IP = "select callers by principals or namespaces"
_SELECTOR = "use spec.selector.matchLabels"

_SPEC_NOT_YET = {"targetRef": _SELECTOR, "targetRefs": _SELECTOR, "provider": "external authorizers are not here yet"}
_RULE_NOT_YET = {"when": "state the condition in from and to"}
_SOURCE_NOT_YET = {
    "requestPrincipals": _JWT,
    "notRequestPrincipals": _JWT,
    "ipBlocks": _IP,
    "notIpBlocks": _IP,
    "remoteIpBlocks": _IP,
    "notRemoteIpBlocks": _IP,
    "serviceAccounts": "write principals: [TRUST-DOMAIN/ns/NAMESPACE/sa/NAME]",
    "notServiceAccounts": "write notPrincipals: [TRUST-DOMAIN/ns/NAMESPACE/sa/NAME]",
}
_ACTIONS_NOT_YET = {"AUDIT", "CUSTOM"}

_SOURCE = ("principals", "notPrincipals", "namespaces", "notNamespaces")
_OPERATION = ("hosts", "notHosts", "ports", "notPorts", "methods", "notMethods", "paths", "notPaths")


def read_spec(node: Node, *, namespace: str, name: str, source: str, problems: Problems) -> PolicySpec:
    """The spec, as far as it could be read; what could not is in `problems`."""
    spec = Fields(node, "spec", problems, known=("selector", "action", "rules"))
    spec.refuse_others(_SPEC_NOT_YET)
    selector_node, rules_node = spec.node_of("selector"), spec.node_of("rules")
    policy = AuthorizationPolicy(
        namespace=namespace,
        name=name,
        action=spec.value("action", _action) or Action.ALLOW,
        rules=() if rules_node is None else _rules(rules_node, problems),
        source=source,
    )
    return PolicySpec(policy=policy, selector=NOTHING if selector_node is None else _selector(selector_node, problems))


def _action(text: str) -> Action:
    if text in Action.__members__:
        return Action[text]
    if text in _ACTIONS_NOT_YET:
        raise values.BadValue(f"{text} is not yet supported", "use ALLOW or DENY")
    hint = did_you_mean(text, Action.__members__) or "use ALLOW or DENY"
    raise values.BadValue(f"{values.shown(text)} is not an action", hint)


def _selector(node: Node, problems: Problems) -> Mapping[str, str]:
    selector = Fields(node, "spec.selector", problems, known=("matchLabels",))
    selector.refuse_others()
    labels_node = selector.node_of("matchLabels", required=True, hint="remove selector to select the whole namespace")
    if labels_node is None:
        return NOTHING
    path = "spec.selector.matchLabels"
    if isinstance(labels_node, documents.Mapping) and not labels_node.entries:
        problems.add(labels_node, path, "is empty", "remove selector to select the whole namespace")
    return string_map(labels_node, path, problems, values.label_key, values.label_value)


def _rules(node: Node, problems: Problems) -> tuple[Rule, ...]:
    if isinstance(node, Scalar) and node.guess == "null":
        # Istio reads this as "no rules", a person as "nothing yet": the two differ for an ALLOW policy.
        problems.add(node, "spec.rules", "is empty", "write `rules: []` for none, `rules: [{}]` for everything")
        return ()
    return tuple(_rule(item, path, problems) for path, item in list_items(node, "spec.rules", problems))


def _rule(node: Node, path: str, problems: Problems) -> Rule:
    rule = Fields(node, path, problems, known=("from", "to"))
    rule.refuse_others(_RULE_NOT_YET)
    return Rule(
        sources=tuple(_source(inner) for inner in _inner(rule, "from", "source", _SOURCE)),
        operations=tuple(_operation(inner) for inner in _inner(rule, "to", "operation", _OPERATION)),
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
        inner.refuse_others(_SOURCE_NOT_YET if name == "source" else NOTHING)
        if isinstance(node, documents.Mapping) and not node.entries:
            hint = f"name a condition, or remove `{outer_name}` to mean everything"
            rule.problems.add(node, inner.path, "is empty", hint)
        found.append(inner)
    return found


def _source(fields: Fields) -> Source:
    return Source(
        principals=fields.strings("principals", values.principal),
        not_principals=fields.strings("notPrincipals", values.principal),
        namespaces=fields.strings("namespaces", values.namespace_pattern),
        not_namespaces=fields.strings("notNamespaces", values.namespace_pattern),
    )


def _operation(fields: Fields) -> Operation:
    return Operation(
        hosts=fields.strings("hosts", values.host),
        not_hosts=fields.strings("notHosts", values.host),
        ports=fields.strings("ports", values.port, numbers=True),
        not_ports=fields.strings("notPorts", values.port, numbers=True),
        methods=fields.strings("methods", values.method),
        not_methods=fields.strings("notMethods", values.method),
        paths=fields.strings("paths", values.path),
        not_paths=fields.strings("notPaths", values.path),
    )
