"""`when` of a rule: one attribute and what it must or must not be.

Istio's page on them: https://istio.io/latest/docs/reference/config/security/conditions/. Which there are is said in
`sidecar.rules.keys`; what their values may look like, here.
"""

from __future__ import annotations

from collections.abc import Mapping

from control_plane.policy import values
from control_plane.policy.documents import Node
from control_plane.policy.reader import Fields, Problems, did_you_mean
from control_plane.policy.values import BadValue, Check, shown
from sidecar.rules.keys import Attribute, parse_key
from sidecar.rules.snapshot import When

FIELDS = ("key", "values", "notValues")

_CHECKS: Mapping[Attribute, Check] = {
    Attribute.HEADER: values.pattern,
    Attribute.REQUEST_PRINCIPAL: values.claim_pattern,
    Attribute.AUDIENCES: values.claim_pattern,
    Attribute.PRESENTER: values.claim_pattern,
    Attribute.CLAIM: values.claim_pattern,
    Attribute.SOURCE_IP: values.block,
    Attribute.REMOTE_IP: values.block,
    Attribute.NAMESPACE: values.namespace_pattern,
    Attribute.PRINCIPAL: values.principal,
    Attribute.DESTINATION_IP: values.block,
    Attribute.DESTINATION_PORT: values.port,
    Attribute.SNI: values.server_name,
}
"""Of every attribute but SERVICE_ACCOUNT, which needs the policy's namespace."""


def read_condition(node: Node, path: str, namespace: str, problems: Problems) -> When | None:
    """None, or something with holes in it, if there are problems."""
    fields = Fields(node, path, problems, known=FIELDS)
    fields.refuse_others()
    key = fields.value("key", _key, required=True)
    if not {"values", "notValues"} & fields.entries.keys():
        problems.add(node, path, "has neither values nor notValues", 'name values; ["*"] means that it is there')
    if key is None:
        return None
    attribute = parse_key(key).attribute
    check = values.service_account(namespace) if attribute is Attribute.SERVICE_ACCOUNT else _CHECKS[attribute]
    plain = "int" if attribute is Attribute.DESTINATION_PORT else ""
    return When(
        key=key,
        values=fields.strings("values", check, plain=plain),
        not_values=fields.strings("notValues", check, plain=plain),
    )


def _key(text: str) -> str:
    """In the one spelling there is: a header's name in lower case."""
    values.printable(text)
    try:
        return str(parse_key(text))
    except ValueError as error:
        known = [one.value for one in Attribute]
        hint = did_you_mean(text.partition("[")[0], known) or "known are " + ", ".join(known)
        raise BadValue(f"{shown(text)}: {error}", hint if "not an attribute" in str(error) else "") from None
