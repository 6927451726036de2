"""From samples to ratios, and the shape of results/latest.json that others read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import report
from benchmarks.load import Load
from benchmarks.scenarios import SCENARIOS, Scenario
from tests.benchmarks.samples import result, sample

ONE = SCENARIOS[1]
ABOUT = {"date": "2026-01-01T00:00:00+00:00", "engine": "relay"}


def test_a_spread_is_min_median_and_max() -> None:
    """Of all rounds."""
    assert report.spread([3.0, 1.0, 2.0]) == {"min": 1.0, "median": 2.0, "max": 3.0}
    with pytest.raises(ValueError, match="no values"):
        report.spread([])


@given(st.lists(st.floats(1e-6, 1e9), min_size=1))
def test_a_spread_is_in_order(values: list[float]) -> None:
    """min <= median <= max, whatever was rounded."""
    found = report.spread(values)
    assert found["min"] <= found["median"] <= found["max"]


def test_a_ratio_is_of_two_samples_of_one_round() -> None:
    """Ours to the other's; rounds that do not match are no ratio."""
    assert report.ratios([1.0, 6.0], [2.0, 3.0]) == [0.5, 2.0]
    with pytest.raises(ValueError, match="argument"):
        report.ratios([1.0], [2.0, 3.0])


def test_a_scenario_has_its_ratios_with_min_median_and_max() -> None:
    """CPU, throughput, latency and memory, ours to Envoy's, round by round."""
    ours = result({"all": [sample(50), sample(60, elapsed_s=2.0), sample(100)]}, idle=30, after=90)
    envoy = result({"all": [sample(100), sample(100), sample(100, latency_us=500.0)]}, idle=60, after=60)
    record = report.scenario_record(ONE, {"ours": ours, "envoy": envoy}, ABOUT)
    assert record["cpu_per_request_ratio"] == {"min": 0.5, "median": 0.6, "max": 1.0}
    assert record["throughput_ratio"] == {"min": 0.5, "median": 1.0, "max": 1.0}
    assert record["p50_ratio"] == record["p99_ratio"] == record["p999_ratio"] == {"min": 1.0, "median": 1.0, "max": 2.0}
    assert record["bytes_per_cpu_second_ratio"]["max"] == 2.0
    assert record["memory_ratio"]["median"] == record["after_memory_ratio"]["median"] == 1.5
    assert record["idle_memory_ratio"]["median"] == 0.5
    assert record["absolute"]["ours"]["cpu_us_per_request"]["median"] == 60
    assert record["absolute"]["ours"]["outbound_cpu_us_per_request"]["median"] == 15
    assert record["absolute"]["envoy"]["memory"]["after"] == {"rss_octets": 60, "pss_octets": 30}
    assert (record["title"], record["engine"], record["date"]) == (ONE.title, "relay", ABOUT["date"])
    json.dumps(record)


def test_memory_in_the_scenario_of_idle_connections_is_that_of_a_connection() -> None:
    """Both kinds of connection together; each kind has its own ratio as well."""
    ours = result({"all": [sample(50)]}, held={"app": 10.0, "mesh": 50.0})
    envoy = result({"all": [sample(50)]}, held={"app": 20.0, "mesh": 40.0})
    record = report.scenario_record(SCENARIOS[7], {"ours": ours, "envoy": envoy}, ABOUT)
    assert record["memory_ratio"]["median"] == 1.0
    assert record["after_memory_ratio"]["median"] == 1.0
    assert record["idle_app_connection_memory_ratio"]["median"] == 0.5
    assert record["idle_mesh_connection_memory_ratio"]["median"] == 1.25


def test_a_scenario_of_several_loads_has_each_and_all_together() -> None:
    """Together: sums of what adds up, by round."""
    two = Scenario(number=6, title="two", loads={"down": Load(requests=1), "up": Load(requests=1)})
    ours = result({"down": [sample(100)], "up": [sample(300)]})
    envoy = result({"down": [sample(100)], "up": [sample(100)]})
    record = report.scenario_record(two, {"ours": ours, "envoy": envoy}, ABOUT)
    assert record["cpu_per_request_ratio"]["median"] == 2.0
    assert record["bytes_per_cpu_second_ratio"]["median"] == 0.5
    assert record["parts"]["down"]["cpu_per_request_ratio"]["median"] == 1.0
    assert record["parts"]["up"]["cpu_per_request_ratio"]["median"] == 3.0


def test_further_systems_stand_beside_envoy_and_not_in_its_place() -> None:
    """HAProxy under `against`; ours without the crowd also as `growth_ratio`."""
    results = {name: result({"all": [sample(cpu)]}) for name, cpu in (("ours", 110), ("haproxy", 55), ("plain", 100))}
    record = report.scenario_record(SCENARIOS[8], results, ABOUT)
    assert "cpu_per_request_ratio" not in record
    assert record["against"]["haproxy"]["cpu_per_request_ratio"]["median"] == 2.0
    assert record["growth_ratio"]["median"] == 1.1


def test_one_system_alone_has_figures_and_no_ratios() -> None:
    """For profiling."""
    record = report.scenario_record(ONE, {"ours": result({"all": [sample(50)]})}, ABOUT)
    assert set(record) == {"title", "date", "engine", "absolute"}
    assert list(report.table(record, 1)) == [f"scenario 1: {ONE.title}"]


def test_the_table_shows_every_ratio_to_envoy_once() -> None:
    """One line each, with min, median and max."""
    results = {name: result({"all": [sample(cpu)]}) for name, cpu in (("ours", 50), ("envoy", 100), ("haproxy", 25))}
    lines = list(report.table(report.scenario_record(ONE, results, ABOUT), 1))
    cpu = [line for line in lines if "cpu_per_request" in line]
    assert len(cpu) == 2
    assert "ours/envoy" in cpu[0]
    assert cpu[0].split()[2:] == ["min", "0.500", "median", "0.500", "max", "0.500"]
    assert "ours/haproxy" in cpu[1]


def test_what_was_not_run_this_time_stays_as_it_was(tmp_path: Path) -> None:
    """One scenario can be measured again without losing the others; scenario 9 follows from all of them."""
    path = tmp_path / "results" / "latest.json"

    def record(number: int, idle: int) -> dict[str, object]:
        ours, envoy = result({"all": [sample(50)]}, idle=idle), result({"all": [sample(100)]}, idle=100)
        return report.scenario_record(SCENARIOS[number], {"ours": ours, "envoy": envoy}, ABOUT)

    report.write(path, {"date": "first"}, {"1": record(1, 50), "2": record(2, 60)})
    report.write(path, {"date": "second"}, {"2": record(2, 70)})
    found = json.loads(path.read_text())
    assert found["date"] == "second"
    assert list(found["scenarios"]) == ["1", "2", "9"]
    assert found["scenarios"]["1"]["idle_memory_ratio"]["median"] == 0.5
    assert found["scenarios"]["2"]["idle_memory_ratio"]["median"] == 0.7
    assert found["scenarios"]["9"]["memory_ratio"] == {"min": 0.5, "median": 0.6, "max": 0.7}
    assert set(found["scenarios"]["9"]["after"]) == {"1", "2"}


def test_idle_memory_is_not_judged_by_the_scenario_with_the_crowd() -> None:
    """What 500 endpoints and 5,000 rules take is that scenario's own business."""
    plain, crowded = ({"idle_memory_ratio": {"median": ratio}, "after_memory_ratio": {}} for ratio in (0.5, 0.9))
    memory = report.memory_record({"1": plain, "8": crowded})
    assert memory
    assert memory["memory_ratio"]["max"] == 0.5
    assert report.memory_record({"1": {"title": "alone"}}) is None
