"""`hauberk policy lint`: what is legal, and probably not what was meant."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from control_plane.cli.options import reaches_control_plane
from control_plane.cli.verb import CliError, Verb

if TYPE_CHECKING:
    from control_plane.policy.rehearse.findings import Finding
    from control_plane.policy.rehearse.lint import World


@click.command(
    "lint",
    cls=Verb,
    short_help="Find what was probably not meant.",
    examples=(
        "hauberk policy lint policies/",
        "hauberk policy lint policies/ --live --strict",
        "hauberk policy lint --live",
        "hauberk policy lint policies/ --workloads tests/shop.yaml --sarif lint.sarif",
    ),
)
@click.argument("names", metavar="[FILE|DIR]...", nargs=-1)
@click.option(
    "--live", is_flag=True, help="Look at the workloads of the mesh, and at what is applied besides the files."
)
@click.option(
    "--workloads",
    "workload_files",
    multiple=True,
    metavar="FILE",
    help="A PolicyTest that names the workloads, instead of --live.",
)
@click.option("--strict", is_flag=True, help="Exit with 1 for warnings too.")
@click.option(
    "-o",
    "--output",
    type=click.Choice(["table", "json"]),
    default="table",
    show_default=True,
    help="How to print what was found.",
)
@click.option("--sarif", type=click.Path(path_type=Path), metavar="FILE", help="Also write it to FILE as SARIF 2.1.0.")
@reaches_control_plane
def lint(
    names: tuple[str, ...], *, live: bool, workload_files: tuple[str, ...], strict: bool, output: str,
    sarif: Path | None, socket: Path,
) -> int:  # fmt: skip
    """Find what is legal in policies and probably not what was meant.

    Rules that never match or change nothing, a `-` too many, rules that are too wide, tokens that nobody takes or
    demands, plaintext without an end. What asks for the workloads there are needs --live or --workloads. Every finding
    has a code, explained in docs/lint.md. Exits with 1 if there is an error among them. Nothing is changed.
    """
    from control_plane.cli.output import print_data
    from control_plane.cli.policy_sources import tool_version, write_report
    from control_plane.policy.rehearse import lint as linter
    from control_plane.policy.rehearse import sarif as sarif_log
    from control_plane.policy.rehearse.findings import CODES

    if not names and not live:
        raise click.UsageError("name a file or a directory, or look at what is applied with --live")
    if live and workload_files:
        raise click.UsageError("--live and --workloads both name the workloads; leave one of them out")
    found = linter.lint(_world(names, workload_files, socket, live=live))
    if sarif is not None:
        results = [
            sarif_log.Result(
                code=one.code,
                level=one.code.level,
                message=f"{one.subject}: {one.message}; {one.hint}",
                place=one.place,
                related=one.related,
            )
            for one in found
            if one.place
        ]
        write_report(sarif, sarif_log.report(results, CODES, tool_version()))
    if output == "json":
        print_data([_plain(one) for one in found], "json")
    else:
        show(found)
    levels = {one.code.level for one in found}
    return 1 if "error" in levels or (strict and "warning" in levels) else 0


def _world(names: Sequence[str], workload_files: Sequence[str], socket: Path, *, live: bool) -> World:
    """The files, with --live as they would be beside what is applied."""
    from certs.spiffe_id import TrustDomain
    from control_plane.cli import policy_sources as sources
    from control_plane.policy.model import MeshConfigSpec
    from control_plane.policy.rehearse.expectations import TRUST_DOMAIN
    from control_plane.policy.rehearse.lint import World

    resources = sources.resources_of_sources(sources.read(names))
    if names and not resources:
        raise CliError("the files hold no policies; name those that do")
    inhabitants = sources.workloads(workload_files)
    mesh = next((one.spec for one in resources if isinstance(one.spec, MeshConfigSpec)), None)
    trust_domain = TrustDomain(name=(mesh.trust_domain if mesh else None) or TRUST_DOMAIN)
    if inhabitants:
        trust_domain = inhabitants[0].spec.spiffe_id.trust_domain
    if live:
        applied = sources.live(sources.inventory(socket))
        named = {one.key for one in resources}
        resources += [one for one in applied.resources if one.key not in named]
        inhabitants = applied.inhabitants
        trust_domain = applied.trust_domain or trust_domain
    return World(resources=tuple(resources), inhabitants=inhabitants, trust_domain=trust_domain, now=time.time())


def show(found: Sequence[Finding]) -> None:
    """One line each, as compilers write them."""
    from control_plane.cli.output import printable

    colours = {"error": "red", "warning": "yellow", "note": "blue"}
    for one in found:
        if one.place:
            click.echo(printable(f"{one.place}: "), nl=False)
        click.secho(f"{one.code.id} {one.code.level}", fg=colours[one.code.level], nl=False)
        click.echo(printable(f": {one.subject}: {one.message}; {one.hint}"))
    counts = Counter(one.code.level for one in found)
    said = [f"{counts[level]} {level}{'' if counts[level] == 1 else 's'}" for level in colours if counts[level]]
    click.echo(", ".join(said) if said else "nothing found")


def _plain(one: Finding) -> dict[str, object]:
    return {
        "code": one.code.id,
        "name": one.code.name,
        "level": one.code.level,
        "source": one.place,
        "subject": one.subject,
        "field": one.field,
        "message": one.message,
        "hint": one.hint,
        "related": [{"source": place, "text": text} for place, text in one.related],
    }
