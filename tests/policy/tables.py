"""The tables of `cases/*.yaml`: how they are written, and how a request is asked in every way there is.

A table has policies and requests. Policies are real YAML, of which only what never changes is left out:

    - table: what it is about; the reason in the words of the documentation
      workload: app=billing version=v1     # optional: labels, namespace=..., service=...
      mesh: "{defaultAction: ALLOW}"       # optional: the spec of the MeshConfig
      policies:
        p: |                               # "name" in namespace shop, or "namespace/name"; the text of its spec
          rules: [{from: [{source: {principals: ["*"]}}]}]
        "q shadow": |                      # in shadow by our annotation; "q dry-run": by Istio's
          action: DENY
      documents: |                         # instead of `policies`: whole documents, as people have them
      tokens:                              # by name: the claims of a verified token
        ada: {iss: "https://id", sub: ada, aud: [shop]}
      cases: |
        web GET /a host=x port=80 -> allow p#0 # why

A case is a line:

    CALLER METHOD PATH [NAME=VALUE | HEADER:VALUE]... -> VERDICT [RULE] [audits=RULE,RULE] [shadow=VERDICT:RULE] # why

    CALLER   web (of namespace shop), other/web, - (nobody authenticated), @ada (an operator)
    METHOD   `tcp` is an opaque exchange; it has no PATH
    NAME     host, port, ip (the caller's), to (our own address), sni, token (by name)
    RULE     name#index, in namespace shop if none is given; left out if the default decided
    shadow   left out if the policies in shadow would change nothing

Quote words as in a shell.
"""

from __future__ import annotations

import re
import shlex
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml

from certs.spiffe_id import SpiffeId
from control_plane.model import EndpointRecord, ResourceKey, ResourceRecord, Workload, WorkloadSpec
from control_plane.policy.parse import parse_documents
from control_plane.push.snapshot import WorldLoader, compile_content
from control_plane.push.trust import Trust
from protos.hauberk.v1 import discovery_pb2 as pb
from sidecar.rules.authz import Authorizer, Permit
from sidecar.rules.decode import snapshot_from_proto
from sidecar.rules.facts import Facts, Token
from sidecar.rules.facts import Json as ClaimValue
from sidecar.rules.snapshot import Snapshot
from sidecar.rules.verdict import Verdict as Answer
from tests.certs.forge import make_ca
from tests.policy.naive import Verdict
from tests.policy.plain import Called, Json
from tests.sidecar.rules.builders import TD, workload

HERE = Path(__file__).parent
NAMESPACE = "shop"
_ANCHOR = make_ca().der
_HEADER = re.compile(r"([!#$%&'*+.^_`|~0-9a-z-]+):(.*)", re.DOTALL)
_NAMED = re.compile(r"(host|port|ip|to|sni|token)=(.*)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    id: str
    documents: str
    called: Called
    facts: Facts
    expected: Verdict


def cases(folder: str) -> Iterator[Case]:
    """Of all tables of the folder."""
    for path in sorted((HERE / folder).glob("*.yaml")):
        for table in yaml.safe_load(path.read_text()) or []:
            yield from _cases(table, path.stem)


def _cases(table: Json, file: str) -> Iterator[Case]:
    unknown = set(table) - {"table", "workload", "mesh", "policies", "documents", "tokens", "cases"}
    assert not unknown, f"{file}: {unknown}"
    documents, called = _documents(table), _called(table.get("workload", ""))
    tokens = {name: token(claims) for name, claims in table.get("tokens", {}).items()}
    for line in table["cases"].splitlines():
        if line.strip():
            facts, expected = read_case(line, tokens)
            asked = " ".join(line.split("->")[0].split())
            yield Case(
                id=f"{file}: {table['table']}: {asked}",
                documents=documents,
                called=called,
                facts=facts,
                expected=expected,
            )


def _documents(table: Json) -> str:
    documents = [table["documents"]] if "documents" in table else []
    if "mesh" in table:
        documents.append(_document("hauberk.dev/v1", "MeshConfig", "{name: default}", table["mesh"]))
    for title, spec in table.get("policies", {}).items():
        full_name, _, mode = title.partition(" ")
        namespace, _, name = full_name.rpartition("/")
        annotation = {"": "", "shadow": "hauberk.dev/mode: shadow", "dry-run": 'istio.io/dry-run: "true"'}[mode]
        metadata = f"{{name: {name}, namespace: {namespace or NAMESPACE}, annotations: {{{annotation}}}}}"
        documents.append(_document("security.istio.io/v1", "AuthorizationPolicy", metadata, spec))
    return "\n---\n".join(documents)


def _document(version: str, kind: str, metadata: str, spec: str) -> str:
    return f"apiVersion: {version}\nkind: {kind}\nmetadata: {metadata}\nspec:\n{textwrap.indent(spec, '  ')}"


def _called(text: str) -> Called:
    labels = {"app": "billing"} | dict(word.split("=", 1) for word in text.split())
    namespace, service = labels.pop("namespace", NAMESPACE), labels.pop("service", "billing")
    return Called(service=service, namespace=namespace, labels=labels)


def token(claims: Mapping[str, Any]) -> Token:
    """Of claims as they are after a signature was verified."""
    audience = claims.get("aud", ())
    more = claims.get("_spaceDelimitedClaims", ())
    return Token(
        issuer=claims.get("iss", ""),
        subject=claims.get("sub", ""),
        audiences=(audience,) if isinstance(audience, str) else tuple(audience),
        presenter=claims.get("azp", ""),
        claims=MappingProxyType({name: _frozen(value) for name, value in claims.items() if name[0] != "_"}),
        expires_at=2e9,
        space_delimited=frozenset({"scope", "permission", *more}),
    )


def _frozen(value: Any) -> ClaimValue:
    if isinstance(value, dict):
        return MappingProxyType({name: _frozen(one) for name, one in value.items()})
    if isinstance(value, list):
        return tuple(_frozen(one) for one in value)
    assert value is None or isinstance(value, str | int | float | bool)
    return value


def read_case(line: str, tokens: Mapping[str, Token]) -> tuple[Facts, Verdict]:
    asked, arrow, answer = line.partition(" -> ")
    assert arrow, f"no -> in {line}"
    return _facts(shlex.split(asked), tokens), _expected(answer.rpartition(" # ")[0] or answer)


def _facts(words: list[str], tokens: Mapping[str, Token]) -> Facts:
    caller, method, *rest = words
    is_http = method != "tcp"
    path = rest.pop(0) if is_http else ""
    named = {"host": "billing.shop", "port": "8080", "ip": "10.1.0.7", "to": "10.9.0.1", "sni": ""}
    headers: list[tuple[str, str]] = []
    for word in rest:
        if match := _NAMED.fullmatch(word):
            named[match[1]] = match[2]
        else:
            header = _HEADER.fullmatch(word)
            assert header, f"neither NAME=VALUE nor header:value: {word}"
            headers.append((header[1], header[2]))
    return Facts(
        principal=workload(caller),
        host=named["host"] if is_http else "",
        port=int(named["port"]),
        method=method if is_http else "",
        path=path,
        source_ip=named["ip"],
        destination_ip=named["to"],
        sni=named["sni"],
        headers=tuple(headers),
        token=tokens[named["token"]] if "token" in named else None,
    )


def _expected(text: str) -> Verdict:
    word, *rest = text.split()
    assert word in ("allow", "deny"), text
    audits: tuple[str, ...] = ()
    shadow, rule = None, "default"
    for part in rest:
        if part.startswith("audits="):
            audits = tuple(map(_full_name, part.removeprefix("audits=").split(",")))
        elif part.startswith("shadow="):
            verdict, _, name = part.removeprefix("shadow=").partition(":")
            assert verdict in ("allow", "deny")
            shadow = (verdict == "allow", _full_name(name or "default"))
        else:
            assert rule == "default", f"two rules in {text}"
            rule = _full_name(part)
    return Verdict(word == "allow", rule, audits, shadow)


def _full_name(rule: str) -> str:
    if rule == "default":
        return rule
    assert "#" in rule, rule
    return rule if "/" in rule else f"{NAMESPACE}/{rule}"


# The whole way from what an operator writes to what a sidecar enforces


@dataclass(frozen=True, slots=True)
class _Records:
    """A store that holds some documents and nobody's sidecar."""

    documents: tuple[ResourceRecord, ...]
    epoch: int = 1
    revision: int = 7
    nobody: tuple[Any, ...] = field(default=())

    def resources(self) -> tuple[ResourceRecord, ...]:
        return self.documents

    def workloads(self) -> tuple[Workload, ...]:
        return self.nobody

    def endpoints(self) -> tuple[EndpointRecord, ...]:
        return self.nobody


def snapshot_of(documents: str, called: Called) -> Snapshot:
    """YAML -> parsed -> stored -> selected for the workload -> encoded -> octets -> decoded."""
    labels = tuple(sorted(called.labels.items()))
    return _snapshot_of(documents, called.service, called.namespace, labels)


@lru_cache(maxsize=8)
def _snapshot_of(documents: str, service: str, namespace: str, labels: tuple[tuple[str, str], ...]) -> Snapshot:
    records = tuple(
        ResourceRecord(
            key=ResourceKey(kind=one.kind, namespace=one.namespace, name=one.name),
            yaml=one.yaml,
            source=one.source,
            version=1,
            applied_at=0.0,
            applied_by="operator",
        )
        for one in parse_documents(documents, "cases.yaml")
    )
    spec = WorkloadSpec(
        spiffe_id=SpiffeId.for_workload(TD, namespace, service),
        service=service,
        namespace=namespace,
        service_account=service,
        labels=dict(labels),
    )
    store: Any = _Records(records)
    world = WorldLoader(store, TD, lambda: Trust(anchors_der=(_ANCHOR,)), certificate_lifetime_s=600).load()
    message = pb.Snapshot()
    message.CopyFrom(compile_content(world, Workload(workload_id=1, spec=spec, joined_at=0.0), ()).message)
    message.epoch, message.version = 1, 7
    return snapshot_from_proto(pb.Snapshot.FromString(message.SerializeToString()))


def asked_whole(authorizer: Authorizer, facts: Facts) -> Verdict:
    """As `explain` asks."""
    return plain_verdict(authorizer.authorize(facts))


def asked_by_peer(authorizer: Authorizer, facts: Facts) -> Verdict:
    """As the proxy asks: the connection first, then the request."""
    fields = [(name.encode("ascii"), value.encode("latin-1")) for name, value in facts.headers]
    peer = authorizer.for_peer(facts.peer)
    return plain_verdict(peer.authorize(facts.host, facts.port, facts.method, facts.path, fields, facts.token))


def plain_verdict(answer: Answer) -> Verdict:
    other = answer.shadow
    shadow = None if other is None else (isinstance(other, Permit), other.rule)
    return Verdict(isinstance(answer, Permit), answer.rule, answer.audits, shadow)
