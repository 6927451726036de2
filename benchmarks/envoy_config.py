"""Envoy's static configuration as data: two sidecars that do what ours do.

Both: HTTP/1.1 and HTTP/2 told apart, one canonical path, an access log of what was not answered well, statistics.
Outbound: mutual TLS 1.3 with HTTP/2 to the other, whose SPIFFE ID must be the service's. Inbound: a certificate of the
mesh is required, the caller's identity is put into x-forwarded-client-cert, and the RBAC filter holds the rules.
Windows, buffers and timeouts are Envoy's defaults, as ours are ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import work
from benchmarks.certificates import Files

EXTENSIONS = "type.googleapis.com/envoy.extensions"
Json = dict[str, Any]


def typed(name: str, **fields: Any) -> Json:
    return {"@type": f"{EXTENSIONS}.{name}", **fields}


def socket_address(port: int) -> Json:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def tls_context(files: Files, principals: Sequence[str]) -> Json:
    """Both ends' part: own certificate, TLS 1.3, and whom to believe."""
    return {
        "tls_params": {"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3"},
        "alpn_protocols": ["h2"],
        "tls_certificates": [
            {"certificate_chain": {"filename": str(files.chain)}, "private_key": {"filename": str(files.key)}}
        ],
        "validation_context": {
            "trusted_ca": {"filename": str(files.anchors)},
            "match_typed_subject_alt_names": [
                {"san_type": "URI", "matcher": {"exact": f"spiffe://{name}"} if "*" not in name
                 else {"prefix": f"spiffe://{name.rstrip('*')}"}}
                for name in principals
            ],
        },
    }  # fmt: skip


def policy(rule: work.Rule) -> Json:
    """One rule as an RBAC policy, the way Istio writes it: any of the methods and any of the paths, by this caller."""
    methods = [{"header": {"name": ":method", "string_match": {"exact": method}}} for method in rule.methods]
    paths = [{"url_path": {"path": {"exact": rule.path}}}, {"url_path": {"path": {"prefix": rule.prefix}}}]
    permission = {"and_rules": {"rules": [{"or_rules": {"rules": methods}}, {"or_rules": {"rules": paths}}]}}
    caller = {"authenticated": {"principal_name": {"exact": f"spiffe://{rule.principal}"}}}
    return {"permissions": [permission], "principals": [caller]}


def rbac(rules: Sequence[work.Rule]) -> Json:
    policies = {f"rule-{index:05}": policy(rule) for index, rule in enumerate(rules)}
    config = typed("filters.http.rbac.v3.RBAC", rules={"action": "ALLOW", "policies": policies})
    return {"name": "envoy.filters.http.rbac", "typed_config": config}


def denied_log() -> Json:
    """One line of JSON for each answer of 400 and above."""
    fields = ("START_TIME", "REQ(:METHOD)", "PROTOCOL", "RESPONSE_CODE", "RESPONSE_CODE_DETAILS", "DURATION")
    names = ("time", "method", "protocol", "status", "why", "duration_ms")
    formatted = {name: f"%{field}%" for name, field in zip(names, fields, strict=True)}
    return {
        "name": "envoy.access_loggers.stderr",
        "filter": {
            "status_code_filter": {
                "comparison": {"op": "GE", "value": {"default_value": 400, "runtime_key": "access_log.from_status"}}
            }
        },
        "typed_config": typed("access_loggers.stream.v3.StderrAccessLog", log_format={"json_format": formatted}),
    }


def listener(name: str, port: int, *, filters: Sequence[Json], cluster: str, tls: Json | None, **manager: Any) -> Json:
    router = {"name": "envoy.filters.http.router", "typed_config": typed("filters.http.router.v3.Router")}
    route = {"match": {"prefix": "/"}, "route": {"cluster": cluster}}
    config = typed(
        "filters.network.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix=name,
        codec_type="AUTO",
        normalize_path=True,
        merge_slashes=True,
        path_with_escaped_slashes_action="REJECT_REQUEST",
        access_log=[denied_log()],
        route_config={"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
        http_filters=[*filters, router],
        **manager,
    )
    chain: Json = {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": config}]}
    if tls:
        chain["transport_socket"] = {
            "name": "envoy.transport_sockets.tls",
            "typed_config": typed(
                "transport_sockets.tls.v3.DownstreamTlsContext", require_client_certificate=True, common_tls_context=tls
            ),
        }
    return {"name": name, "address": socket_address(port), "filter_chains": [chain]}


def cluster(name: str, ports: Sequence[int], *, is_http1: bool = False, tls: Json | None = None) -> Json:
    options: Json = {"http_protocol_options": {}} if is_http1 else {"http2_protocol_options": {}}
    found: Json = {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": socket_address(port)}} for port in ports]}],
        },
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": typed(
                "upstreams.http.v3.HttpProtocolOptions", explicit_http_config=options
            )
        },
    }
    if tls:
        found["transport_socket"] = {
            "name": "envoy.transport_sockets.tls",
            "typed_config": typed(
                "transport_sockets.tls.v3.UpstreamTlsContext", sni=work.SERVICE, common_tls_context=tls
            ),
        }
    return found


def bootstrap(admin: int, listeners: Sequence[Json], clusters: Sequence[Json]) -> Json:
    return {
        "admin": {"address": socket_address(admin)},
        "static_resources": {"listeners": list(listeners), "clusters": list(clusters)},
    }


def outbound(*, admin: int, port: int, mesh_port: int, files: Files, strangers: Sequence[Sequence[int]] = ()) -> Json:
    """Sidecar A. `strangers`: the endpoints of further services, each a list of ports."""
    tls = tls_context(files, [work.principal(work.SERVICE)])
    others = [cluster(f"stranger-{index}", ports, tls=tls) for index, ports in enumerate(strangers)]
    return bootstrap(
        admin,
        [listener("outbound", port, filters=[], cluster="service", tls=None)],
        [cluster("service", [mesh_port], tls=tls), *others],
    )


def inbound(*, admin: int, mesh_port: int, app: int, is_http1: bool, files: Files, rules: Sequence[work.Rule]) -> Json:
    """Sidecar B."""
    return bootstrap(
        admin,
        [
            listener(
                "inbound",
                mesh_port,
                filters=[rbac(rules)],
                cluster="app",
                tls=tls_context(files, [f"{work.TRUST_DOMAIN}/*"]),
                forward_client_cert_details="SANITIZE_SET",
                set_current_client_cert_details={"uri": True},
            )
        ],
        [cluster("app", [app], is_http1=is_http1)],
    )


def file_name(directory: Path, side: str) -> Path:
    return directory / f"envoy-{side}.json"
