"""What came of tests, as the XML that CI systems read: the shape of Maven Surefire's reports, which JUnit's became.

https://maven.apache.org/surefire/maven-surefire-plugin/xsd/surefire-test-report.xsd; several suites stand in one
`testsuites`, as Ant's JUnitReport has it.
"""

from __future__ import annotations

import xml.etree.ElementTree as Xml
from collections.abc import Iterable, Sequence

from control_plane.policy.rehearse.trial import Result, decided_by, nearest

DECLARATION = '<?xml version="1.0" encoding="UTF-8"?>\n'


def report(results: Iterable[Result]) -> str:
    """One suite a PolicyTest, one test case a call."""
    suites: dict[tuple[str, str], list[Result]] = {}
    for result in results:
        suites.setdefault((result.test.source, result.test.name), []).append(result)
    root = Xml.Element("testsuites")
    for (_, name), held in suites.items():
        root.append(_suite(name, held))
    _count(root, [result for held in suites.values() for result in held])
    Xml.indent(root)
    return DECLARATION + Xml.tostring(root, encoding="unicode") + "\n"


def _suite(name: str, results: Sequence[Result]) -> Xml.Element:
    suite = Xml.Element("testsuite", name=_text(name))
    _count(suite, results)
    for result in results:
        case = Xml.SubElement(suite, "testcase", name=_text(result.title), classname=_text(name), time="0.000")
        if result.holds:
            continue
        message = "; ".join(result.faults)
        failure = Xml.SubElement(case, "failure", message=_text(message), type="PolicyExpectation")
        lines = [f"{result.expectation.source}: {message}", decided_by(result.outcome), *nearest(result.outcome)]
        failure.text = _text("\n".join(lines))
    return suite


def _count(element: Xml.Element, results: Sequence[Result]) -> None:
    failures = sum(not result.holds for result in results)
    for name, value in (("tests", len(results)), ("failures", failures), ("errors", 0), ("skipped", 0)):
        element.set(name, str(value))
    element.set("time", "0.000")


def _text(text: str) -> str:
    """Without what XML 1.0 has no place for (section 2.2)."""
    return "".join(char if char in "\t\n" or (char >= " " and char not in "\ufffe\uffff\x7f") else "?" for char in text)
