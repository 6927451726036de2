"""Counts are right, labels are bounded, and the text is what Prometheus reads."""

from __future__ import annotations

import itertools

import trio
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from sidecar.telemetry.metrics import (
    DURATION_BOUNDS_S,
    RULE_SERIES_MAX,
    SERIES_MAX,
    Metrics,
    resident_memory_octets,
    watch_loop_lag,
)
from tests.trio_support import trio_test

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def samples(metrics: Metrics) -> Samples:
    """What a scraper sees: (name, labels) -> value."""
    text = metrics.export().decode()
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(metrics: Metrics, name: str, **labels: str) -> float:
    return samples(metrics)[name, frozenset(labels.items())]


def series(metrics: Metrics, name: str) -> list[dict[str, str]]:
    return [dict(labels) for found, labels in samples(metrics) if found == name]


def test_requests_are_counted_by_direction_peer_status_class_and_verdict() -> None:
    """Each combination is one series; a request counts in exactly one."""
    metrics = Metrics(version="1")
    for status in (200, 204, 404):
        metrics.request_done("inbound", status=status, peer="spiffe://td/a", duration_s=0.1, verdict="allow")
    metrics.request_done("inbound", status=403, peer="spiffe://td/a", duration_s=0.1, verdict="deny")
    metrics.request_done("outbound", status=0, peer="b.shop", duration_s=0.1)
    common = {"direction": "inbound", "peer": "spiffe://td/a"}
    name = "hauberk_requests_total"
    assert value(metrics, name, **common, status_class="2xx", verdict="allow") == 2
    assert value(metrics, name, **common, status_class="4xx", verdict="allow") == 1
    assert value(metrics, name, **common, status_class="4xx", verdict="deny") == 1
    assert value(metrics, name, direction="outbound", peer="b.shop", status_class="none", verdict="none") == 1
    assert len(series(metrics, name)) == 4


@given(st.lists(st.floats(min_value=0, max_value=1_000), max_size=30))
def test_a_duration_falls_into_every_bucket_that_is_not_less_than_it(durations: list[float]) -> None:
    """Prometheus buckets are cumulative and their bound is included."""
    metrics = Metrics(version="1")
    for duration_s in durations:
        metrics.request_done("outbound", status=200, peer="p", duration_s=duration_s)
    found = samples(metrics)
    for bound in DURATION_BOUNDS_S:
        labels = frozenset({("direction", "outbound"), ("le", str(bound))})
        expected = sum(duration_s <= bound for duration_s in durations)
        assert found["hauberk_request_duration_seconds_bucket", labels] == expected
    assert value(metrics, "hauberk_request_duration_seconds_count", direction="outbound") == len(durations)


def test_i07_peers_beyond_the_limit_are_counted_as_other() -> None:
    """A caller that makes up identities (or a large mesh) cannot make the exposition grow without end."""
    metrics = Metrics(version="1", peers_max=3)
    for number in range(10):
        metrics.request_done("inbound", status=200, peer=f"spiffe://td/{number}", duration_s=0.1)
    metrics.request_done("inbound", status=200, peer="spiffe://td/0", duration_s=0.1)
    metrics.request_done("inbound", status=200, peer="", duration_s=0.1)
    counts = {
        labels["peer"]: value(metrics, "hauberk_requests_total", **labels)
        for labels in series(metrics, "hauberk_requests_total")
    }
    assert counts == {"spiffe://td/0": 2, "spiffe://td/1": 1, "spiffe://td/2": 1, "other": 8}


def test_a_request_without_a_peer_is_counted_as_unknown() -> None:
    """An empty label would look like a missing one."""
    metrics = Metrics(version="1")
    metrics.request_done("outbound", status=404, peer="", duration_s=0.1)
    metrics.request_done("outbound", status=404, peer="", duration_s=0.1)
    assert (
        value(
            metrics,
            "hauberk_requests_total",
            direction="outbound",
            peer="unknown",
            status_class="4xx",
            verdict="none",
        )
        == 2
    )


def test_i07_refusals_are_counted_by_row_and_reason_and_bounded() -> None:
    """Both come from constants; a mistake of ours must not grow without end either."""
    metrics = Metrics(version="1")
    metrics.refused("B02", "bad_request")
    metrics.refused("B02", "bad_request")
    assert value(metrics, "hauberk_refused_total", row="B02", reason="bad_request") == 2
    for number in range(2 * SERIES_MAX):
        metrics.refused("B02", str(number))
    assert len(series(metrics, "hauberk_refused_total")) == SERIES_MAX + 1
    assert value(metrics, "hauberk_refused_total", row="", reason="other") == SERIES_MAX + 1


def test_i07_what_policies_ask_to_be_counted_is_bounded() -> None:
    """By caller and rule; beyond the bound both are "other", and nothing is lost."""
    metrics = Metrics(version="1")
    for number in range(RULE_SERIES_MAX + 10):
        metrics.audited(f"peer{number}", "shop/seen#0")
        metrics.shadow(f"peer{number}", "deny", "shop/new#0")
    metrics.audited("", "shop/seen#0")
    for name in ("hauberk_audited_requests", "hauberk_shadow_decisions"):
        (family,) = (one for one in text_string_to_metric_families(metrics.export().decode()) if one.name == name)
        samples = {tuple(sorted(one.labels.items())): one.value for one in family.samples}
        assert len(samples) == RULE_SERIES_MAX + 1
        assert sum(samples.values()) == RULE_SERIES_MAX + 10 + (name == "hauberk_audited_requests")
        other = {"peer": "other", "rule": "other"} | ({} if "audit" in name else {"verdict": "deny"})
        assert samples[tuple(sorted(other.items()))] >= 10


def test_a_label_cannot_break_its_line() -> None:
    """The exposition is text: quotes and line ends in a label are escaped."""
    metrics = Metrics(version="1")
    metrics.request_done("inbound", status=200, peer='a"b\nhauberk_requests_total 7', duration_s=0.1)
    assert [labels["peer"] for labels in series(metrics, "hauberk_requests_total")] == ['a"b\nhauberk_requests_total 7']


def test_states_are_shown_as_they_are() -> None:
    """Connections, certificate, snapshot, control plane, dropped lines and loop lag."""
    metrics = Metrics(version="1.2.3")
    for _ in range(3):
        metrics.connection_opened("mesh")
    metrics.connection_closed("mesh")
    metrics.certificate(1_800_000_000.0)
    metrics.snapshot(41)
    metrics.snapshot(42)
    metrics.control_connected(True)
    metrics.access_log_dropped(5)
    metrics.loop_lag(0.5)
    metrics.loop_lag(0.25)
    assert value(metrics, "hauberk_connections_opened_total", kind="mesh") == 3
    assert value(metrics, "hauberk_connections_open", kind="mesh") == 2
    assert value(metrics, "hauberk_certificate_not_after_timestamp_seconds") == 1_800_000_000
    assert value(metrics, "hauberk_certificates_received_total") == 1
    assert value(metrics, "hauberk_snapshot_version") == 42
    assert value(metrics, "hauberk_snapshots_received_total") == 2
    assert value(metrics, "hauberk_control_plane_connected") == 1
    assert value(metrics, "hauberk_access_log_dropped_total") == 5
    assert value(metrics, "hauberk_event_loop_lag_seconds") == 0.25
    assert value(metrics, "hauberk_event_loop_lag_max_seconds") == 0.5
    assert value(metrics, "hauberk_build_info", version="1.2.3") == 1


def test_the_process_is_measured() -> None:
    """Resident memory is the kernel's number; a process of Python has at least a megabyte."""
    metrics = Metrics(version="1")
    assert value(metrics, "process_resident_memory_bytes") > 1_000_000
    assert value(metrics, "process_open_fds") > 2
    assert value(metrics, "process_cpu_seconds_total") > 0
    assert resident_memory_octets() % 4096 == 0


def test_every_family_has_a_help_text_and_a_name_of_ours() -> None:
    """Nothing is exported by accident: no default collectors, no second registry."""
    metrics = Metrics(version="1")
    families = list(text_string_to_metric_families(metrics.export().decode()))
    assert all(family.documentation for family in families)
    assert all(family.name.startswith(("hauberk_", "process_")) for family in families)
    assert len({family.name for family in families}) == len(families)


@trio_test(autojump=True)
async def test_loop_lag_is_how_late_the_loop_woke() -> None:
    """The watcher asks to be woken at a time and reports how long after it was."""
    metrics = Metrics(version="1")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: watch_loop_lag(metrics, interval_s=1.0))
        await trio.sleep(3.5)
        nursery.cancel_scope.cancel()
    assert value(metrics, "hauberk_event_loop_lag_seconds") >= 0
    assert list(itertools.islice(metrics.families(), 1))
