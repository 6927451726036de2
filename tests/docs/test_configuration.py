"""docs/configuration.md against the code: no field missing, none stale, every default and range as it is."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest

from control_plane import config as control_plane_config
from control_plane.cli.options import DEFAULT_DATA_DIR
from control_plane.config import CERTIFICATE_LIFETIME_S_MAX, CERTIFICATE_LIFETIME_S_MIN, ControlPlaneConfig
from control_plane.config_ca import CaConfig
from sidecar import config as sidecar_config
from sidecar.config_load import FIELDS, INBOUND_MAX, LIMITS, OUTBOUND_PORTS_MAX, TIMEOUTS
from sidecar.config_load import parse as parse_sidecar
from sidecar.describe import describe
from sidecar.supervise import LOCAL_HOSTS
from tests.docs.markdown import DOCS, ROOT, blocks, code, parts, section, table
from tests.docs.markdown import Table as MarkdownTable

PAGE = (DOCS / "configuration.md").read_text()
SECTIONS = {
    "Sidecar": sidecar_config.Config,
    "inbound": sidecar_config.Inbound,
    "outbound": sidecar_config.Outbound,
    "outbound.ports": sidecar_config.OutboundPort,
    "timeouts": sidecar_config.Timeouts,
    "limits": sidecar_config.Limits,
    "tracing": sidecar_config.Tracing,
    "jwks": sidecar_config.Jwks,
    "Control plane": ControlPlaneConfig,
    "Control plane authorities": CaConfig,
    "Control plane limits": control_plane_config.Limits,
}
UNITS = (("_rate_per_s", "per s"), ("_s", "s"), ("_octets", "octets"), ("_octets_max", "octets"))


def documented(title: str) -> dict[str, tuple[str, ...]]:
    """Field -> its row."""
    found = table(section(PAGE, title))
    assert found.columns == ("field", "type", "default", "unit", "meaning")
    return {code(row[0]): row for row in found.rows}


def written_default(field: dataclasses.Field[Any]) -> str:
    """As the page has it."""
    if field.default_factory is not dataclasses.MISSING:
        return "see below"
    if field.default is dataclasses.MISSING:
        return "needed"
    if field.default is None:
        return "none"
    if isinstance(field.default, bool):
        return f"`{str(field.default).lower()}`"
    if field.default in ("", ()):
        return "empty"
    return f"`{field.default}`"


@pytest.mark.parametrize("title", SECTIONS)
def test_the_page_names_every_field_with_its_default(title: str) -> None:
    """And no field that there is not."""
    fields = [field for field in dataclasses.fields(SECTIONS[title]) if field.name != "source"]
    rows = documented(title)
    assert list(rows) == [field.name for field in fields]
    assert {name: row[2] for name, row in rows.items()} == {field.name: written_default(field) for field in fields}


@pytest.mark.parametrize("title", SECTIONS)
def test_the_unit_is_the_one_in_the_name(title: str) -> None:
    """Units stand last in the names, or before `_max`."""
    for name, row in documented(title).items():
        assert row[3] == next((unit for end, unit in UNITS if name.endswith(end)), ""), name


def test_the_sidecar_reads_the_fields_the_page_names() -> None:
    """The dataclass could have fields that no file can set."""
    assert list(documented("Sidecar")) == list(FIELDS)


@pytest.mark.parametrize(("title", "bounds"), [("timeouts", TIMEOUTS), ("limits", LIMITS)])
def test_the_page_names_the_least_and_the_most_of_each_number(title: str, bounds: dict[str, Any]) -> None:
    """As the loader refuses beyond them."""
    found = {name: row[1] for name, row in documented(title).items()}
    assert found == {name: f"{least:.10g} to {most:.10g}" for name, (least, most) in bounds.items()}


def test_the_page_names_the_other_bounds() -> None:
    """Of lists, and of certificates' lives."""
    assert f"At most {INBOUND_MAX}." in documented("Sidecar")["inbound"][4]
    assert f"At most {OUTBOUND_PORTS_MAX}." in documented("outbound")["ports"][4]
    lifetime = documented("Control plane")["certificate_lifetime_s"]
    assert lifetime[1] == f"{CERTIFICATE_LIFETIME_S_MIN} to {CERTIFICATE_LIFETIME_S_MAX}"


def test_the_sidecars_example_is_accepted_and_has_every_field() -> None:
    """It can be copied as it is."""
    (example,) = blocks(section(PAGE, "The sidecar"), "yaml")
    config = parse_sidecar(example.text, "example")
    assert [name for name in FIELDS if not re.search(rf"^{name}:", example.text, re.MULTILINE)] == []
    assert describe(config)["advertise"] == "10.0.0.7:15008"


def test_the_control_planes_example_is_accepted_and_has_every_field() -> None:
    """It can be copied as it is."""
    (example,) = blocks(section(PAGE, "The control plane"), "yaml")
    config = control_plane_config.parse(example.text, "example")
    assert config.operator_socket_path == Path("/run/hauberk/operator.sock")
    names = [field.name for field in dataclasses.fields(config) if field.name not in ("source", "limits")]
    assert [name for name in names if not re.search(rf"^{name}:", example.text, re.MULTILINE)] == []


def test_the_page_names_every_environment_variable() -> None:
    """Those that occur in the code, and no other of ours."""
    found = [part for part in parts(section(PAGE, "Environment")) if isinstance(part, MarkdownTable)]
    named = {code(row[0]) for one in found for row in one.rows}
    packages = ("certs", "sidecar", "control_plane")
    sources = "".join(path.read_text() for package in packages for path in (ROOT / package).rglob("*.py"))
    used = set(re.findall(r'"((?:HAUBERK|OTEL)_[A-Z_]+)"', sources)) - {"HAUBERK_JOIN_TOKEN"}
    assert {name for name in named if name.startswith(("HAUBERK_", "OTEL_"))} == used


def test_the_page_names_what_variables_default_to() -> None:
    """Two that are easily forgotten."""
    assert f"`{DEFAULT_DATA_DIR}`" in PAGE
    assert f"`{LOCAL_HOSTS}`" in PAGE
