"""`hauberk policy test`: are calls decided as expected? Without a control plane, before anything is applied."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from control_plane.cli.verb import Verb

if TYPE_CHECKING:
    from collections.abc import Sequence

    from control_plane.policy.rehearse import sarif
    from control_plane.policy.rehearse.trial import Result


@click.command(
    "test",
    cls=Verb,
    short_help="Check policies against expectations.",
    examples=(
        "hauberk policy test tests/shop.yaml",
        "hauberk policy test tests/ --policies policies/",
        "hauberk policy test tests/ --junit policy.xml --sarif policy.sarif",
    ),
)
@click.argument("names", metavar="FILE...", nargs=-1, required=True)
@click.option(
    "--policies",
    multiple=True,
    metavar="FILE|DIR",
    help="Policies to be tested, besides those that the tests name. May be given more than once.",
)
@click.option(
    "-o",
    "--output",
    type=click.Choice(["table", "json"]),
    default="table",
    show_default=True,
    help="How to print the results.",
)
@click.option("--junit", type=click.Path(path_type=Path), metavar="FILE", help="Also write JUnit XML to FILE.")
@click.option("--sarif", type=click.Path(path_type=Path), metavar="FILE", help="Also write what failed as SARIF 2.1.0.")
def test(
    names: tuple[str, ...],
    *,
    policies: tuple[str, ...],
    output: str,
    junit: Path | None,
    sarif: Path | None,
) -> int:
    """Check policies against expectations: who may call what, and which rule says so.

    FILE holds documents of kind PolicyTest, and maybe policies beside them; a directory stands for the files in it.
    Nothing is sent anywhere: the policies are compiled and judged here by the code that does it in the mesh. Exits with
    0 if everything is as expected, with 1 if not.
    """
    from control_plane.cli.output import print_data
    from control_plane.cli.policy_sources import read, read_beside, refusing, tool_version, write_report
    from control_plane.policy.rehearse import junit as junit_xml
    from control_plane.policy.rehearse.sarif import report
    from control_plane.policy.rehearse.sources import resources_of
    from control_plane.policy.rehearse.trial import run, trials_of

    now = time.time()
    results: list[Result] = []
    with refusing():
        given = resources_of(read(policies))
        for source in read(names):
            for trial in trials_of(source, given, read_beside):
                results += run(trial, now)
    failed = [one for one in results if not one.holds]
    write_report(junit, junit_xml.report(results))
    if sarif is not None:
        write_report(sarif, report(map(_finding, failed), [_code()], tool_version()))
    if output == "json":
        data = {"calls": len(results), "failed": len(failed), "results": list(map(_plain, results))}
        print_data(data, "json")
    else:
        show(results, failed)
    return 1 if failed else 0


def show(results: Sequence[Result], failed: Sequence[Result]) -> None:
    """What failed and why, and how much held."""
    from control_plane.cli.output import printable
    from control_plane.policy.rehearse.trial import decided_by, nearest

    for one in failed:
        click.secho("FAILED ", fg="red", bold=True, nl=False)
        click.echo(printable(f"{one.expectation.source}: {one.title}"))
        for line in (*one.faults, decided_by(one.outcome), *nearest(one.outcome)):
            click.echo(printable(f"    {line}"))
    expectations = {(one.test.source, one.expectation.source) for one in results}
    said = f"{len(expectations)} {_plural('expectation', expectations)}, {len(results)} {_plural('call', results)}"
    click.echo(f"{said}: {len(failed)} failed" if failed else f"{said}: all as expected")


def _plural(word: str, what: Sequence[object] | set[tuple[str, str]]) -> str:
    return word if len(what) == 1 else word + "s"


def _plain(one: Result) -> dict[str, object]:
    from control_plane.policy.rehearse.trial import nearest, verdict

    expected, outcome = one.expectation, one.outcome
    return {
        "test": one.test.name,
        "name": expected.name,
        "source": expected.source,
        "call": one.case.title,
        "holds": one.holds,
        "faults": list(one.faults),
        "verdict": verdict(outcome.allowed),
        "rule": outcome.rule,
        "rule_source": outcome.source,
        "reason": outcome.reason,
        "shadow_verdict": verdict(outcome.shadow_allowed),
        "shadow_rule": outcome.shadow_rule,
        "nearest": [line.strip() for line in nearest(outcome)],
    }


def _code() -> sarif.Code:
    from control_plane.policy.rehearse.sarif import ERROR, Code

    return Code(id="HBT001", name="PolicyExpectation", text="A call is not decided as expected.", level=ERROR)


def _finding(one: Result) -> sarif.Result:
    from control_plane.policy.rehearse import sarif
    from control_plane.policy.rehearse.trial import decided_by, nearest

    outcome = one.outcome
    related = [(outcome.source, f"decided: {decided_by(outcome)}")] if outcome.source else []
    explanation = outcome.explanation
    if explanation is not None and explanation.near_misses and explanation.near_misses[0].source:
        miss = explanation.near_misses[0]
        related.append((miss.source, f"came nearest: {miss.rule}"))
    message = "\n".join([f"{one.title}: {'; '.join(one.faults)}", decided_by(outcome), *nearest(outcome)])
    return sarif.Result(code=_code(), level=sarif.ERROR, message=message, place=one.expectation.source, related=related)
