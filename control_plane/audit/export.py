"""Records for other systems: JSON lines as they are, syslog (RFC 5424), OCSF events.

Syslog: facility 13 (log audit), severity by event, MSGID the event, one structured-data element `hauberk@32473` with
every field (32473 is the enterprise number set aside for those who have none, RFC 5612), message in plain English.

OCSF (Open Cybersecurity Schema Framework) 1.2.0, https://schema.ocsf.io/1.2.0: what happens to the right of a workload
to be one is Account Change (class 3001), everything else API Activity (class 6003). A field that has no place in the
schema is under `unmapped`; what is in `raw_data` is the line, so that the chain can be checked on what was exported.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from control_plane.audit.chain import Field, Record

OCSF_VERSION = "1.2.0"
_FACILITY = 13
_INFORMATIONAL, _NOTICE, _WARNING = 6, 5, 4
_SD_ID = "hauberk@32473"

API_ACTIVITY, ACCOUNT_CHANGE = 6003, 3001
CREATE, READ, UPDATE, DELETE, OTHER = 1, 2, 3, 4, 99
ENABLE, DISABLE = 2, 5
"""Of Account Change, as 1 is to create and 6 to delete."""

_ACTIVITIES: Mapping[str, tuple[int, int]] = {
    "token.created": (API_ACTIVITY, CREATE),
    "identity.joined": (ACCOUNT_CHANGE, CREATE),
    "identity.rejoined": (ACCOUNT_CHANGE, ENABLE),
    "identity.renewed": (API_ACTIVITY, UPDATE),
    "identity.revoked": (ACCOUNT_CHANGE, DISABLE),
    "identity.reinstated": (ACCOUNT_CHANGE, ENABLE),
    "revoked": (ACCOUNT_CHANGE, DISABLE),
    "reinstated": (ACCOUNT_CHANGE, ENABLE),
    "resources.applied": (API_ACTIVITY, UPDATE),
    "resources.rolled_back": (API_ACTIVITY, UPDATE),
    "resource.deleted": (API_ACTIVITY, DELETE),
}
_ACTIVITY_NAMES = {
    (API_ACTIVITY, CREATE): "Create",
    (API_ACTIVITY, READ): "Read",
    (API_ACTIVITY, UPDATE): "Update",
    (API_ACTIVITY, DELETE): "Delete",
    (ACCOUNT_CHANGE, CREATE): "Create",
    (ACCOUNT_CHANGE, ENABLE): "Enable",
    (ACCOUNT_CHANGE, DISABLE): "Disable",
}


def refused(record: Record) -> bool:
    return record.event in ("call.refused", "calls.refused")


def jsonl(_record: Record, line: bytes, _release: str) -> str:
    """The line, octet for octet."""
    return line.decode("ascii").rstrip("\n")


def rfc5424(record: Record, _line: bytes, _release: str) -> str:
    """One syslog message, without a frame."""
    severity = _WARNING if refused(record) or record.event.startswith("audit.mended") else _NOTICE
    if record.event in ("identity.renewed", "audit.checkpoint"):
        severity = _INFORMATIONAL
    at = datetime.fromtimestamp(record.at, UTC)
    stamp = f"{at:%Y-%m-%dT%H:%M:%S}.{at.microsecond // 1_000:03d}Z"
    told = {"seq": record.seq, "by": record.by, "sha256": record.sha256, **record.fields}
    params = "".join(f' {_name(name)}="{_escaped(value)}"' for name, value in told.items())
    head = f"<{_FACILITY * 8 + severity}>1 {stamp} - hauberk - {_name(record.event)}"
    return f"{head} [{_SD_ID}{params}] {_sentence(record)}"


def _name(name: str) -> str:
    """SD-NAME and MSGID: at most 32 printable characters without =, ], " and space."""
    kept = "".join(one if 0x21 <= ord(one) < 0x7F and one not in '="]' else "_" for one in name)
    return kept[:32] or "-"


def _escaped(value: Field) -> str:
    text = _text(value)
    for one in ("\\", '"', "]"):
        text = text.replace(one, "\\" + one)
    return text


def _text(value: Field) -> str:
    """On one line, in ASCII, without what a terminal would act on."""
    if isinstance(value, list):
        value = ", ".join(value)
    text = value if isinstance(value, str) else json.dumps(value)
    return "".join(one if 0x20 <= ord(one) < 0x7F else ascii(one)[1:-1] for one in text)


def _sentence(record: Record) -> str:
    what = record.event.replace(".", " ").replace("_", " ")
    about = record.fields.get("spiffe_id") or record.fields.get("method") or record.fields.get("resource") or ""
    return f"{what} by {_text(record.by) or 'nobody known'}" + (f": {_text(about)}" if about else "")


def ocsf(record: Record, line: bytes, release: str) -> str:
    """One event as a JSON object on one line."""
    return json.dumps(ocsf_event(record, line, release), ensure_ascii=True, separators=(",", ":"))


def ocsf_event(record: Record, line: bytes, release: str) -> dict[str, Any]:
    class_uid, activity = _ACTIVITIES.get(record.event, (API_ACTIVITY, OTHER))
    told = dict(record.fields)
    peer = str(told.pop("peer", "") or "")
    about = str(told.get("spiffe_id") or told.get("value") or "")
    if class_uid == ACCOUNT_CHANGE and not about:
        class_uid, activity = API_ACTIVITY, OTHER
    failed = refused(record)
    event: dict[str, Any] = {
        "category_uid": class_uid // 1_000,
        "class_uid": class_uid,
        "activity_id": activity,
        "activity_name": _ACTIVITY_NAMES.get((class_uid, activity), record.event),
        "type_uid": class_uid * 100 + activity,
        "time": round(record.at * 1_000),
        "severity_id": 2 if failed else 1,
        "status_id": 2 if failed else 1,
        "message": _sentence(record),
        "metadata": {
            "version": OCSF_VERSION,
            "product": {"name": "Hauberk", "vendor_name": "Hauberk", "version": release},
            "log_name": "audit",
            "uid": record.sha256,
            "sequence": record.seq,
            "event_code": record.event,
        },
        "actor": {"user": _user(record.by)},
        "src_endpoint": _endpoint(peer),
        "raw_data": line.decode("ascii").rstrip("\n"),
    }
    if failed:
        event["status_code"] = str(told.pop("status", "") or "UNKNOWN")
        event["status_detail"] = str(told.pop("reason", "") or f"{told.get('count')} refused calls")
    if class_uid == ACCOUNT_CHANGE:
        event["user"] = _user(about)
    else:
        method = str(told.pop("method", "") or record.event)
        event["api"] = {"operation": method.rpartition("/")[2], "service": {"name": _service(method)}}
        changes = told.get("changes") or told.get("resource")
        if changes:
            names = changes if isinstance(changes, list) else [str(changes)]
            event["resources"] = [{"name": name, "type": "policy"} for name in names]
    if told:
        event["unmapped"] = told
    return event


def _service(method: str) -> str:
    """ "hauberk.v1.Admin" of "/hauberk.v1.Admin/Status"."""
    return method.strip("/").partition("/")[0] if method.startswith("/") else "hauberk.v1"


def _user(name: str) -> dict[str, Any]:
    """Type 4 is a service, 2 an administrator, 3 the system."""
    if name.startswith("spiffe://"):
        return {"name": name.rpartition("/")[2] or name, "uid": name, "type_id": 4}
    return {"name": name or "unknown", "type_id": {"local operator": 2, "control plane": 3}.get(name, 0)}


def _endpoint(peer: str) -> dict[str, str]:
    try:
        return {"ip": str(ipaddress.ip_address(peer))}
    except ValueError:
        return {"name": peer or "control plane"}


FORMATS: Mapping[str, Callable[[Record, bytes, str], str]] = {"jsonl": jsonl, "rfc5424": rfc5424, "ocsf": ocsf}
"""(record, its line, this release) -> one line without its line feed."""
