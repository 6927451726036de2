"""What is written is the Prometheus text format: the reference library reads back what was counted."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from sidecar.telemetry.exposition import Family, exposition

LABEL = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"))
NUMBER = st.one_of(st.integers(0, 2**53), st.floats(min_value=0, allow_nan=False, allow_infinity=False))


class Given(Collector):
    """A collector of families that somebody made."""

    def __init__(self, *families: Metric) -> None:
        self._families = families

    def collect(self) -> tuple[Metric, ...]:
        return self._families


def by_the_library(*families: Metric) -> str:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Given(*families))
    return generate_latest(registry).decode()


def facts(text: str) -> list[object]:
    """All that a text says, as the library understands it."""
    return [
        (one.name, one.documentation, one.type, [(s.name, s.labels, s.value) for s in one.samples])
        for one in text_string_to_metric_families(text)
    ]


@given(LABEL, LABEL, NUMBER)
def test_counters_and_gauges_say_what_the_reference_library_would_have_written(
    help_text: str, label: str, number: float
) -> None:
    """Whatever is in a label or in the help; line ends and quotes are escaped."""
    counter = Family("counter", "a", help_text, ["x"]).add([label], number)
    gauge = Family("gauge", "b", help_text).add([], number)
    theirs = CounterMetricFamily("a", help_text, labels=["x"])
    theirs.add_metric([label], number)
    expected = by_the_library(theirs, GaugeMetricFamily("b", help_text, number))
    assert facts(exposition([counter, gauge]).decode()) == facts(expected)


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=5), st.floats(0, 1e9))
def test_a_histogram_has_its_buckets_its_count_and_its_sum(counts: list[int], total: float) -> None:
    """The last bucket, +Inf, holds as many as there are."""
    buckets = [(str(float(bound)), count) for bound, count in enumerate(sorted(counts)[:-1])]
    buckets.append(("+Inf", max(counts)))
    theirs = HistogramMetricFamily("h", "Help.", labels=["x"])
    theirs.add_metric(["v"], [(bound, float(count)) for bound, count in buckets], sum_value=total)
    ours = Family("histogram", "h", "Help.", ["x"]).add_histogram(["v"], buckets, total)
    assert facts(exposition([ours]).decode()) == facts(by_the_library(theirs))


def test_a_family_without_samples_is_still_announced() -> None:
    """Who scrapes learns that it exists."""
    assert exposition([Family("counter", "a", "Help.", ["x"])]) == b"# HELP a_total Help.\n# TYPE a_total counter\n"


def test_a_lone_surrogate_does_not_keep_the_rest_from_being_told() -> None:
    """A label's value may come from anywhere."""
    assert exposition([Family("gauge", "a", "Help.", ["x"]).add(["\ud800"], 1)]).endswith(b'a{x="?"} 1\n')
