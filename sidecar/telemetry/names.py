"""Every name the sidecar shows to monitoring: dashboards and alerts depend on them, so they live in one file.

Metrics follow the Prometheus conventions (base units, `_total` for counters; https://prometheus.io/docs/practices/naming/),
span attributes the OpenTelemetry semantic conventions where they have one, `hauberk.*` where they have none.
"""

from __future__ import annotations

# Metrics. Counters are named without the `_total` that the exposition adds.
REQUESTS = "hauberk_requests"
REQUEST_DURATION = "hauberk_request_duration_seconds"
REFUSED = "hauberk_refused"
CONNECTIONS_OPENED = "hauberk_connections_opened"
CONNECTIONS_OPEN = "hauberk_connections_open"
CERTIFICATE_NOT_AFTER = "hauberk_certificate_not_after_timestamp_seconds"
CERTIFICATES_RECEIVED = "hauberk_certificates_received"
SNAPSHOT_VERSION = "hauberk_snapshot_version"
SNAPSHOTS_RECEIVED = "hauberk_snapshots_received"
CONTROL_CONNECTED = "hauberk_control_plane_connected"
ACCESS_LOG_DROPPED = "hauberk_access_log_dropped"
LOOP_LAG = "hauberk_event_loop_lag_seconds"
LOOP_LAG_MAX = "hauberk_event_loop_lag_max_seconds"
BUILD_INFO = "hauberk_build_info"
RESIDENT_MEMORY = "process_resident_memory_bytes"
CPU_SECONDS = "process_cpu_seconds"
OPEN_FDS = "process_open_fds"

# Labels of metrics.
LABEL_DIRECTION = "direction"
LABEL_PEER = "peer"
LABEL_STATUS_CLASS = "status_class"
LABEL_VERDICT = "verdict"
LABEL_ROW = "row"
LABEL_REASON = "reason"
LABEL_KIND = "kind"
LABEL_VERSION = "version"

# Values that several parts write.
INBOUND = "inbound"
OUTBOUND = "outbound"
ALLOW = "allow"
DENY = "deny"
PEER_OTHER = "other"
PEER_UNKNOWN = "unknown"
END_COMPLETE = "complete"
"""How an exchange ends when both sides got all of it; every other word for it is a reason."""

# Fields of an access log line.
LOG_TIME = "time"
LOG_EVENT = "event"
LOG_DIRECTION = "direction"
LOG_METHOD = "method"
LOG_PATH = "path"
LOG_AUTHORITY = "authority"
LOG_STATUS = "status"
LOG_GRPC_STATUS = "grpc_status"
LOG_SOURCE = "source"
LOG_DESTINATION = "destination"
LOG_DECISION = "decision"
LOG_RULE = "rule"
LOG_SNAPSHOT = "snapshot"
LOG_DECISION_ID = "decision_id"
LOG_DURATION_MS = "duration_ms"
LOG_BYTES_RECEIVED = "bytes_received"
LOG_BYTES_SENT = "bytes_sent"
LOG_END = "end"
LOG_TRACE_ID = "trace_id"
LOG_ENDPOINT = "endpoint"
LOG_TRUNCATED = "truncated"
LOG_REMOTE = "remote"
LOG_REASON = "reason"
LOG_ROW = "row"
LOG_SNI = "sni"
LOG_SNI_HEX = "sni_hex"

# Span attributes with an OpenTelemetry name (semantic conventions: http, server, url, rpc, error).
ATTR_METHOD = "http.request.method"
ATTR_STATUS = "http.response.status_code"
ATTR_GRPC_STATUS = "rpc.grpc.status_code"
ATTR_SERVER_ADDRESS = "server.address"
ATTR_SERVER_PORT = "server.port"
ATTR_URL_PATH = "url.path"
ATTR_URL_SCHEME = "url.scheme"
ATTR_ERROR_TYPE = "error.type"

# Span attributes of ours.
ATTR_DIRECTION = "hauberk.direction"
ATTR_SOURCE = "hauberk.source"
ATTR_DESTINATION = "hauberk.destination"
ATTR_DECISION = "hauberk.decision"
ATTR_RULE = "hauberk.rule"
ATTR_SNAPSHOT = "hauberk.snapshot.version"
ATTR_DECISION_ID = "hauberk.decision_id"
ATTR_END = "hauberk.end"

# Resource attributes: who sends the spans.
RESOURCE_SERVICE_NAME = "service.name"
RESOURCE_SERVICE_NAMESPACE = "service.namespace"
RESOURCE_SERVICE_INSTANCE = "service.instance.id"
TRACER_NAME = "hauberk.sidecar"
