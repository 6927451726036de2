"""Whom a resource is for: `selector`, or `targetRef` and `targetRefs`, never both. Shared by all kinds that select.

Istio's PolicyTargetReference (https://istio.io/latest/docs/reference/config/type/workload-selector/), of which a mesh
without gateways knows one kind: a Service of the resource's own namespace.
"""

from __future__ import annotations

from collections.abc import Mapping

from control_plane.policy import documents, values
from control_plane.policy.documents import Node
from control_plane.policy.model import NOTHING, Selection
from control_plane.policy.reader import Fields, Problems, string_map

SELECTOR_FIELDS = ("selector",)
TARGET_FIELDS = ("targetRef", "targetRefs")
TARGETS_MAX = 16
"""As the Gateway API has it."""

_GROUPS = ("", "core")
_SERVICE = "Service"
_KINDS_NOT_YET = ("Gateway", "GatewayClass", "ServiceEntry", "Waypoint")


def read_selection(spec: Fields) -> Selection:
    """Of a spec that has these fields, as far as it could be read."""
    given = [name for name in (*SELECTOR_FIELDS, *TARGET_FIELDS) if name in spec.entries]
    for name in given[1:]:
        key, _ = spec.entries[name]
        spec.problems.add(key, spec.path_of(name), f"stands beside {given[0]}", "keep one of the two")
    selector_node = spec.node_of("selector")
    labels = NOTHING if selector_node is None else _labels(selector_node, spec.path_of("selector"), spec.problems)
    return Selection(labels=labels, services=_services(spec))


def _labels(node: Node, path: str, problems: Problems) -> Mapping[str, str]:
    selector = Fields(node, path, problems, known=("matchLabels",))
    selector.refuse_others()
    labels_node = selector.node_of("matchLabels", required=True, hint="remove selector to select the whole namespace")
    if labels_node is None:
        return NOTHING
    path = selector.path_of("matchLabels")
    if isinstance(labels_node, documents.Mapping) and not labels_node.entries:
        problems.add(labels_node, path, "is empty", "remove selector to select the whole namespace")
    return string_map(labels_node, path, problems, values.label_key, values.label_value)


def _services(spec: Fields) -> tuple[str, ...]:
    found: list[str] = []
    if (one := spec.node_of("targetRef")) is not None:
        found += _service(one, spec.path_of("targetRef"), spec.problems)
    items = list(spec.items("targetRefs"))
    if len(items) > TARGETS_MAX:
        spec.problems.add(items[TARGETS_MAX][1], spec.path_of("targetRefs"), f"more than {TARGETS_MAX}")
    for path, item in items[:TARGETS_MAX]:
        found += _service(item, path, spec.problems)
    return tuple(dict.fromkeys(found))


def _service(node: Node, path: str, problems: Problems) -> list[str]:
    target = Fields(node, path, problems, known=("group", "kind", "name"))
    target.refuse_others({"namespace": "a target is in the resource's own namespace; remove it"})
    kind = target.value("kind", _kind, required=True)
    if kind == _SERVICE:  # of another kind, its group would only add to the noise
        target.value("group", _group)
    name = target.value("name", values.dns_label, required=True)
    return [] if name is None else [name]


def _kind(text: str) -> str:
    if text == _SERVICE:
        return text
    what = "gateways are not here yet" if text in _KINDS_NOT_YET else f"{values.shown(text)} is not a kind of target"
    raise values.BadValue(what, "use kind Service, or spec.selector.matchLabels")


def _group(text: str) -> str:
    if text not in _GROUPS:
        raise values.BadValue(f"{values.shown(text)} has no Service", 'write group: ""')
    return text
