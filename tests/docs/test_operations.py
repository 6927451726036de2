"""docs/operations.md against the code: metrics, log fields, answers, admin pages, ports, files."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from control_plane import app
from control_plane.ca import kek
from control_plane.cli.main import INTERRUPTED
from control_plane.config import ControlPlaneConfig
from sidecar.admin import ADMIN, HEALTH
from sidecar.app import Sidecar
from sidecar.child import EXIT_NOT_EXECUTABLE, EXIT_NOT_FOUND
from sidecar.config import Config
from sidecar.errors import RequestError
from sidecar.http import http1_head
from sidecar.membership import Membership
from sidecar.telemetry import names
from sidecar.telemetry.metrics import Metrics
from tests.docs.markdown import DOCS, Table, code, codes, parts, section, table

PAGE = (DOCS / "operations.md").read_text()
# Names of the first rows of `names`, which are no metrics.
METRIC_PREFIXES = ("hauberk_", "process_")


def rows(title: str) -> list[tuple[str, ...]]:
    """Of the first table of a section."""
    first = next(part for part in parts(section(PAGE, title)) if isinstance(part, Table))
    return list(first.rows)


def test_the_page_names_every_metric_with_type_and_labels() -> None:
    """As a scrape shows them, and as `names` has them."""
    metrics = Metrics(version="1")
    metrics.request_done("inbound", status=200, peer="x", duration_s=0.1)
    metrics.refused("F01", "tls")
    metrics.audited("x", "shop/audit#0")
    metrics.shadow("x", "deny", "shop/new#0")
    metrics.connection_opened("mesh_server")
    shown: dict[str, tuple[str, set[str]]] = {}
    for family in text_string_to_metric_families(metrics.export().decode()):
        labels = {label for sample in family.samples for label in sample.labels} - {"le"}
        name = f"{family.name}_total" if family.type == "counter" else family.name
        shown[name] = (family.type, labels)
    documented = {code(row[0]): (row[1], set(codes(row[2]))) for row in table(section(PAGE, "Metrics")).rows}
    assert documented == shown
    named = {value for value in vars(names).values() if isinstance(value, str) and value.startswith(METRIC_PREFIXES)}
    assert {name.removesuffix("_total") for name in documented} == named


def test_the_page_names_every_field_of_the_access_log() -> None:
    """Whatever `names` calls a field of a line."""
    fields = {value for name, value in vars(names).items() if name.startswith("LOG_")}
    assert {code(row[0]) for row in rows("Access log")} == fields


def subclasses(kind: type[RequestError]) -> Iterator[type[RequestError]]:
    for one in kind.__subclasses__():
        if one.__module__.startswith("sidecar."):
            yield one
            yield from subclasses(one)


def test_the_page_names_every_answer_a_sidecar_gives() -> None:
    """With the statuses and the title of its error class."""
    assert http1_head.UriTooLong in set(subclasses(RequestError))
    classes: list[type[RequestError]] = [RequestError, *subclasses(RequestError)]
    wanted = {(f"`{one.reason}`", str(one.http_status), str(one.grpc_status), one.title) for one in classes}
    assert set(rows("Answers of the sidecar")) == wanted


def test_the_page_names_every_admin_page() -> None:
    """And on which of the two listeners it is."""
    documented = {code(row[0]): row[2] for row in rows("Admin pages")}
    assert documented == {page: "admin, health" if page in HEALTH.pages else "admin" for page in ADMIN.pages}


def test_the_page_names_what_can_be_missing_to_be_ready() -> None:
    """The words of /ready, of a sidecar that has nothing yet and of what it has."""
    words = set(codes(section(PAGE, "Admin pages").split("Words of `/ready`:")[1]))
    source = (*Sidecar.missing.__code__.co_consts, *Membership.missing.__code__.co_consts)
    there = {word for const in source for word in (const if isinstance(const, tuple) else (const,))}
    assert words <= there
    certificate = {"certificate", "certificate_valid", "certificate_stale"}
    assert words == {*certificate, "snapshot", "listeners", "app", "staying"}


def test_the_page_names_every_port() -> None:
    """The defaults of both configurations."""
    sidecar = Config(service="x")
    assert sidecar.outbound.listen is not None
    assert sidecar.health is not None
    addresses = [sidecar.admin, sidecar.outbound.listen, sidecar.mesh_listen, sidecar.health]
    control_plane = ControlPlaneConfig(data_dir=Path())
    documented = {row[0]: row[1] for row in rows("Ports")}
    wanted = {
        str(one.port): "sidecar, loopback" if ipaddress.ip_address(one.host).is_loopback else "sidecar"
        for one in addresses
    }
    wanted |= {str(one.port): "control plane" for one in (control_plane.listen, control_plane.join_listen)}
    assert documented == wanted


def test_the_page_names_the_files_of_the_data_directory() -> None:
    """That they are all, and their modes, is seen in a real one: tests/docs/test_readme.py."""
    documented = {code(row[0]) for row in rows("Files")}
    assert {app.STORE_NAME, app.AUDIT_NAME, kek.KEK_NAME, "operator.sock"} <= documented


def test_the_page_names_the_exit_codes() -> None:
    """Those that have a name in the code."""
    found = {(code(row[0]), row[1]) for row in rows("Exit codes")}
    assert ("hauberk run", str(EXIT_NOT_EXECUTABLE)) in found
    assert ("hauberk run", str(EXIT_NOT_FOUND)) in found
    assert ("", str(INTERRUPTED)) in found


def test_the_page_names_the_times_that_matter() -> None:
    """How long an endpoint outlives its sidecar."""
    config = ControlPlaneConfig(data_dir=Path())
    assert f"stay {config.restart_grace_s:g} s (`restart_grace_s`)" in PAGE
    assert f"for {config.endpoint_lost_s:g} s (`endpoint_lost_s`)" in PAGE
