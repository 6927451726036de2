"""The policy language read literally: slow, obvious, and sharing no line with the code it judges.

Written from Istio's reference (https://istio.io/latest/docs/reference/config/security/authorization-policy/ and
.../conditions/), and where this mesh is stricter than Istio, from security.md:

    C06   a path with ;parameters is also read without them: by DENY and AUDIT, and by what an ALLOW excepts
    C22   a header sent twice: DENY and AUDIT match by any value, ALLOW only by all
    C23   opaque TCP has no HTTP: ALLOW that asks for it never matches, DENY and AUDIT go by what remains
    C24   what is missing (an identity, an address, a claim) satisfies nothing in ALLOW, negative tests neither

Of `sidecar.rules` only the shapes of values are used, which decide nothing. Names of attributes and of missing things
are spelt out here again on purpose.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from sidecar.rules.facts import Facts, Token
from sidecar.rules.snapshot import Action, AuthorizationPolicy, Operation, Rule, Source, When


@dataclass(frozen=True, slots=True)
class Verdict:
    allowed: bool
    rule: str
    """"namespace/name#index", or "default"."""
    audits: tuple[str, ...] = ()
    """AUDIT rules that match."""
    shadow: tuple[bool, str] | None = None
    """(allowed, rule) if the policies in shadow were enforced; None: no other outcome."""


def judge(
    policies: Sequence[AuthorizationPolicy],
    facts: Facts,
    *,
    default: Action = Action.DENY,
    trusted_proxies: int = 0,
) -> Verdict:
    """All `policies` select the workload."""
    enforced = [policy for policy in policies if not policy.shadow]
    allowed, rule = decide(enforced, facts, default, trusted_proxies)
    tried = decide(policies, facts, default, trusted_proxies)
    audits = tuple(matching_rules(enforced, Action.AUDIT, facts, trusted_proxies))
    return Verdict(allowed, rule, audits, tried if tried[0] != allowed else None)


def decide(
    policies: Sequence[AuthorizationPolicy], facts: Facts, default: Action, trusted_proxies: int
) -> tuple[bool, str]:
    """ "1. If there are any DENY policies that match the request, deny the request. 2. If there are no ALLOW policies
    for the workload, [the mesh's default]. 3. If any of the ALLOW policies match the request, allow the request.
    4. Deny the request." """
    for name in matching_rules(policies, Action.DENY, facts, trusted_proxies):
        return False, name
    if not any(policy.action is Action.ALLOW for policy in policies):
        return default is Action.ALLOW, "default"
    for name in matching_rules(policies, Action.ALLOW, facts, trusted_proxies):
        return True, name
    return False, "default"


def matching_rules(
    policies: Sequence[AuthorizationPolicy], action: Action, facts: Facts, trusted_proxies: int
) -> Iterator[str]:
    """Their names, sorted by namespace, name and index. For DENY those that match the path as it is come first."""
    found: list[tuple[int, str, str, int]] = []
    readings = [path_of(facts)]
    if action is not Action.ALLOW and ";" in readings[0]:
        readings.append(without_parameters(readings[0]))
    for policy in policies:
        for index, rule in enumerate(policy.rules):
            for reading, path in enumerate(readings):
                asked = Asked(facts, path, action is Action.ALLOW, trusted_proxies)
                if policy.action is action and rule_matches(rule, asked):
                    order = reading if action is Action.DENY else 0
                    found.append((order, policy.namespace, policy.name, index))
                    break
    for _, namespace, name, index in sorted(found):
        yield f"{namespace}/{name}#{index}"


@dataclass(frozen=True, slots=True)
class Asked:
    """One request, in one reading of its path, held against rules of one action."""

    facts: Facts
    path: str
    allow: bool
    trusted_proxies: int

    @property
    def is_tcp(self) -> bool:
        return self.facts.method == ""


def rule_matches(rule: Rule, asked: Asked) -> bool:
    """ "A match occurs when at least one source, one operation and all conditions matches the request. An empty rule is
    always matched." """
    by_source = rule.sources == () or any(source_matches(source, asked) for source in rule.sources)
    by_operation = rule.operations == () or any(operation_matches(one, asked) for one in rule.operations)
    return by_source and by_operation and all(when_matches(when, asked) for when in rule.when)


# from.source: "Fields in the source are ANDed together"


def source_matches(source: Source, asked: Asked) -> bool:
    return (
        principals(source, asked)
        and namespaces(source, asked)
        and request_principals(source, asked)
        and ip_blocks(source, asked)
        and remote_ip_blocks(source, asked)
    )


def principals(source: Source, asked: Asked) -> bool:
    return one_value(source.principals, source.not_principals, principal_of(asked.facts), text_matches, asked)


def namespaces(source: Source, asked: Asked) -> bool:
    return one_value(source.namespaces, source.not_namespaces, namespace_of(asked.facts), text_matches, asked)


def request_principals(source: Source, asked: Asked) -> bool:
    if asked.is_tcp and (source.request_principals or source.not_request_principals):
        return not asked.allow
    user = user_of(asked.facts.token)
    return one_value(source.request_principals, source.not_request_principals, user, text_matches, asked)


def ip_blocks(source: Source, asked: Asked) -> bool:
    return one_value(source.ip_blocks, source.not_ip_blocks, asked.facts.source_ip, address_in, asked)


def remote_ip_blocks(source: Source, asked: Asked) -> bool:
    if asked.is_tcp and asked.trusted_proxies and (source.remote_ip_blocks or source.not_remote_ip_blocks):
        return not asked.allow  # it would be in a header
    remote = remote_ip_of(asked)
    return one_value(source.remote_ip_blocks, source.not_remote_ip_blocks, remote, address_in, asked)


# to.operation: "Fields in the operation are ANDed together"


def operation_matches(operation: Operation, asked: Asked) -> bool:
    return ports(operation, asked) and hosts(operation, asked) and methods(operation, asked) and paths(operation, asked)


def ports(operation: Operation, asked: Asked) -> bool:
    return one_value(operation.ports, operation.not_ports, str(asked.facts.port), text_matches, asked)


def hosts(operation: Operation, asked: Asked) -> bool:
    """ "The match is case-insensitive"."""
    if asked.is_tcp and (operation.hosts or operation.not_hosts):
        return not asked.allow
    wanted, unwanted = [text.lower() for text in operation.hosts], [text.lower() for text in operation.not_hosts]
    return one_value(wanted, unwanted, host_of(asked.facts), text_matches, asked)


def methods(operation: Operation, asked: Asked) -> bool:
    if asked.is_tcp and (operation.methods or operation.not_methods):
        return not asked.allow
    return one_value(operation.methods, operation.not_methods, asked.facts.method, text_matches, asked)


def paths(operation: Operation, asked: Asked) -> bool:
    if asked.is_tcp and (operation.paths or operation.not_paths):
        return not asked.allow
    wanted = [one_spelling(text) for text in operation.paths]
    unwanted = [one_spelling(text) for text in operation.not_paths]
    holds = one_value(wanted, unwanted, asked.path, path_matches, asked)
    if asked.allow and ";" in asked.path:  # what an ALLOW excepts is excepted in either reading (C06)
        holds = holds and one_value((), unwanted, without_parameters(asked.path), path_matches, asked)
    return holds


# when: "Condition specifies additional required attributes"


def when_matches(when: When, asked: Asked) -> bool:
    facts, token = asked.facts, asked.facts.token
    if asked.is_tcp and when.key.startswith("request."):
        return not asked.allow
    if asked.is_tcp and when.key == "remote.ip" and asked.trusted_proxies:
        return not asked.allow
    match when.key:
        case "source.principal":
            return one_value(when.values, when.not_values, principal_of(facts), text_matches, asked)
        case "source.namespace":
            return one_value(when.values, when.not_values, namespace_of(facts), text_matches, asked)
        case "source.serviceAccount":
            return one_value(when.values, when.not_values, service_account_of(facts), text_matches, asked)
        case "source.ip":
            return one_value(when.values, when.not_values, facts.source_ip, address_in, asked)
        case "remote.ip":
            return one_value(when.values, when.not_values, remote_ip_of(asked), address_in, asked)
        case "destination.ip":
            return one_value(when.values, when.not_values, facts.destination_ip, address_in, asked)
        case "destination.port":
            return one_value(when.values, when.not_values, str(facts.port), text_matches, asked)
        case "connection.sni":
            return one_value(when.values, when.not_values, facts.sni, text_matches, asked)
        case "request.auth.principal":
            return one_value(when.values, when.not_values, user_of(token), text_matches, asked)
        case "request.auth.presenter":
            return one_value(when.values, when.not_values, token.presenter if token else "", text_matches, asked)
        case "request.auth.audiences":
            return list_in_a_token(when, token.audiences if token else (), asked)
    names = re.findall(r"\[([^\[\]]*)\]", when.key)
    if when.key.startswith("request.headers["):
        wanted = spelled(names[0].lower())
        return headers(when, [value for name, value in facts.headers if spelled(name) == wanted], asked)
    assert when.key.startswith("request.auth.claims["), when.key
    return list_in_a_token(when, claim_of(token, names), asked)


def spelled(name: str) -> str:
    """Apps take `x_role` for `x-role`, some of them every mark that a name may have."""
    return "".join("-" if mark in "!#$%&'*+.^_`|~" else mark for mark in name)


def headers(when: When, sent: Sequence[str], asked: Asked) -> bool:
    """Each value is held against the policy by itself (C22)."""
    every_or_any = all if asked.allow else any
    if when.values and (sent == [] or not every_or_any(any_matches(when.values, one) for one in sent)):
        return False
    if when.not_values and sent != []:
        return every_or_any(not any_matches(when.not_values, one) for one in sent)
    return True


def list_in_a_token(when: When, members: Sequence[str], asked: Asked) -> bool:
    """ "supports both string typed and list-of-string typed JWT claims": one member that matches is enough."""
    if when.values and not any(any_matches(when.values, member) for member in members):
        return False
    if when.not_values:
        if not members:
            return not asked.allow
        return not any(any_matches(when.not_values, member) for member in members)
    return True


# How one value is held against the values of a policy


def one_value(
    values: Sequence[str],
    not_values: Sequence[str],
    value: str,
    matches: Callable[[str, str], bool],
    asked: Asked,
) -> bool:
    """ "" is a value that is missing."""
    if values and not any(matches(pattern, value) for pattern in values):
        return False
    if not_values:
        if value == "":
            return not asked.allow
        return not any(matches(pattern, value) for pattern in not_values)
    return True


def any_matches(patterns: Sequence[str], value: str) -> bool:
    return any(text_matches(pattern, value) for pattern in patterns)


def text_matches(pattern: str, value: str) -> bool:
    """ "Exact match: `abc` will match on value `abc`. Prefix match: `abc*` will match on value `abc` and `abcd`. Suffix
    match: `*abc` will match on value `abc` and `xabc`. Presence match: `*` will match when value is not empty." """
    if value == "":
        return False
    if pattern == "*":
        return True
    if pattern[-1] == "*":
        return value[: len(pattern) - 1] == pattern[:-1]
    if pattern[0] == "*":
        return value[max(0, len(value) - len(pattern) + 1) :] == pattern[1:]
    return pattern == value


def path_matches(pattern: str, path: str) -> bool:
    """ "`{*}` matches a single glob that cannot extend beyond a path segment. `{**}` matches zero or more globs.\""""
    if "{" not in pattern:
        return text_matches(pattern, path)
    pieces = re.split(r"(\{\*\*\}|\{\*\})", pattern)
    expressions = {"{*}": "[^/]+", "{**}": ".*"}
    return re.fullmatch("".join(expressions.get(piece, re.escape(piece)) for piece in pieces), path) is not None


def address_in(block: str, text: str) -> bool:
    """ "Single IP (e.g. `203.0.113.4`) and CIDR (e.g. `203.0.113.0/24`) are supported." """
    address = address_of(text)
    network = ipaddress.ip_network(block)
    return address is not None and address.version == network.version and address in network


# What a request has


def principal_of(facts: Facts) -> str:
    return str(facts.principal).removeprefix("spiffe://") if facts.principal else ""


def namespace_of(facts: Facts) -> str:
    found = re.fullmatch(r"[^/]+/ns/([^/]+)/sa/[^/]+", principal_of(facts))
    return found[1] if found else ""


def service_account_of(facts: Facts) -> str:
    """ "This takes the format `<namespace>/<serviceaccount>`"."""
    found = re.fullmatch(r"[^/]+/ns/([^/]+)/sa/([^/]+)", principal_of(facts))
    return f"{found[1]}/{found[2]}" if found else ""


def user_of(token: Token | None) -> str:
    """ "in the format of `<iss>/<sub>`"."""
    return f"{token.issuer}/{token.subject}" if token and token.issuer and token.subject else ""


def claim_of(token: Token | None, names: Sequence[str]) -> list[str]:
    """Text, or texts of a list. Claims like `scope` are lists with spaces between."""
    value: object = token.claims if token else {}
    for name in names:
        value = value.get(name) if hasattr(value, "get") else None
    if isinstance(value, str):
        in_spaces = token is not None and len(names) == 1 and names[0] in token.space_delimited
        return [one for one in value.split(" ") if one] if in_spaces else [value]
    return [one for one in value if isinstance(one, str)] if isinstance(value, tuple) else []


def remote_ip_of(asked: Asked) -> str:
    """The Nth entry from the right of x-forwarded-for, N being how many proxies are trusted."""
    facts, count = asked.facts, asked.trusted_proxies
    if facts.remote_ip is not None:
        return facts.remote_ip
    if count == 0:
        return facts.source_ip
    values = [value for name, value in facts.headers if name == "x-forwarded-for"]
    entries = [entry.strip() for entry in ",".join(values).split(",")]
    if len(entries) < count:
        return ""
    entry = entries[len(entries) - count]
    # Some proxies write the port as well.
    with_port = re.fullmatch(r"\[([^\[\]]*)\](?::[0-9]+)?", entry) or re.fullmatch(r"([^:]*):[0-9]+", entry)
    address = address_of(with_port[1] if with_port else entry)
    return "" if address is None else str(address)


def address_of(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """A v4-mapped address is the IPv4 address (C29); a scope says nothing to others."""
    try:
        address = ipaddress.ip_address(text.split("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def host_of(facts: Facts) -> str:
    """Lower case, without port and without a dot at the end (C15-C17)."""
    found = re.fullmatch(r"(\[[^\]]*\]|[^:]*)(?::[0-9]*)?", facts.host.lower())
    return (found[1] if found else facts.host.lower()).removesuffix(".")


def path_of(facts: Facts) -> str:
    """Without a query (C10). What a policy cannot write, a `*`, has the spelling it has there."""
    path = re.split(r"[?#]", facts.path)[0]
    return one_spelling(path).replace("*", "%2A")


def one_spelling(path: str) -> str:
    """No character encoded that may stand in a path as it is (RFC 3986 section 3.3)."""
    for character in "!$&'()+,;=:@":
        path = path.replace(f"%{ord(character):02X}", character)
    return path


def without_parameters(path: str) -> str:
    bare = "/".join(segment.split(";")[0] for segment in path.split("/"))
    while "//" in bare:
        bare = bare.replace("//", "/")
    return bare
