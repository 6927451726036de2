"""Policies and requests that meet. Values come from small pools which policies and requests share, and a rule asks for
few things, so that rules match about as often as they do not."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from random import Random
from typing import TypeVar

from hypothesis import strategies as st

from sidecar.rules.facts import Facts
from sidecar.rules.snapshot import Action, AuthorizationPolicy, Operation, Rule, Source, When
from tests.policy.tables import token
from tests.sidecar.rules.builders import workload

Texts = tuple[str, ...]
T = TypeVar("T")

CALLERS = ["web", "web", "load", "other/web", "lab/w.b", "-", "@ada"]
HOSTS = ["billing.shop", "billing.shop", "api.example.com", "Secret.com:443", "secret.com.", ""]
PORTS = [8080, 8080, 5432, 80]
METHODS = ["GET", "GET", "POST", "GETX"]
PATHS = [
    "/", "/a", "/a/", "/a/b", "/a/b/c", "/admin", "/admin;x", "/;/admin", "/a;x/b;y", "/admin%3Bx", "/a:b", "/a%3Ab",
    "/a.b", "/axb", "/A", "/a*b", "/a%2Ab", "/a?b", "/b/c", "*",
]  # fmt: skip
TEMPLATES = ["/{*}", "/a/{*}", "/a/{**}", "/{**}", "/{*}/b", "/a/{**}/c", "/{*}/{**}", "/a/{*}/c", "/{*}/", "/{**}/c"]
ADDRESSES = ["10.1.0.7", "10.1.0.7", "10.2.0.1", "203.0.113.9", "2001:db8::7", "::ffff:10.1.0.7", ""]
BLOCKS = ["10.1.0.0/16", "10.0.0.0/8", "10.1.0.7/32", "203.0.113.0/24", "2001:db8::/32", "0.0.0.0/0", "::/0"]
FORWARDED = [
    "203.0.113.9",
    "203.0.113.9, 10.2.0.1",
    "10.1.0.7,203.0.113.9",
    "nonsense",
    "",
    "[2001:db8::7]:1, 10.1.0.7:2",
]
NAMES = ["billing.shop", "x.billing.shop", ""]
ROLES = ["admin", "user", "admin,user", ""]
TOKENS = [
    None,
    None,
    token({"iss": "https://id", "sub": "ada", "aud": "shop", "azp": "app", "scope": "read write"}),
    token({"iss": "https://id", "sub": "eve", "aud": ["shop", "bank"], "groups": ["staff", 1, "ops"]}),
    token({"iss": "https://id", "aud": "bank", "groups": "staff ops", "realm": {"roles": ["staff"]}}),
    token({"iss": "https://other", "sub": "ada", "azp": "ap", "groups": [], "realm": {"roles": "ops"}}),
    token(
        {
            "iss": "https://id",
            "sub": "ada",
            "scope": "read",
            "realm": "staff",
            "groups": "x",
            "_spaceDelimitedClaims": ["groups"],
        }
    ),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """What is in force for one workload."""

    policies: tuple[AuthorizationPolicy, ...]
    default: Action
    proxies: int


def matches(values: Sequence[str], more: Sequence[str] = ()) -> st.SearchStrategy[Texts]:
    """One or two of Istio's matches: values as they are, cut to a prefix or to a suffix, `*`, or one of `more`."""
    whole = [value for value in dict.fromkeys(values) if value and "*" not in value]
    cut = [value[:n] + "*" for value in whole for n in (1, 2, 4, len(value) - 1) if n > 0]
    cut += ["*" + value[-n:] for value in whole for n in (1, 2, 4, len(value) - 1) if n > 0]
    a_whole, a_cut = st.sampled_from(whole), st.sampled_from(list(dict.fromkeys(cut)))
    pools = [a_whole, a_whole, a_cut, a_cut, a_cut, st.just("*")]
    if more:
        pools += [st.sampled_from(more)] * 3
    return st.lists(st.one_of(pools), min_size=1, max_size=2).map(tuple)


def some(values: Sequence[str]) -> st.SearchStrategy[Texts]:
    return st.lists(st.sampled_from(values), min_size=1, max_size=2).map(tuple)


def of_claims(*values: str) -> st.SearchStrategy[Texts]:
    return matches(values)


_SPELT = [path for path in PATHS if "*" not in path and "?" not in path and ";" not in path] + ["/a%2Ab", "/admin;x"]
_PRINCIPALS = matches([str(workload(name)).removeprefix("spiffe://") for name in dict.fromkeys(CALLERS) if name != "-"])
_USERS = matches(["https://id/ada", "https://id/eve", "https://other/ada"])

SOURCE_FIELDS: dict[str, st.SearchStrategy[Texts]] = {
    "principals": _PRINCIPALS,
    "namespaces": matches(["shop", "other", "lab"]),
    "request_principals": _USERS,
    "ip_blocks": some(BLOCKS),
    "remote_ip_blocks": some(BLOCKS),
}
OPERATION_FIELDS: dict[str, st.SearchStrategy[Texts]] = {
    "hosts": matches(["billing.shop", "Billing.Shop", "api.example.com", "secret.com"]),
    "ports": some([str(port) for port in PORTS]),
    "methods": matches(METHODS),
    "paths": matches(_SPELT, TEMPLATES),
}
WHEN_KEYS: dict[str, st.SearchStrategy[Texts]] = {
    "request.headers[x-role]": matches(ROLES),
    "request.headers[X-Other]": matches(ROLES),
    "request.headers[x-forwarded-for]": matches(FORWARDED),
    "request.auth.principal": _USERS,
    "request.auth.audiences": of_claims("shop", "bank"),
    "request.auth.presenter": of_claims("app", "ap"),
    "request.auth.claims[scope]": of_claims("read", "write", "read write"),
    "request.auth.claims[groups]": of_claims("staff", "ops"),
    "request.auth.claims[realm][roles]": of_claims("staff", "ops"),
    "source.ip": some(BLOCKS),
    "remote.ip": some(BLOCKS),
    "destination.ip": some(BLOCKS),
    "source.principal": _PRINCIPALS,
    "source.namespace": matches(["shop", "other"]),
    "source.serviceAccount": some(["shop/web", "shop/load", "other/web"]),
    "destination.port": some([str(port) for port in PORTS]),
    "connection.sni": matches(NAMES),
}

_SIGN = st.sampled_from(["", "", "not_"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Theme:
    """What the policies of one world ask about. With few things at a time, rules meet requests more often."""

    source: tuple[str, ...] = ()
    operation: tuple[str, ...] = ()
    when: tuple[str, ...] = ()


_HEADERS = tuple(key for key in WHEN_KEYS if key.startswith("request.headers"))
_USER = tuple(key for key in WHEN_KEYS if key.startswith("request.auth"))
_ADDRESSES = tuple(key for key in WHEN_KEYS if key.endswith(".ip"))
_PEER = tuple(key for key in WHEN_KEYS if key.startswith(("source.", "connection.", "destination.")))

THEMES = [
    Theme(source=tuple(SOURCE_FIELDS), operation=tuple(OPERATION_FIELDS), when=tuple(WHEN_KEYS)),
    Theme(operation=("paths",)),
    Theme(operation=("paths",)),
    Theme(operation=("methods", "ports"), when=_HEADERS),
    Theme(source=("request_principals",), when=_USER),
    Theme(source=("ip_blocks", "remote_ip_blocks"), when=_ADDRESSES),
    Theme(source=("principals", "namespaces"), operation=("ports", "hosts"), when=_PEER),
]


def _chosen(fields: Iterable[str]) -> list[tuple[str, ...]]:
    """Which fields are there: mostly one."""
    ones = [(name,) for name in fields]
    return [*ones, *ones, *ones, *itertools.combinations(fields, 2)]


@st.composite
def _fields(draw: st.DrawFn, names: tuple[str, ...], fields: dict[str, st.SearchStrategy[Texts]]) -> dict[str, Texts]:
    chosen = draw(st.sampled_from(_chosen(names)))
    return {draw(_SIGN) + name: draw(fields[name]) for name in chosen}


@st.composite
def _whens(draw: st.DrawFn, keys: tuple[str, ...]) -> When:
    key = draw(st.sampled_from(keys))
    which = draw(st.sampled_from(["values", "values", "not_values", "both"]))
    values = draw(WHEN_KEYS[key]) if which != "not_values" else ()
    return When(key=key, values=values, not_values=draw(WHEN_KEYS[key]) if which != "values" else ())


def _few(one: st.SearchStrategy[T] | None) -> st.SearchStrategy[tuple[T, ...]]:
    """None as often as one, and now and then two."""
    if one is None:
        return st.just(())
    return st.one_of(st.just(()), st.just(()), st.tuples(one), st.tuples(one), st.tuples(one, one))


def rules_of(theme: Theme) -> st.SearchStrategy[Rule]:
    sources = _fields(theme.source, SOURCE_FIELDS).map(lambda found: Source(**found)) if theme.source else None
    operations = _fields(theme.operation, OPERATION_FIELDS).map(lambda found: Operation(**found))
    return st.builds(
        Rule,
        sources=_few(sources),
        operations=_few(operations if theme.operation else None),
        when=_few(_whens(theme.when) if theme.when else None),
    )


def policies_of(theme: Theme) -> st.SearchStrategy[AuthorizationPolicy]:
    return st.builds(
        AuthorizationPolicy,
        namespace=st.sampled_from(["shop", "shop", "istio-system"]),
        name=st.sampled_from(["a", "b", "c", "d", "e"]),
        action=st.sampled_from([Action.ALLOW, Action.ALLOW, Action.ALLOW, Action.DENY, Action.DENY, Action.AUDIT]),
        rules=st.lists(rules_of(theme), max_size=3).map(tuple),
        shadow=st.sampled_from([False, False, False, False, True]),
    )


def worlds_of(theme: Theme) -> st.SearchStrategy[World]:
    return st.builds(
        World,
        policies=st.lists(policies_of(theme), min_size=1, max_size=4, unique_by=lambda policy: policy.full_name).map(
            tuple
        ),
        default=st.sampled_from([Action.ALLOW, Action.DENY]),
        proxies=st.sampled_from([0, 0, 1, 2]),
    )


rules = st.one_of([rules_of(theme) for theme in THEMES])
policies = st.one_of([policies_of(theme) for theme in THEMES])
worlds = st.one_of([worlds_of(theme) for theme in THEMES])

_HEADER_POOLS = {"x-role": ROLES, "x-other": ROLES, "x-forwarded-for": FORWARDED}
_SENT = [
    (),
    ("x-role",),
    ("x-role", "x-role"),
    ("x-role", "x-role"),
    ("x-role", "x-other"),
    ("x-forwarded-for",),
    ("x-forwarded-for",),
    ("x-forwarded-for", "x-forwarded-for"),
    ("x-role", "x-forwarded-for", "x-role"),
]


@st.composite
def _headers(draw: st.DrawFn) -> tuple[tuple[str, str], ...]:
    names = draw(st.sampled_from(_SENT))
    return tuple((name, draw(st.sampled_from(_HEADER_POOLS[name]))) for name in names)


http_requests = st.builds(
    Facts,
    principal=st.sampled_from(CALLERS).map(workload),
    host=st.sampled_from(HOSTS),
    port=st.sampled_from(PORTS),
    method=st.sampled_from(METHODS),
    path=st.sampled_from(PATHS),
    source_ip=st.sampled_from(ADDRESSES),
    destination_ip=st.sampled_from(ADDRESSES),
    sni=st.sampled_from(NAMES),
    headers=_headers(),
    token=st.sampled_from(TOKENS),
)
tcp_exchanges = st.builds(
    Facts,
    principal=st.sampled_from(CALLERS).map(workload),
    port=st.sampled_from(PORTS),
    source_ip=st.sampled_from(ADDRESSES),
    destination_ip=st.sampled_from(ADDRESSES),
    sni=st.sampled_from(NAMES),
)
requests = st.one_of(http_requests, http_requests, http_requests, http_requests, tcp_exchanges)


def _at_random(random: Random) -> Facts:
    """What `requests` draws, but at once: an example of Hypothesis is too dear to ask one thing only."""
    headers = tuple((name, random.choice(_HEADER_POOLS[name])) for name in random.choice(_SENT))
    is_http = random.random() < 0.85
    return Facts(
        principal=workload(random.choice(CALLERS)),
        host=random.choice(HOSTS) if is_http else "",
        port=random.choice(PORTS),
        method=random.choice(METHODS) if is_http else "",
        path=random.choice(PATHS) if is_http else "",
        source_ip=random.choice(ADDRESSES),
        destination_ip=random.choice(ADDRESSES),
        sni=random.choice(NAMES),
        headers=headers if is_http else (),
        token=random.choice(TOKENS) if is_http else None,
    )


SWEEP = 16
_random = Random(4)
_POOL = [_at_random(_random) for _ in range(200 * SWEEP)]
sweeps = st.integers(0, len(_POOL) // SWEEP - 1).map(lambda n: _POOL[n * SWEEP : (n + 1) * SWEEP])
"""Requests to ask of one world after another."""
