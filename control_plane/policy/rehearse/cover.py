"""Does one rule match whatever another matches? A yes is certain; a no may only mean that it was not seen.

A rule is a union of alternatives (one source and one operation each, with all of `when`), an alternative a conjunction
of conditions. A rule covers another if each alternative of the other lies within one of its own, which is so if every
condition of the wider one follows from some condition of the narrower one. What follows from what, field by field:

    values from values           each wanted pattern is within one of the wider list (`*` is the widest)
    notValues from notValues     each pattern excluded by the wider is within one excluded by the narrower
    notValues from values        exact values only, none of them excluded; not for lists in a token, which may hold more
    any principal at all from    a namespace or service account: who has one has a principal
    a namespace from principals  exact ones say their namespace and service account

Conditions were compiled for their rule's action (an ALLOW treats what is missing otherwise than a DENY, see
`sidecar.rules.conditions`). All of the above holds between two ALLOWs, between two DENYs, and for an ALLOW within a
DENY; nothing is said of a DENY within an ALLOW. On opaque TCP conditions on HTTP fall away together, since a condition
only ever follows from one of the same kind.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from certs.errors import CertsError
from certs.spiffe_id import SCHEME, SpiffeId
from control_plane.policy.rehearse.possible import View
from sidecar.rules.conditions import (
    DESTINATION_IP,
    NAMESPACE,
    PATH,
    PRINCIPAL,
    REMOTE_IP,
    SERVICE_ACCOUNT,
    SOURCE_IP,
    Condition,
    Conditions,
    Scope,
)
from sidecar.rules.keys import Attribute, Key
from sidecar.rules.match import (
    PRESENCE,
    Shape,
    compile_template,
    is_template,
    one_spelling,
    shape_of,
    template_prefix,
)
from sidecar.rules.snapshot import Action

ALTERNATIVES_MAX = 64
"""Of one rule; beyond, nothing is said of it."""
_ADDRESSES = (SOURCE_IP, DESTINATION_IP, REMOTE_IP)
_LISTS = (Attribute.AUDIENCES, Attribute.CLAIM)


def covers(wide: View, narrow: View) -> bool:
    """Whether `wide` matches every request that `narrow` matches. Both of the same workload."""
    if narrow.action is not wide.action and (narrow.action, wide.action) != (Action.ALLOW, Action.DENY):
        return False
    of_wide, of_narrow = alternatives(wide), alternatives(narrow)
    if not of_wide or not of_narrow:
        return False
    return all(any(within(one, other) for other in of_wide) for one in of_narrow)


def alternatives(view: View) -> list[Conditions]:
    """Each a conjunction. None if there are too many."""
    sources, operations = view.sources or ((),), view.operations or ((),)
    if len(sources) * len(operations) > ALTERNATIVES_MAX:
        return []
    return [source + operation + view.when for source in sources for operation in operations]


def within(narrow: Conditions, wide: Conditions) -> bool:
    """Whether all that `wide` asks for follows from `narrow`."""
    return all(any(follows(condition, given) for given in narrow) for condition in wide)


def follows(wide: Condition, narrow: Condition) -> bool:
    """Whether whatever fulfils `narrow` fulfils `wide`."""
    if _is_same_attribute(wide, narrow):
        if wide.positive and narrow.positive:
            return all(any(_is_within(one, other, wide) for other in wide.wanted) for one in narrow.wanted)
        if not wide.positive and not narrow.positive:
            return all(any(_is_within(one, other, wide) for other in narrow.wanted) for one in wide.wanted)
        if not wide.positive:
            return _excludes_none(wide, narrow)
        return False
    if wide.scope is Scope.PEER and narrow.scope is Scope.PEER and narrow.positive:
        return _follows_from_identity(wide, narrow)
    return False


def _is_same_attribute(one: Condition, other: Condition) -> bool:
    return one.scope is other.scope and one.attribute == other.attribute


def _excludes_none(wide: Condition, narrow: Condition) -> bool:
    """`notValues` hold for each of a list of exact values."""
    attribute = wide.attribute
    if isinstance(attribute, Key) and attribute.attribute in _LISTS:
        return False
    if _is_address(wide):
        return all(not _overlap(one, other) for one in narrow.wanted for other in wide.wanted)
    if not all(_is_exact(one, narrow) for one in narrow.wanted):
        return False
    if isinstance(attribute, Key) and attribute.attribute is Attribute.HEADER:
        return all(wide.test((one,)) for one in narrow.wanted)
    return all(wide.test(one) for one in narrow.wanted)


def _follows_from_identity(wide: Condition, narrow: Condition) -> bool:
    if wide.attribute == PRINCIPAL:
        return wide.positive and PRESENCE in wide.wanted and narrow.attribute in (NAMESPACE, SERVICE_ACCOUNT)
    if narrow.attribute != PRINCIPAL or wide.attribute not in (NAMESPACE, SERVICE_ACCOUNT):
        return False
    identities = [_identity(one) for one in narrow.wanted]
    return all(one is not None and wide.test(_part(one, wide.attribute)) for one in identities)


def _identity(principal: str) -> SpiffeId | None:
    """Of an exact principal."""
    if "*" in principal:
        return None
    try:
        return SpiffeId.parse(SCHEME + principal)
    except CertsError:
        return None


def _part(identity: SpiffeId, attribute: object) -> str:
    """As the evaluator makes it of the caller's identity."""
    namespace, account = identity.namespace or "", identity.service_account or ""
    if attribute == NAMESPACE:
        return namespace
    return f"{namespace}/{account}" if account else ""


# Patterns


def _is_address(condition: Condition) -> bool:
    attribute = condition.attribute
    if isinstance(attribute, Key):
        return attribute.attribute is Attribute.REMOTE_IP
    return condition.scope is Scope.PEER and attribute in _ADDRESSES


def _is_path(condition: Condition) -> bool:
    return condition.scope is Scope.OPERATION and condition.attribute == PATH


def _is_exact(pattern: str, condition: Condition) -> bool:
    if _is_path(condition) and is_template(pattern):
        return False
    return shape_of(pattern)[0] is Shape.EXACT


def _is_within(narrow: str, wide: str, condition: Condition) -> bool:
    """Whether each value that matches `narrow` matches `wide`; both patterns of the condition's attribute."""
    if _is_address(condition):
        one, other = ipaddress.ip_network(narrow), ipaddress.ip_network(wide)
        return one.version == other.version and one.subnet_of(other)  # type: ignore[arg-type]  # of one version
    if _is_path(condition):
        narrow, wide = one_spelling(narrow), one_spelling(wide)
        if is_template(narrow) or is_template(wide):
            return _is_path_within(narrow, wide)
    return is_text_within(narrow, wide)


def is_text_within(narrow: str, wide: str) -> bool:
    """Of the four shapes."""
    (shape, text), (wide_shape, wide_text) = shape_of(narrow), shape_of(wide)
    match wide_shape:
        case Shape.PRESENCE:
            return True  # none of them matches nothing
        case Shape.EXACT:
            return shape is Shape.EXACT and text == wide_text
        case Shape.PREFIX:
            return shape in (Shape.EXACT, Shape.PREFIX) and text.startswith(wide_text)
        case Shape.SUFFIX:
            return shape in (Shape.EXACT, Shape.SUFFIX) and text.endswith(wide_text)


def _is_path_within(narrow: str, wide: str) -> bool:
    """Where at least one is a template."""
    if narrow == wide:
        return True
    if not is_template(wide):
        shape, text = shape_of(wide)
        return shape is Shape.PRESENCE or (shape is Shape.PREFIX and template_prefix(narrow).startswith(text))
    if is_template(narrow):
        return False
    return shape_of(narrow)[0] is Shape.EXACT and compile_template(wide)(narrow)


def _overlap(one: str, other: str) -> bool:
    first, second = ipaddress.ip_network(one), ipaddress.ip_network(other)
    return first.version == second.version and first.overlaps(second)


def excluded(conditions: Iterable[Condition]) -> tuple[Condition, Condition] | None:
    """Two conditions of one alternative that cannot hold together: all that one wants the other excludes, or they want
    different things of one value."""
    listed = list(conditions)
    for one in listed:
        for other in listed:
            if one is not other and one.positive and _never_together(one, other):
                return one, other
    return None


def _never_together(one: Condition, other: Condition) -> bool:
    attribute = one.attribute
    if isinstance(attribute, Key) and attribute.attribute in (Attribute.HEADER, *_LISTS):
        return False  # several values may satisfy both
    if _is_same_attribute(one, other):
        if not other.positive:
            return all(any(_is_within(value, no, one) for no in other.wanted) for value in one.wanted)
        if _is_address(one):
            return not any(_overlap(value, wanted) for value in one.wanted for wanted in other.wanted)
        return all(_is_exact(value, one) and not other.test(_spelled(value, one)) for value in one.wanted)
    if one.scope is Scope.PEER and other.scope is Scope.PEER and attribute == PRINCIPAL and other.positive:
        if other.attribute not in (NAMESPACE, SERVICE_ACCOUNT):
            return False
        identities = [_identity(value) for value in one.wanted]
        return all(found is not None and not other.test(_part(found, other.attribute)) for found in identities)
    return False


def _spelled(value: str, condition: Condition) -> str:
    return one_spelling(value) if _is_path(condition) else value
