"""What was found and where, as SARIF 2.1.0 (OASIS), which code review tools show beside the lines.

https://docs.oasis-open.org/sarif/sarif/v2.1.0/sarif-v2.1.0.html; section numbers below are of that page.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import quote

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
VERSION = "2.1.0"
ERROR, WARNING, NOTE = "error", "warning", "note"
"""Levels (3.27.10)."""
_TOOL = "hauberk"

Json = dict[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Code:
    """A kind of result (reportingDescriptor, 3.49)."""

    id: str
    name: str
    text: str
    level: str
    """Of its results, if they say nothing else."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One thing found (3.27)."""

    code: Code
    level: str
    message: str
    place: str
    """"file:line"."""
    related: Sequence[tuple[str, str]] = ()
    """("file:line", what is there)."""


def report(results: Iterable[Result], codes: Sequence[Code], tool_version: str) -> str:
    """One run. Every code there is is described, used or not."""
    index = {code.id: number for number, code in enumerate(codes)}
    run: Json = {
        "tool": {
            "driver": {"name": _TOOL, "version": tool_version, "rules": [_descriptor(code) for code in codes]},
        },
        "columnKind": "unicodeCodePoints",
        "results": [_result(one, index) for one in results],
    }
    return json.dumps({"$schema": SCHEMA, "version": VERSION, "runs": [run]}, indent=2, ensure_ascii=False) + "\n"


def _descriptor(code: Code) -> Json:
    return {
        "id": code.id,
        "name": code.name,
        "shortDescription": {"text": code.text},
        "defaultConfiguration": {"level": code.level},
    }


def _result(result: Result, index: Mapping[str, int]) -> Json:
    found: Json = {
        "ruleId": result.code.id,
        "ruleIndex": index[result.code.id],
        "level": result.level,
        "message": {"text": result.message},
        "locations": [{"physicalLocation": _physical(result.place)}],
    }
    if result.related:
        found["relatedLocations"] = [
            {"id": number, "physicalLocation": _physical(place), "message": {"text": text}}
            for number, (place, text) in enumerate(result.related)
        ]
    return found


def _physical(place: str) -> Json:
    """3.29. A path is a URI reference (3.4.3): forward slashes, what a URI cannot hold percent-encoded."""
    file, _, line = place.rpartition(":")
    if not (line.isascii() and line.isdigit()):
        file, line = place, "0"
    location: Json = {"artifactLocation": {"uri": _uri(file)}}
    if int(line) > 0:
        location["region"] = {"startLine": int(line)}
    return location


def _uri(file: str) -> str:
    path = quote(file.removeprefix("./"))
    return f"file://{path}" if path.startswith("/") else path
