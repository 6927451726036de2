"""What the verbs of `hauberk policy` read: files of policies and tests, and where they write their reports."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from certs.spiffe_id import SpiffeId, TrustDomain
from control_plane.cli import files
from control_plane.cli.verb import CliError
from control_plane.model import WorkloadSpec
from control_plane.policy.model import ParsedResource, PolicyErrors
from control_plane.policy.reader import Problems
from control_plane.policy.rehearse.expectations import read_test
from control_plane.policy.rehearse.mesh import Inhabitant
from control_plane.policy.rehearse.sources import Source, resources_of, split
from sidecar.rules.snapshot import Protocol

if TYPE_CHECKING:
    from protos.hauberk.v1 import config_pb2


def read(names: Iterable[str]) -> list[Source]:
    """Files, directories and `-`, each file once. Raises CliError."""
    return [Source(name=one.name, text=one.text) for one in files.read_sources(names)]


def read_beside(file: str, path: str) -> list[Source]:
    """What a file names, relative to where it is. Raises CliError."""
    return read([str(Path(file).parent / path)])


@contextmanager
def refusing() -> Generator[None, None, None]:
    """Documents that are wrong end a verb as everywhere: every problem with its place."""
    try:
        yield
    except PolicyErrors as error:
        raise CliError(str(error)) from None


def write_report(path: Path | None, text: str) -> None:
    """Raises CliError."""
    if path is None:
        return
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise CliError(f"{path}: cannot be written ({error.strerror}); choose another file") from None


def tool_version() -> str:
    from importlib.metadata import version

    return version("hauberk")


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One set of policies."""

    resources: tuple[ParsedResource, ...]
    inhabitants: tuple[Inhabitant, ...] = ()
    """Of the control plane that it came from; none: it came from files."""
    trust_domain: TrustDomain | None = None


def inventory(socket: Path) -> config_pb2.InventoryResponse:
    """Asks the control plane. Raises CliError."""
    from control_plane.cli.client import Client
    from protos.hauberk.v1 import config_pb2

    with Client(socket) as control_plane:
        return control_plane.call("Config/Inventory", config_pb2.InventoryRequest(), config_pb2.InventoryResponse)


def live(answer: config_pb2.InventoryResponse) -> Side:
    """What is applied, and who there is."""
    trust_domain = TrustDomain(name=answer.trust_domain)
    inhabitants = []
    for member in answer.members:
        identity = SpiffeId.parse(member.spiffe_id)
        spec = WorkloadSpec(
            spiffe_id=identity,
            service=member.service,
            namespace=member.namespace,
            service_account=identity.service_account or "",
            labels=dict(member.labels),
        )
        inhabitants.append(Inhabitant(spec=spec, ports=dict.fromkeys(member.ports, Protocol.HTTP1)))
    return Side(resources=tuple(applied(answer.resources)), inhabitants=tuple(inhabitants), trust_domain=trust_domain)


def version(number: int, socket: Path) -> tuple[ParsedResource, ...]:
    """What was applied at a version. Raises CliError."""
    from control_plane.cli.client import Client
    from protos.hauberk.v1 import config_pb2

    request = config_pb2.HistoryRequest(version=number)
    with Client(socket) as control_plane:
        answer = control_plane.call("Config/History", request, config_pb2.HistoryResponse)
    if not answer.entries:
        raise CliError(f"there is no version {number}; see which there are with `hauberk policy history`")
    return tuple(applied(answer.entries[0].resources))


def applied(resources: Iterable[config_pb2.Resource]) -> list[ParsedResource]:
    """Resources that a control plane holds, with the places they had in the operator's files. Raises CliError."""
    return resources_of_sources(_in_its_place(one) for one in resources)


def resources_of_sources(sources: Iterable[Source]) -> list[ParsedResource]:
    with refusing():
        return resources_of(sources)


def _in_its_place(resource: config_pb2.Resource) -> Source:
    """The document alone, after as many empty lines as it had others before it."""
    file, _, line = resource.source.rpartition(":")
    before = int(line) - 1 if line.isascii() and line.isdigit() else 0
    for text in resource.yaml.splitlines():  # the document's line is that of its first key
        if text.strip() and not text.lstrip().startswith("#"):
            break
        before -= 1
    return Source(name=file or resource.source, text="\n" * max(before, 0) + resource.yaml)


def workloads(names: Iterable[str]) -> tuple[Inhabitant, ...]:
    """Those that PolicyTests describe. Raises CliError."""
    found: dict[str, Inhabitant] = {}
    with refusing():
        for source in read(names):
            for document in split(source).tests:
                problems = Problems(source.name)
                test = read_test(document, source.name, problems, None)
                problems.raise_if_any()
                found |= {one.service_name: one for one in test.inhabitants}
    return tuple(found.values())
