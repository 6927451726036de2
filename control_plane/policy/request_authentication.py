"""RequestAuthentication, `security.istio.io/v1`: whose tokens are taken, read from a document.

Fields and meaning are Istio's (https://istio.io/latest/docs/reference/config/security/request_authentication/).
Stricter than theirs, because whoever can change the keys on their way can make tokens: keys are fetched over https only
(http of a loopback host aside), and inline ones must be public keys, all of them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping

from control_plane.policy import documents, own_annotations, values
from control_plane.policy.documents import Node
from control_plane.policy.model import RequestAuthenticationSpec
from control_plane.policy.reader import Fields, Problems, list_items
from control_plane.policy.selection import SELECTOR_FIELDS, TARGET_FIELDS, read_selection
from control_plane.policy.values import BadValue, shown
from sidecar.rules.decode_policies import JWKS_CHARS_MAX, JWT_RULES_MAX
from sidecar.rules.facts import Json
from sidecar.rules.header_names import HEADER_NAME, may_be_set, may_carry_token
from sidecar.rules.jwt_json import Refused, read_object
from sidecar.rules.jwt_keys import KeySetRefused, read_key_set
from sidecar.rules.jwt_urls import discovery_url, parse_url
from sidecar.rules.keys import CLAIM_DEPTH_MAX, CLAIM_NAME
from sidecar.rules.snapshot import JwtRule, RequestAuthentication

FIELDS = (*SELECTOR_FIELDS, *TARGET_FIELDS, "jwtRules")
JWT_FIELDS = (
    "issuer", "audiences", "jwks", "jwksUri", "jwks_uri", "fromHeaders", "fromParams", "fromCookies",
    "outputPayloadToHeader", "outputClaimToHeaders", "forwardOriginalToken", "timeout", "spaceDelimitedClaims",
)  # fmt: skip

_SECRET = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})
_NO_PARAM = frozenset("&=#+%;")


def read_spec(node: Node, *, namespace: str, name: str, source: str, ours: Fields) -> RequestAuthenticationSpec:
    """The spec, as far as it could be read; what could not is in the problems. `ours`: its annotations."""
    spec = Fields(node, "spec", ours.problems, known=FIELDS)
    spec.refuse_others()
    token_types = ours.value(own_annotations.TOKEN_TYPES, _token_types) or ()
    rules_node = spec.node_of("jwtRules")
    authentication = RequestAuthentication(
        namespace=namespace,
        name=name,
        jwt_rules=() if rules_node is None else _rules(rules_node, token_types, ours.problems),
        source=source,
    )
    return RequestAuthenticationSpec(authentication=authentication, selection=read_selection(spec))


def _rules(node: Node, token_types: tuple[str, ...], problems: Problems) -> tuple[JwtRule, ...]:
    items = list_items(node, "spec.jwtRules", problems)
    if len(items) > JWT_RULES_MAX:
        problems.add(node, "spec.jwtRules", f"{len(items)} rules are more than {JWT_RULES_MAX}")
    found = (_rule(item, path, token_types, problems) for path, item in items[:JWT_RULES_MAX])
    return tuple(rule for rule in found if rule is not None)


def _rule(node: Node, path: str, token_types: tuple[str, ...], problems: Problems) -> JwtRule | None:
    rule = Fields(node, path, problems, known=JWT_FIELDS)
    rule.refuse_others()
    issuer = rule.value("issuer", values.exact, required=True)
    uri = rule.value("jwksUri", _uri) or rule.value("jwks_uri", _uri) or ""
    jwks = _inline_keys(rule)
    discover = _where_keys_are(rule, issuer)
    return JwtRule(
        issuer=issuer or "",
        audiences=rule.strings("audiences", values.exact),
        jwks=jwks,
        jwks_uri=uri,
        discover=discover,
        from_headers=tuple(_pairs(rule, "fromHeaders", ("name", _header_read), ("prefix", _prefix))),
        from_params=rule.strings("fromParams", _param),
        from_cookies=rule.strings("fromCookies", _cookie),
        output_payload_to_header=rule.value("outputPayloadToHeader", _header_set) or "",
        output_claim_to_headers=_claims_to_headers(rule),
        forward_original_token=rule.boolean("forwardOriginalToken"),
        timeout_s=rule.value("timeout", values.timeout_s) or 0.0,
        token_types=token_types,
        space_delimited_claims=rule.strings("spaceDelimitedClaims", _claim_name),
    )


def _inline_keys(rule: Fields) -> str:
    node = rule.entries["jwks"][1] if "jwks" in rule.entries else None
    if isinstance(node, documents.Mapping):
        rule.problems.add(node, rule.path_of("jwks"), "expected text, found a mapping", "write it as JSON in quotes")
        return ""
    return rule.value("jwks", _jwks) or ""


def _where_keys_are(rule: Fields, issuer: str | None) -> bool:
    """Whether by discovery, which is where no field says so."""
    given = [name for name in ("jwksUri", "jwks_uri", "jwks") if name in rule.entries]
    for name in given[1:]:
        key, _ = rule.entries[name]
        rule.problems.add(key, rule.path_of(name), f"stands beside {given[0]}", "keep one of the two")
    if given:
        return False
    if issuer is not None:
        try:
            discovery_url(issuer)
        except ValueError as error:
            what = f"says where the keys are found, but {error}"
            hint = "name the keys' URL in jwksUri, or write them into jwks"
            rule.problems.add(rule.entries["issuer"][1], rule.path_of("issuer"), what, hint)
    return True


def _claims_to_headers(rule: Fields) -> tuple[tuple[str, str], ...]:
    found = tuple(_pairs(rule, "outputClaimToHeaders", ("header", _header_set), ("claim", _claim_path)))
    set_by = [header for header, _ in found] + [rule.value("outputPayloadToHeader", _header_set) or ""]
    for header in sorted({one for one in set_by if one and set_by.count(one) > 1}):
        what = f"the header {header} is set twice"
        rule.problems.add(rule.entries["outputClaimToHeaders"][1], rule.path_of("outputClaimToHeaders"), what)
    return found


def _pairs(
    rule: Fields, name: str, first: tuple[str, Callable[[str], str]], second: tuple[str, Callable[[str], str]]
) -> list[tuple[str, str]]:
    """A list of mappings of two texts each. Only a header's prefix may be left out."""
    found: list[tuple[str, str]] = []
    for path, node in rule.items(name):
        pair = Fields(node, path, rule.problems, known=(first[0], second[0]))
        pair.refuse_others()
        one = pair.value(*first, required=True)
        other = pair.value(*second, required=second[0] != "prefix")
        if one is not None:
            found.append((one, other or ""))
    return found


# What values may look like


def _uri(text: str) -> str:
    values.exact(text)
    try:
        parse_url(text)
    except ValueError as error:
        raise BadValue(f"{shown(text)} {error}", "write https://HOST/PATH") from None
    return text


def _jwks(text: str) -> str:
    """A JSON Web Key Set (RFC 7517) -> the same on one line. Every key of it must be one that verifies signatures."""
    if len(text) > JWKS_CHARS_MAX:
        raise BadValue(f"longer than {JWKS_CHARS_MAX} characters")
    try:
        members = read_object(text.encode("utf-8", "surrogatepass")).get("keys")
        if isinstance(members, tuple) and any(map(_is_secret, members)):
            raise BadValue("holds a private or symmetric key", "write public keys, and replace this one: it was told")
        found = read_key_set(text)
    except (KeySetRefused, Refused) as error:
        raise BadValue(str(error), "write a JSON Web Key Set of public keys, as the issuer publishes it") from None
    if found.skipped:
        hint = "write RSA keys from 2048 bits, EC P-256/384/521 and Ed25519 only"
        raise BadValue(f"{found.skipped} of its keys cannot verify signatures", hint)
    return json.dumps(json.loads(text), separators=(",", ":"))


def _is_secret(member: Json) -> bool:
    return isinstance(member, Mapping) and not _SECRET.isdisjoint(member)


def _header_read(text: str) -> str:
    name = values.header_name(text)
    if not may_carry_token(name):
        raise BadValue(f"{shown(text)} is not a header that reaches the sidecar", "read the token from another")
    return name


def _header_set(text: str) -> str:
    name = values.header_name(text)
    if not may_be_set(name):
        raise BadValue(
            f"{shown(text)} is not a header that claims may be put into", "use one of your own: x-jwt-claims"
        )
    if "_" in name:
        raise BadValue(f"{shown(text)}: many servers take _ for -", f"write {name.replace('_', '-')}")
    return name


def _prefix(text: str) -> str:
    """What stands before the token, a space at its end included."""
    if text and not (len(text) <= 128 and text.isascii() and text.isprintable()):
        raise BadValue(f"{shown(text)} is not printable ASCII of at most 128 characters")
    return text


def _param(text: str) -> str:
    values.exact(text)
    if _NO_PARAM & set(text) or " " in text or len(text) > 128:
        raise BadValue(f"{shown(text)} is not the name of a query parameter", "write access_token, for example")
    return text


def _cookie(text: str) -> str:
    if not HEADER_NAME.fullmatch(text):  # both are a token (RFC 6265 section 4.1.1)
        raise BadValue(f"{shown(text)} is not the name of a cookie")
    return text


def _claim_name(text: str) -> str:
    values.exact(text)
    if not CLAIM_NAME.fullmatch(text):
        raise BadValue(f"{shown(text)} is not the name of a claim")
    return text


def _claim_path(text: str) -> str:
    """ "a.b" is the claim b of a."""
    names = values.exact(text).split(".")
    if len(names) > CLAIM_DEPTH_MAX or not all(map(CLAIM_NAME.fullmatch, names)):
        raise BadValue(f"{shown(text)} is not the name of a claim", f"write realm.role, at most {CLAIM_DEPTH_MAX} deep")
    return text


def _token_types(text: str) -> tuple[str, ...]:
    return values.comma_separated(text, _token_type)


def _token_type(text: str) -> str:
    name = text.lower().removeprefix("application/")
    if not HEADER_NAME.fullmatch(name.replace("/", "-")):
        raise BadValue(f"{shown(text)} is not a media type", "write at+jwt, or JWT")
    return name
