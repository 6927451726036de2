"""What the values of a PolicyTest may look like; each check returns the value or raises `BadValue`."""

from __future__ import annotations

import re
from collections.abc import Callable

from control_plane.policy import documents, values
from control_plane.policy.documents import Node, describe
from control_plane.policy.reader import Problems, did_you_mean
from sidecar.rules.addresses import canonical_address
from sidecar.rules.facts import Json
from sidecar.rules.snapshot import Action

_REQUEST = re.compile(r"([A-Z][A-Z0-9._-]*) (\S+)")
_RULE = re.compile(
    r"(?:[a-z0-9.-]+/[a-z0-9.-]+(?:#[0-9]{1,5})?|default|peer-authentication|request-authentication|path)"
)
_JSON_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]{0,15})(?:\.[0-9]{1,16})?")
"""RFC 8259 section 6, of a length that every reader takes."""
_VERDICTS = {"allow": True, "deny": False}


def json(node: Node, path: str, problems: Problems) -> Json:
    """What the claims of a token are: numbers and booleans as YAML has them, lists as tuples."""
    if isinstance(node, documents.Mapping):
        return {name: json(value, f"{path}.{name}", problems) for name, (_, value) in node.entries.items()}
    if isinstance(node, documents.Sequence):
        return tuple(json(item, f"{path}[{number}]", problems) for number, item in enumerate(node.items))
    text, guess = node.text, node.guess
    if guess in ("int", "float"):
        if _JSON_NUMBER.fullmatch(text):
            return int(text) if guess == "int" else float(text)
        problems.add(node, path, f"YAML reads {values.shown(text)} as a number that JSON has not", f'write "{text}"')
        return None
    if guess == "bool" and text in ("true", "false"):
        return text == "true"
    if guess == "null":
        return None
    if guess:
        problems.add(node, path, f"YAML reads {values.shown(text)} as {describe(node)}", f'write "{text}"')
    return text


def request(text: str) -> tuple[str, str]:
    matched = _REQUEST.fullmatch(text)
    if not matched or not matched[2].startswith(("/", "*")):
        raise values.BadValue(f"{values.shown(text)} is not a request", "write METHOD /PATH: GET /orders/7")
    return matched[1], matched[2]


def header_value(text: str) -> str:
    if not (text.isascii() and text.isprintable()):
        raise values.BadValue(f"{values.shown(text)} is not printable ASCII")
    return text


def address(text: str) -> str:
    found = canonical_address(text)
    if not found:
        raise values.BadValue(f"{values.shown(text)} is not an address", "write 10.1.2.3 or 2001:db8::1")
    return found


def rule(text: str) -> str:
    if not _RULE.fullmatch(text):
        hint = "write NAMESPACE/POLICY, NAMESPACE/POLICY#INDEX, or default"
        raise values.BadValue(f"{values.shown(text)} is not the name of a rule", hint)
    return text


def verdict(text: str) -> bool:
    if text.lower() not in _VERDICTS:
        raise values.BadValue(f"{values.shown(text)} is not a verdict", "write allow or deny")
    return _VERDICTS[text.lower()]


def action(text: str) -> Action:
    return Action[one_of("ALLOW", "DENY", what="action")(text)]


def one_of(*known: str, what: str) -> Callable[[str], str]:
    def check(text: str) -> str:
        if text not in known:
            hint = did_you_mean(text, known) or f"write {' or '.join(known)}"
            raise values.BadValue(f"{values.shown(text)} is not a known {what}", hint)
        return text

    return check
