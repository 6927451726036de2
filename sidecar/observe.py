"""What is told of an exchange when it ended: one record to the metrics, the access log and, if sampled, the trace."""

from __future__ import annotations

import time
from typing import Literal

from sidecar.decisions import Decisions
from sidecar.errors import Unauthorized
from sidecar.exchange import Exchange
from sidecar.rules.verdict import Denied, Permit, Verdict
from sidecar.runtime import INBOUND, Call
from sidecar.telemetry import names
from sidecar.telemetry.access_log import AccessLog
from sidecar.telemetry.access_log import Exchange as LogEntry
from sidecar.telemetry.metrics import Metrics
from sidecar.telemetry.metrics import Verdict as Word
from sidecar.telemetry.trace import Tracer

REQUEST_AUTHENTICATION = "request-authentication"
"""As the deciding rule."""
AUDITS_MAX = 16
"""Rules named in one span."""


class Observer:
    """Called once for each exchange, at its end."""

    def __init__(self, metrics: Metrics, access_log: AccessLog, tracer: Tracer, decisions: Decisions) -> None:
        self._metrics = metrics
        self._access_log = access_log
        self._tracer = tracer
        self._decisions = decisions

    def __call__(self, exchange: Exchange, call: Call) -> None:
        duration_s = exchange.clock() - exchange.started
        judged = _judged(exchange, call)
        word: Word = "none" if judged is None else _word(judged)
        differs, audited = False, False
        if judged is not None and (word == "deny" or judged.shadow is not None or judged.audits):
            differs, audited = judged.shadow is not None, bool(judged.audits)
            self._tell(exchange, call, judged)
        if call.direction == INBOUND:
            self._metrics.request_done("inbound", exchange.status, call.source, duration_s, word)
        else:
            self._metrics.request_done("outbound", exchange.status, call.destination, duration_s)
        if exchange.error is not None and exchange.error.row:
            self._metrics.refused(exchange.error.row, exchange.error.reason)
        if self._access_log.wants(word, differs=differs, audited=audited):
            self._access_log.record(self._log_entry(exchange, call, judged, duration_s))
        if call.trace is not None and call.trace.sampled and self._tracer.is_exporting:
            self._span(exchange, call, judged)

    def _tell(self, exchange: Exchange, call: Call, verdict: Verdict) -> None:
        """What somebody may ask about later, or a policy asks to have counted."""
        for rule in verdict.audits:
            self._metrics.audited(call.source, rule)
        if verdict.shadow is not None:
            self._metrics.shadow(call.source, _word(verdict.shadow), verdict.shadow.rule)
        elif isinstance(verdict, Permit):
            return
        if not exchange.decision_id:
            exchange.decision_id = self._decisions.new_id()  # nobody was told, but the log has it
        if self._decisions.admits_one():
            described = call.describe(verdict, exchange.decision_id, time.time())
            if described is not None:
                self._decisions.add(described)

    @staticmethod
    def _log_entry(exchange: Exchange, call: Call, verdict: Verdict | None, duration_s: float) -> LogEntry:
        head = exchange.head
        return LogEntry(
            now=time.time(),
            direction=call.direction,
            method=head.method if head else "",
            path=head.path if head else "",
            authority=head.authority if head else "",
            status=exchange.status,
            grpc_status=exchange.grpc_status,
            source=call.source,
            destination=call.destination,
            port=call.port,
            source_ip=call.source_ip,
            decision=_word(verdict) if verdict else "",
            rule=verdict.rule if verdict else "",
            snapshot=verdict.version if verdict else call.version,
            decision_id=exchange.decision_id,
            audit=verdict.audits if verdict else (),
            shadow=_word(verdict.shadow) if verdict and verdict.shadow else "",
            shadow_rule=verdict.shadow.rule if verdict and verdict.shadow else "",
            duration_s=duration_s,
            bytes_received=exchange.request.octets,
            bytes_sent=exchange.response.octets if exchange.response else 0,
            end=exchange.how_ended,
            trace_id=call.trace.trace_id if call.trace else "",
            endpoint=call.endpoint,
        )

    def _span(self, exchange: Exchange, call: Call, verdict: Verdict | None) -> None:
        """With the wall clock of now: spans of several processes are laid side by side."""
        head = exchange.head
        assert head is not None
        assert call.trace is not None
        kind: Literal["server", "client"] = "server" if call.direction == INBOUND else "client"
        method = head.method.decode("ascii")
        attributes: dict[str, str | int] = {
            names.ATTR_METHOD: method,
            names.ATTR_STATUS: exchange.status,
            names.ATTR_URL_PATH: head.path,
            names.ATTR_URL_SCHEME: "http",
            names.ATTR_SERVER_ADDRESS: head.host,
            names.ATTR_SERVER_PORT: call.port,
            names.ATTR_DIRECTION: call.direction,
            names.ATTR_SOURCE: call.source,
            names.ATTR_DESTINATION: call.destination,
            names.ATTR_DECISION: _word(verdict) if verdict else "",
            names.ATTR_END: exchange.how_ended,
        }
        if verdict is not None:
            attributes[names.ATTR_RULE] = verdict.rule
            attributes[names.ATTR_SNAPSHOT] = verdict.version
            if verdict.audits:
                attributes[names.ATTR_AUDIT] = ", ".join(verdict.audits[:AUDITS_MAX])
            if verdict.shadow is not None:
                attributes[names.ATTR_SHADOW] = _word(verdict.shadow)
                attributes[names.ATTR_SHADOW_RULE] = verdict.shadow.rule
        if exchange.decision_id:
            attributes[names.ATTR_DECISION_ID] = exchange.decision_id
        if exchange.grpc_status is not None:
            attributes[names.ATTR_GRPC_STATUS] = exchange.grpc_status
        self._tracer.span(
            call.trace,
            name=method,
            kind=kind,
            start=call.began_at,
            end=max(call.began_at, time.time()),
            attributes=attributes,
            error="" if exchange.how_ended == names.END_COMPLETE else exchange.how_ended,
        )


def _judged(exchange: Exchange, call: Call) -> Verdict | None:
    """The verdict on it. A token that is not taken ends a request before any policy is asked; that is a denial too."""
    error = exchange.error
    if isinstance(error, Unauthorized):
        return Denied(rule=REQUEST_AUTHENTICATION, reason=error.detail or error.title, version=call.version)
    return call.denied or call.permit


def _word(verdict: Verdict) -> Word:
    return "deny" if isinstance(verdict, Denied) else "allow"
