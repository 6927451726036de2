"""The reports that other programs read: JUnit XML and SARIF."""

from __future__ import annotations

import json
import xml.etree.ElementTree as Xml
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from control_plane.policy.rehearse import junit, sarif
from tests.control_plane.policy.rehearse.support import results

EXPECTATIONS = """\
- {name: web "reads" <orders>, from: shop/web, to: orders.shop, request: [GET /orders/1, POST /orders/1], expect: allow}
- {from: anybody, to: orders.shop, request: GET /orders/1, expect: deny}
"""
CODE = sarif.Code(id="X001", name="Something", text="Something.", level=sarif.ERROR)


def test_junit_is_what_surefire_reports_look_like() -> None:
    """Its schema: suites of cases with name, class name and time; a failure has its type, message and text."""
    root = Xml.fromstring(junit.report(results(EXPECTATIONS)))  # noqa: S314  # our own
    assert root.tag == "testsuites"
    (suite,) = root
    counts = {"tests": "3", "failures": "1", "errors": "0", "skipped": "0"}
    assert {name: suite.get(name) for name in counts} == counts
    assert set(suite.keys()) == {"name", "time", *counts}
    assert [set(case.keys()) for case in suite] == [{"name", "classname", "time"}] * 3
    assert [len(case) for case in suite] == [0, 1, 0]
    failure = suite[1][0]
    assert failure.tag == "failure"
    assert failure.attrib == {"message": "expected allow, got deny", "type": "PolicyExpectation"}
    assert (failure.text or "").startswith("test.yaml:10: expected allow, got deny\ndeny by default")
    assert suite[0].get("name") == 'web "reads" <orders> [shop/web -> orders.shop:8080 GET /orders/1]'


@given(st.text())
def test_junit_holds_no_character_that_xml_has_no_place_for(text: str) -> None:
    """Whatever a name is."""
    encodable = text.encode("utf-8", "replace").decode()
    element = Xml.Element("a", b=junit._text(encodable))
    Xml.fromstring(Xml.tostring(element, encoding="unicode"))  # noqa: S314  # our own


def check_log(text: str) -> dict[str, Any]:
    """What SARIF 2.1.0 requires of a log with one run, sections in comments."""
    log = json.loads(text)
    assert set(log) == {"$schema", "version", "runs"}
    assert log["version"] == "2.1.0"  # 3.13.2
    (run,) = log["runs"]
    driver = run["tool"]["driver"]
    assert driver["name"] == "hauberk"  # 3.19.8
    ids = [rule["id"] for rule in driver["rules"]]
    assert len(set(ids)) == len(ids)  # 3.19.23
    assert all(rule["defaultConfiguration"]["level"] in ("error", "warning", "note") for rule in driver["rules"])
    for result in run["results"]:
        assert result["message"]["text"]  # 3.27.11
        assert ids[result["ruleIndex"]] == result["ruleId"]  # 3.27.6
        assert result["level"] in ("error", "warning", "note", "none")  # 3.27.10
        related = result.get("relatedLocations", [])
        assert [one["id"] for one in related] == list(range(len(related)))  # 3.28.2: unique, not negative
        for location in (*result["locations"], *related):
            physical = location["physicalLocation"]
            assert "\\" not in physical["artifactLocation"]["uri"]
            assert physical.get("region", {"startLine": 1})["startLine"] >= 1  # 3.30.5
    assert isinstance(run, dict)
    return run


def test_sarif_has_what_the_standard_requires() -> None:
    """With the place found and the places related to it."""
    found = sarif.Result(
        code=CODE, level=sarif.WARNING, message="no", place="./a b/c#.yaml:7", related=[("/x/d.yaml:3", "there")]
    )
    run = check_log(sarif.report([found], [CODE], "1.0"))
    (result,) = run["results"]
    place = result["locations"][0]["physicalLocation"]
    assert place == {"artifactLocation": {"uri": "a%20b/c%23.yaml"}, "region": {"startLine": 7}}
    assert result["relatedLocations"][0]["physicalLocation"]["artifactLocation"] == {"uri": "file:///x/d.yaml"}


def test_sarif_of_nothing_found_is_a_run_without_results() -> None:
    """Not no run: it was looked."""
    assert check_log(sarif.report([], [CODE], "1.0"))["results"] == []
