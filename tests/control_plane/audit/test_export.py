"""Records for other systems. The tables are of RFC 5424 section 6 and of OCSF 1.2.0."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.audit.chain import GENESIS, Field, Record, body, link, parse
from control_plane.audit.export import jsonl, ocsf, rfc5424

ID = "spiffe://mesh.local/ns/shop/sa/web"
# RFC 5424 section 6: HEADER SP STRUCTURED-DATA SP MSG, with one element.
SYSLOG = re.compile(
    r"<(?P<pri>\d{1,3})>1 (?P<at>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z) - hauberk - (?P<msgid>[!-~]{1,32})"
    r" \[hauberk@32473(?P<params>( [!#-<>-\\^-~]{1,32}=\"([^\"\\\]]|\\[\"\\\]])*\")*)\] (?P<message>[ -~]*)"
)
# Class: (category, what its events must have), https://schema.ocsf.io/1.2.0
CLASSES = {6003: (6, {"actor", "api", "src_endpoint"}), 3001: (3, {"user"})}
ALWAYS = {"activity_id", "category_uid", "class_uid", "metadata", "severity_id", "time", "type_uid"}
ACTIVITIES = {6003: {0, 1, 2, 3, 4, 99}, 3001: {*range(13), 99}}


def record(event: str, by: str = "local operator", **fields: Field) -> tuple[Record, bytes]:
    line, _ = link(GENESIS, body(event, at=1_800_000_000.25, by=by, fields=fields))
    found = parse(line)
    assert found is not None
    return found, line


RECORDS = [
    record("audit.began", "control plane"),
    record("token.created", spiffe_id=ID, token_id="ab"),
    record("identity.joined", "anonymous", peer="192.0.2.1", spiffe_id=ID, serial="1f"),
    record("identity.renewed", ID, peer="2001:db8::1", spiffe_id=ID),
    record("call.refused", "", method="/hauberk.v1.Admin/Status", peer="unix", status="PERMISSION_DENIED", reason="no"),
    record("calls.refused", "control plane", count=7, since=1.0, peers=2),
    record("resources.applied", changes=["created AuthorizationPolicy shop/web"]),
    record("resource.deleted", resource="AuthorizationPolicy shop/web"),
    record("ca.activated", "control plane", authorities=["root 00 active"]),
    record("something.new", "ann", other=None),
]


@pytest.mark.parametrize(("one", "line"), RECORDS, ids=lambda one: getattr(one, "event", ""))
def test_json_lines_are_the_lines(one: Record, line: bytes) -> None:
    """So that the chain can be checked on them."""
    assert jsonl(one, line, "1").encode("ascii") + b"\n" == line


@pytest.mark.parametrize(("one", "line"), RECORDS, ids=lambda one: getattr(one, "event", ""))
def test_syslog_is_rfc_5424(one: Record, line: bytes) -> None:
    """Facility 13, one structured-data element with every field."""
    match = SYSLOG.fullmatch(rfc5424(one, line, "1"))
    assert match
    assert int(match["pri"]) // 8 == 13
    assert (int(match["pri"]) % 8 == 4) == one.event.endswith("refused")
    assert match["msgid"] == one.event
    assert match["at"] == "2027-01-15T08:00:00.250Z"
    for name in one.fields:
        assert f" {name}=" in match["params"]


@given(by=st.text(max_size=30), name=st.text(min_size=1, max_size=40), value=st.text(max_size=60))
def test_syslog_holds_nothing_that_ends_it_early(by: str, name: str, value: str) -> None:
    """Quotes, brackets, line breaks, control characters: escaped, whoever sent them."""
    one, line = record("call.refused", by, **{f"x{name}": value})
    assert SYSLOG.fullmatch(rfc5424(one, line, "1"))


@pytest.mark.parametrize(("one", "line"), RECORDS, ids=lambda one: getattr(one, "event", ""))
def test_ocsf_events_have_the_right_numbers_and_what_their_class_requires(one: Record, line: bytes) -> None:
    """Type is class x 100 + activity."""
    event: dict[str, Any] = json.loads(ocsf(one, line, "1"))
    category, required = CLASSES[event["class_uid"]]
    assert event["category_uid"] == category
    assert event.keys() >= ALWAYS | required
    assert event["activity_id"] in ACTIVITIES[event["class_uid"]]
    assert event["type_uid"] == event["class_uid"] * 100 + event["activity_id"]
    assert event["time"] == 1_800_000_000_250
    assert event["metadata"]["version"] == "1.2.0"
    assert event["metadata"]["product"]["vendor_name"]
    assert event["status_id"] == (2 if one.event.endswith("refused") else 1)
    assert event["raw_data"].encode() + b"\n" == line


def test_ocsf_says_who_what_and_from_where() -> None:
    """In the attributes made for it."""
    joined = json.loads(ocsf(*RECORDS[2], "1"))
    assert (joined["class_uid"], joined["activity_id"]) == (3001, 1)
    assert joined["user"] == {"name": "web", "uid": ID, "type_id": 4}
    assert joined["src_endpoint"] == {"ip": "192.0.2.1"}
    refused = json.loads(ocsf(*RECORDS[4], "1"))
    assert refused["api"] == {"operation": "Status", "service": {"name": "hauberk.v1.Admin"}}
    assert (refused["status_code"], refused["status_detail"]) == ("PERMISSION_DENIED", "no")
