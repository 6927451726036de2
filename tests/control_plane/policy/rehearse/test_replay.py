"""Recorded calls judged by other policies: what changes, and what cannot be told."""

from __future__ import annotations

import gzip
import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from certs.spiffe_id import SpiffeId, TrustDomain
from control_plane.model import WorkloadSpec
from control_plane.policy.rehearse.mesh import Inhabitant, PaperMesh
from control_plane.policy.rehearse.records import LINE_OCTETS_MAX, LogReader
from control_plane.policy.rehearse.replay import Group, Replay, path_pattern
from control_plane.policy.rehearse.sources import Source, resources_of
from sidecar.rules.snapshot import Protocol
from sidecar.telemetry.access_log import Exchange, render
from tests.control_plane.policy.rehearse.support import NOW

TD = TrustDomain(name="mesh.local")
WEB, ORDERS = (SpiffeId.for_workload(TD, "shop", name) for name in ("web", "orders"))


def policy(rule: str, action: str = "ALLOW", name: str = "p") -> str:
    return (
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n"
        f"metadata: {{name: {name}, namespace: shop}}\n"
        f"spec:\n  selector: {{matchLabels: {{app: orders}}}}\n  action: {action}\n  rules:\n    - {rule}\n---\n"
    )


FROM_WEB = "from: [{source: {principals: [mesh.local/ns/shop/sa/web]}}]"
READING = policy(f"{{{FROM_WEB}, to: [{{operation: {{methods: [GET]}}}}]}}")
ALL = policy(f"{{{FROM_WEB}}}")


def line(**changes: object) -> bytes:
    """As a sidecar writes it."""
    fields: dict[str, object] = {
        "now": NOW, "direction": "inbound", "method": "GET", "path": "/orders/7", "authority": "orders.shop",
        "status": 200, "source": str(WEB), "destination": str(ORDERS), "port": 8080, "source_ip": "10.0.0.1",
        "decision": "allow", "rule": "shop/p#0", "snapshot": 3,
    }  # fmt: skip
    return render(Exchange(**(fields | changes)))  # type: ignore[arg-type]


def replayed(before: str, after: str, *lines: bytes, known: bool = True, labels: str = "orders") -> Replay:
    spec = WorkloadSpec(
        spiffe_id=ORDERS, service="orders", namespace="shop", service_account="orders", labels={"app": labels}
    )
    inhabitants = [Inhabitant(spec=spec, ports={8080: Protocol.HTTP1})] if known else []
    old, new = (
        PaperMesh(resources_of([Source(name=name, text=text)]), inhabitants, TD, NOW)
        for name, text in (("old.yaml", before), ("new.yaml", after))
    )
    replay = Replay(old, new)
    for record in LogReader().read(io.BytesIO(b"".join(lines)), "log"):
        replay.add(record)
    return replay


def only(groups: dict[object, Group]) -> Group:
    (group,) = groups.values()
    return group


def test_exactly_the_calls_that_change_are_told_with_both_rules() -> None:
    """Grouped by caller, service, method and path."""
    lines = [
        line(method="POST", path="/orders/1", now=NOW),
        line(method="POST", path="/orders/22", now=NOW + 5),
        line(method="GET"),
        line(method="POST", path="/orders", now=NOW + 9),
    ]
    replay = replayed(ALL, READING, *lines)
    assert (replay.calls, replay.changed_count, replay.untold_count) == (4, 3, 0)
    (one, other) = sorted(replay.changed.values(), key=lambda group: -group.count)
    assert (one.count, one.method, one.path, one.service, one.caller) == (
        2, "POST", "/orders/{*}", "orders.shop", str(WEB),
    )  # fmt: skip
    assert (one.first_seen, one.last_seen, one.lines) == (
        "2026-05-28T20:26:40.000Z",
        "2026-05-28T20:26:45.000Z",
        [1, 2],
    )
    assert one.before is not None
    assert one.after is not None
    assert (one.before.allowed, one.before.rule, one.after.allowed, one.after.rule) == (
        True,
        "shop/p#0",
        False,
        "default",
    )
    assert other.path == "/orders"


HEADER = "when: [{key: 'request.headers[x-role]', values: [admin]}]"
CLAIM = "when: [{key: 'request.auth.claims[role]', values: [admin]}]"
USERS = (
    "apiVersion: security.istio.io/v1\nkind: RequestAuthentication\nmetadata: {name: u, namespace: shop}\n"
    "spec: {jwtRules: [{issuer: 'https://i.example', jwksUri: 'https://i.example/k'}]}\n---\n"
)


@pytest.mark.parametrize(("rule", "missing"), [
    (HEADER, ["request.headers[x-role]"]),
    ("when: [{key: connection.sni, values: [a.b]}]", ["connection.sni"]),
    ("when: [{key: destination.ip, values: [10.0.0.0/8]}]", ["destination.ip"]),
])  # fmt: skip
def test_what_the_log_does_not_hold_is_named_and_never_guessed(rule: str, missing: list[str]) -> None:
    """If the verdict depends on it."""
    replay = replayed(ALL, policy(f"{{{FROM_WEB}, {rule}}}"), line())
    assert (replay.changed_count, replay.untold_count) == (0, 1)
    assert list(only(replay.untold).missing) == missing


def test_what_is_missing_does_not_matter_where_the_verdict_does_not_depend_on_it() -> None:
    """Another rule allows the call, or this one cannot match it anyhow."""
    with_header = policy(f"{{{FROM_WEB}, {HEADER}}}", name="q")
    assert replayed(ALL, ALL + with_header, line()).untold_count == 0
    other_path = policy(f"{{{FROM_WEB}, to: [{{operation: {{paths: [/x]}}}}], {HEADER}}}")
    replay = replayed(ALL, other_path, line())
    assert (replay.changed_count, replay.untold_count) == (1, 0)


def test_the_same_rules_in_question_on_both_sides_change_nothing() -> None:
    """Though neither verdict is known."""
    with_header = policy(f"{{{FROM_WEB}, {HEADER}}}", name="q")
    assert replayed(with_header, with_header.replace("name: q", "name: r"), line()).untold_count == 0
    denied = policy(f"{{{HEADER}}}", "DENY", "d")
    assert replayed(ALL, ALL + denied, line()).untold_count == 1
    assert replayed(ALL + denied, READING + denied, line()).untold_count == 0
    assert replayed(ALL + denied, READING + denied, line(method="PUT")).untold_count == 1


def test_without_request_authentication_there_is_no_token_for_certain() -> None:
    """With one there may have been."""
    claim = policy(f"{{{FROM_WEB}, {CLAIM}}}")
    assert replayed(ALL, claim, line()).changed_count == 1
    assert list(only(replayed(ALL, USERS + claim, line()).untold).missing) == ["request.auth.claims[role]"]


def test_a_token_that_was_refused_stays_so_under_the_same_authentication_only() -> None:
    """The log says that it was refused, not what it was."""
    refused = line(decision="deny", rule="request-authentication", status=401)
    assert replayed(USERS + READING, USERS + ALL, refused).untold_count == 0
    assert replayed(USERS + READING, ALL, refused).untold_count == 1


@pytest.mark.parametrize(("recorded", "changed", "untold"), [(8080, 1, 0), (0, 1, 0), (9090, 0, 0)])
def test_the_port_is_the_recorded_one_or_the_only_one(recorded: int, changed: int, untold: int) -> None:
    """Of a workload that has one port."""
    on_port = policy("{to: [{operation: {ports: ['9090']}}]}")
    replay = replayed(ALL, on_port, line(port=recorded))
    assert (replay.changed_count, replay.untold_count) == (changed, untold)


def test_a_port_or_an_address_that_is_not_recorded_is_missing() -> None:
    """In a log of an older sidecar."""
    on_port = policy("{to: [{operation: {ports: ['9090']}}]}")
    assert list(only(replayed(ALL, on_port, line(port=0), known=False).untold).missing) == ["port"]
    by_address = policy("{from: [{source: {ipBlocks: [10.0.0.0/8]}}]}")
    assert list(only(replayed(ALL, by_address, line(source_ip="")).untold).missing) == ["source.ip"]
    assert replayed(ALL, by_address, line()).changed_count == 0
    assert replayed(ALL, by_address, line(source_ip="11.0.0.1")).changed_count == 1


def test_a_caller_in_plaintext_is_stopped_at_the_door() -> None:
    """By the PeerAuthentication of each side."""
    peers = "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: a, namespace: shop}\n"
    peers += "spec: {mtls: {mode: PERMISSIVE}}\n---\n"
    anybody = policy("{}")
    replay = replayed(anybody + peers, anybody, line(source=""))
    group = only(replay.changed)
    assert group.caller == "plaintext"
    assert group.after is not None
    assert (group.after.allowed, group.after.rule) == (False, "peer-authentication")


def test_a_workload_that_nobody_named_has_the_labels_of_a_plain_token() -> None:
    """And policies that ask for another label cannot be told of."""
    replay = replayed(ALL, READING, line(method="PUT"), known=False)
    assert (replay.changed_count, replay.guessed) == (1, {"orders.shop"})
    labelled = READING.replace("app: orders", "tier: backend")
    replay = replayed(ALL, labelled, line(), known=False)
    assert list(only(replay.untold).missing) == ["label tier of orders.shop"]


def test_a_record_that_old_decides_otherwise_is_counted() -> None:
    """Then OLD is not what was in force."""
    assert replayed(READING, READING, line(method="PUT"), line()).recorded_otherwise == 1


def test_a_shortened_record_cannot_be_told() -> None:
    """What was cut off may be what matters."""
    assert replayed(ALL, READING, line(path="/" + "x" * 5_000)).untold_count == 1


# The log


def test_only_judged_inbound_calls_are_read() -> None:
    """Whatever else a sidecar writes to the same place is passed over, and what is no JSON is counted with its line."""
    lines = [
        line(), b'{"level": "info", "message": "ready"}\n', line(direction="outbound"), line(decision="", rule=""),
        b"plain words\n", b"\n", b'{"event": "exchange", "direction": "inbound", "decision": "allow", "time": 7}\n',
        b"x" * (LINE_OCTETS_MAX * 3) + b"\n", line(now=NOW - 100), line()[:-20],
    ]  # fmt: skip
    reader = LogReader(since=NOW - 50)
    records = list(reader.read(io.BytesIO(b"".join(lines)), "a.log"))
    assert [record.line for record in records] == [1]
    assert (reader.calls, reader.not_judged, reader.older, reader.malformed, reader.lines) == (1, 1, 1, 4, 10)
    assert reader.malformed_shown == [
        "a.log:5: not JSON",
        "a.log:7: not as a sidecar writes it",
        f"a.log:8: longer than {LINE_OCTETS_MAX} octets",
        "a.log:10: not JSON",
    ]


def test_gzip_is_read_as_it_is() -> None:
    """Known by its first octets, not by its name."""
    packed = io.BufferedReader(io.BytesIO(gzip.compress(line() * 3)))
    assert len(list(LogReader().read(packed, "log"))) == 3


@given(st.binary(max_size=300) | st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.dictionaries(st.sampled_from(
        ["event", "direction", "decision", "time", "rule", "port", "path", "truncated"]), inner), max_leaves=8,
).map(lambda value: json.dumps(value).encode()))  # fmt: skip
def test_no_line_whatever_ends_the_reading(text: bytes) -> None:
    """The next one is read."""
    reader = LogReader()
    assert [record.asked.path for record in reader.read(io.BytesIO(text.replace(b"\n", b" ") + b"\n" + line()), "x")]


@pytest.mark.parametrize(("path", "pattern"), [
    ("/orders/7/items/12", "/orders/{*}/items/{*}"),
    ("/users/5f2b1c3d-aaaa-bbbb-cccc-0123456789ab", "/users/{*}"),
    ("/v1/deadbeef", "/v1/deadbeef"),
    ("/v1/dead0eef", "/v1/{*}"),
    ("/a/customer-preferences-page", "/a/customer-preferences-page"),
    ("/", "/"),
])  # fmt: skip
def test_what_looks_like_an_id_is_left_out_of_a_pattern(path: str, pattern: str) -> None:
    """Words stay."""
    assert path_pattern(path) == pattern
