"""h2load: what it is asked, what it says, and the percentiles of its log."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.load import Load, LoadFailed, Request, command, elapsed_s, parse_log, parse_totals, percentile

OUTPUT = """\
starting benchmark...
spawning thread #0: 1 total client(s). 50 total requests
Application protocol: h2c
progress: 100% done

finished in 17.08ms, 2927.40 req/s, 3.10MB/s
requests: 50 total, 50 started, 50 done, 49 succeeded, 1 failed, 0 errored, 0 timeout
status codes: 49 2xx, 0 3xx, 1 4xx, 0 5xx
traffic: 54.27KB (55572) total, 2.70KB (2762) headers (space savings 74.43%), 50.00KB (51200) data
                     min         max         mean         sd        +/- sd
time for request:      899us      4.84ms      3.29ms      1.49ms    60.00%
"""


def test_totals_are_read_from_what_h2load_prints() -> None:
    """Its summary, of nghttp2 1.52."""
    totals = parse_totals(OUTPUT)
    assert (totals.total, totals.succeeded, totals.status_2xx, totals.octets) == (50, 49, 49, 55_572)


def test_output_without_a_summary_is_a_failed_load() -> None:
    """h2load that was killed, or never connected, says nothing that may be taken for a result."""
    with pytest.raises(LoadFailed, match="did not finish"):
        parse_totals("starting benchmark...\n")


def test_a_log_line_is_start_status_and_duration() -> None:
    """Columns that a later h2load adds are left alone."""
    assert parse_log("1795394389222043\t200\t3610\n1795394389225809\t-1\t483\tmore\n") == [
        Request(start_us=1795394389222043, status=200, took_us=3610),
        Request(start_us=1795394389225809, status=-1, took_us=483),
    ]
    with pytest.raises(ValueError, match="unpack"):
        parse_log("1795394389222043\t200\n")


def test_elapsed_runs_from_the_first_start_to_the_last_end() -> None:
    """The log is in order of ends, not of starts."""
    requests = parse_log("1000000\t200\t10\n500000\t200\t900000\n1100000\t200\t20\n")
    assert elapsed_s(requests) == pytest.approx(0.9)


def test_a_percentile_is_the_nearest_rank() -> None:
    """The smallest value that the share of all do not exceed."""
    values = [float(value) for value in range(1, 101)]
    assert [percentile(values, share) for share in (0.0, 0.5, 0.99, 0.999, 1.0)] == [1, 50, 99, 100, 100]
    assert percentile([7.0], 0.5) == 7.0
    with pytest.raises(ValueError, match="no values"):
        percentile([], 0.5)


@given(st.lists(st.floats(0, 1e9), min_size=1), st.floats(0, 1))
def test_a_percentile_is_one_of_the_values_and_bounds_its_share(values: list[float], share: float) -> None:
    """At least the share of all values do not exceed it."""
    found = percentile(sorted(values), share)
    assert found in values
    assert sum(value <= found for value in values) >= share * len(values) - 1e-6


@given(st.floats(0.0001, 1), st.integers(1, 100_000), st.integers(1, 16), st.integers(1, 100), st.integers(1, 100))
def test_a_smaller_load_is_made_the_same_way(
    factor: float, requests: int, processes: int, connections: int, streams: int
) -> None:
    """Fewer requests, shared evenly among the processes, and enough that every connection has some."""
    load = Load(requests=requests, processes=processes, connections=connections, streams=streams, kind="grpc", rate=9.0)
    less = load.scaled(factor)
    assert less.requests % processes == 0
    assert less.requests >= processes * connections
    assert less.requests <= max(requests, processes * connections * 4) + processes
    kept = ("processes", "connections", "streams", "is_http1", "kind", "rate")
    assert all(getattr(less, name) == getattr(load, name) for name in kept)


def test_the_command_says_what_the_load_is() -> None:
    """Every process takes its share of requests and of the rate."""
    load = Load(requests=1_000, processes=4, connections=5, streams=3, is_http1=True, rate=200.0)
    words = command(
        "h2load", load, port=99, targets=Path("/t"), headers=["a: b", "c: d"], body=Path("/b"), log=Path("/l")
    )
    assert words == [
        "h2load", "--requests=250", "--clients=5", "--max-concurrent-streams=3", "--input-file=/t",
        "--base-uri=http://127.0.0.1:99", "--log-file=/l", "--h1", "--rps=10", "--data=/b",
        "--header", "a: b", "--header", "c: d",
    ]  # fmt: skip
    plain = command("h2load", Load(requests=8), port=99, targets=Path("/t"), headers=[], body=None, log=Path("/l"))
    assert not any(word.startswith(("--h1", "--rps", "--data", "--header")) for word in plain)
