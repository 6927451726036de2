"""How the tools' reports are read: a wrong reading would pass what failed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conformance.tools import Report, read_junit, read_listing

JUNIT = b"""<?xml version="1.0" encoding="UTF-8"?>
<testsuites>
  <testsuite name="3.7. PING" package="generic/3.7" id="3.7" tests="2" skipped="0" failures="0" errors="1">
    <testcase package="generic/3.7" classname="Sends a PING frame" time="0.0009"></testcase>
    <testcase package="generic/3.7" classname="Sends another" time="2.0">
      <error>PING Frame
opaque_data:\x00\xff<&> -></error>
    </testcase>
  </testsuite>
  <testsuite name="4. Exchanges" package="generic/4" id="4" tests="1" skipped="1" failures="0" errors="0">
    <testcase package="generic/4" classname="Sends a GET request" time="0.1">
      <skipped></skipped>
    </testcase>
  </testsuite>
</testsuites>
"""

LISTING = """\
Generic tests for HTTP/2 client
  1. Starting HTTP/2
    \N{HEAVY CHECK MARK} 1: Sends a client connection preface

  5. Streams and Multiplexing
    5.1. Stream States
      \r      \N{HEAVY CHECK MARK} 1: idle: Sends a DATA frame
      \N{MULTIPLICATION SIGN} 2: idle: Sends a RST_STREAM frame
        -> The endpoint MUST end the connection.
           Expected: GOAWAY Frame
             Actual: Timeout
"""


def test_a_junit_report_tells_what_passed_and_what_was_seen_instead(tmp_path: Path) -> None:
    """Octets that XML cannot carry are in it as they came; a case that was skipped did not pass."""
    path = tmp_path / "report.xml"
    path.write_bytes(JUNIT)
    report = read_junit(path)
    assert report.passed == {"generic/3.7/1"}
    assert report.missed == {
        "generic/3.7/2": "Sends another\nerror: PING Frame\nopaque_data:??<&> ->",
        "generic/4/1": "Sends a GET request\nskipped:",
    }


def test_a_listing_tells_what_passed_and_what_was_seen_instead() -> None:
    """The list of failures that follows repeats what was said."""
    report = read_listing(LISTING + "Failures:\n\n  5.1. Stream States\n    \N{MULTIPLICATION SIGN} 2: idle\n")
    assert report.passed == {"1/1", "5.1/1"}
    assert list(report.missed) == ["5.1/2"]
    assert "Actual: Timeout" in report.missed["5.1/2"]


def test_a_run_that_was_given_up_is_a_miss() -> None:
    """h2specd ends with the first client that is not done in time."""
    report = read_listing(LISTING + "\nError: Timeout\n")
    assert [case for case in report.missed if "gave up" in report.missed[case]] == ["after 5.1/2"]


@pytest.mark.parametrize(
    ("expected_total", "excused", "problem"),
    [
        (2, {}, "missed 1 of 2"),
        (2, {"4/1": "why", "3/1": "why"}, "excused, and passed"),
        (3, {"4/1": "why"}, "2 cases ran instead of 3"),
    ],
)
def test_a_report_must_be_as_expected(expected_total: int, excused: dict[str, str], problem: str) -> None:
    """Neither a miss without an excuse, nor an excuse without a miss, nor a case that never ran."""
    report = Report(passed=frozenset({"3/1"}), missed={"4/1": "Sends a GET request"})
    report.check(2, {"4/1": "why"})
    with pytest.raises(AssertionError, match=problem):
        report.check(expected_total, excused)
