"""Expectations held against a mesh on paper."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from certs.spiffe_id import TrustDomain
from control_plane.policy import documents
from control_plane.policy.model import MeshConfigSpec, ParsedResource, PolicyErrors, PolicyProblem
from control_plane.policy.parse import MESH_KIND
from control_plane.policy.reader import Problems
from control_plane.policy.rehearse.expectations import Case, Expectation, PolicyTest, read_test
from control_plane.policy.rehearse.mesh import Outcome, PaperMesh
from control_plane.policy.rehearse.sources import TEST_KIND, Source, refuse_twice, resources_of, split
from sidecar.rules.errors import DecodeError
from sidecar.rules.explain import ConditionResult

ReadPolicies = Callable[[str, str], Sequence[Source]]
"""(the test's file, a path that it names) -> the files meant."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """A test and what it is about."""

    test: PolicyTest
    resources: tuple[ParsedResource, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One call of one expectation."""

    test: PolicyTest
    expectation: Expectation
    case: Case
    outcome: Outcome
    faults: tuple[str, ...]
    """What is not as expected; none: it holds."""

    @property
    def holds(self) -> bool:
        return not self.faults

    @property
    def title(self) -> str:
        name, call = self.expectation.name, self.case.title
        return f"{name} [{call}]" if name else call


def trials_of(source: Source, given: Sequence[ParsedResource], read_policies: ReadPolicies) -> list[Trial]:
    """The tests of one file, each with the policies it names, those in its own file, and those `given`.

    Raises PolicyErrors: of the file itself, or of the policies."""
    held = split(source)
    if not held.tests:
        hint = f"write one (kind: {TEST_KIND}), or hand policies over with --policies"
        problem = PolicyProblem(file=source.name, line=1, column=1, field="", message=f"no {TEST_KIND}", hint=hint)
        raise PolicyErrors((problem,))
    return [_trial(document, source.name, held.resources, given, read_policies) for document in held.tests]


def _trial(
    document: documents.Document,
    file: str,
    inline: Sequence[ParsedResource],
    given: Sequence[ParsedResource],
    read_policies: ReadPolicies,
) -> Trial:
    problems = Problems(file)
    test = read_test(document, file, problems, None)
    problems.raise_if_any()
    sources = {one.name: one for path in test.policies for one in read_policies(file, path) if one.name != file}
    known = {one.source for one in given}
    named = [one for one in resources_of(sources.values()) if one.source not in known]
    resources = [*inline, *given, *named]
    refuse_twice(resources)
    mesh = next((one for one in resources if isinstance(one.spec, MeshConfigSpec)), None)
    if mesh is None:
        if test.default_action is not None:
            resources.append(_mesh_of(test))
        return Trial(test=test, resources=tuple(resources))
    assert isinstance(mesh.spec, MeshConfigSpec)
    _refuse_contradiction(document, test, mesh.spec, mesh.source, problems)
    if mesh.spec.trust_domain is not None and not test.says_trust_domain:
        test = read_test(document, file, problems, TrustDomain(name=mesh.spec.trust_domain))
    problems.raise_if_any()
    return Trial(test=test, resources=tuple(resources))


def _mesh_of(test: PolicyTest) -> ParsedResource:
    """The MeshConfig that a test describes."""
    assert test.default_action is not None
    spec = MeshConfigSpec(default_action=test.default_action)
    return ParsedResource(kind=MESH_KIND, namespace="", name="default", spec=spec, yaml="", source=test.source)


def _refuse_contradiction(
    document: documents.Document, test: PolicyTest, mesh: MeshConfigSpec, source: str, problems: Problems
) -> None:
    hint = "remove it here"
    if mesh.trust_domain not in (None, test.trust_domain.name) and test.says_trust_domain:
        message = f"{source} says {mesh.trust_domain}"
        problems.add(document.root, "spec.trustDomain", message, hint)
    if test.default_action not in (None, mesh.default_action):
        message = f"{source} says {mesh.default_action.value}"
        problems.add(document.root, "spec.defaultAction", message, hint)


def run(trial: Trial, now: float) -> Iterator[Result]:
    """Every call of every expectation, in order. `now`: Unix seconds, unless the test says.

    Raises PolicyErrors for policies that no sidecar would take."""
    test = trial.test
    mesh = PaperMesh(trial.resources, test.inhabitants, test.trust_domain, now if test.now is None else test.now)
    for expectation in test.expectations:
        for case in expectation.cases:
            try:
                outcome = mesh.judge(case.to, case.call)
            except DecodeError as error:
                file, _, line = test.source.rpartition(":")
                message = f"a sidecar of {case.to.service_name} would refuse the policies: {error}"
                problem = PolicyProblem(file=file, line=int(line), column=1, field="", message=message)
                raise PolicyErrors((problem,)) from error
            faults = tuple(_faults(expectation, outcome))
            yield Result(test=test, expectation=expectation, case=case, outcome=outcome, faults=faults)


def _faults(expected: Expectation, outcome: Outcome) -> Iterator[str]:
    if expected.allowed is not None and expected.allowed != outcome.allowed:
        yield f"expected {verdict(expected.allowed)}, got {verdict(outcome.allowed)}"
    if expected.rule and not _is_rule(expected.rule, outcome.rule):
        yield f"expected {expected.rule} to decide, but {outcome.rule} did"
    shadow = expected.shadow_allowed
    if shadow is not None and shadow != outcome.shadow_allowed:
        by = f" by {outcome.shadow_rule}"
        yield f"expected {verdict(shadow)} with the policies in shadow, got {verdict(outcome.shadow_allowed)}{by}"


def _is_rule(wanted: str, rule: str) -> bool:
    return wanted == (rule if "#" in wanted else rule.partition("#")[0])


def verdict(allowed: bool) -> str:
    return "allow" if allowed else "deny"


def decided_by(outcome: Outcome) -> str:
    """ "allow by shop/orders#0 (orders.yaml:12): an ALLOW rule matched"."""
    where = f" ({outcome.source})" if outcome.source else ""
    return f"{verdict(outcome.allowed)} by {outcome.rule}{where}: {outcome.reason}"


def nearest(outcome: Outcome) -> list[str]:
    """What came nearest to another verdict: of a denial the conditions that failed of the ALLOW rule that lacked
    least, of anything else the conditions that matched of the rule that decided."""
    explanation = outcome.explanation
    if explanation is None:
        return []
    if explanation.near_misses:
        miss = explanation.near_misses[0]
        failed = [_condition(one) for one in miss.conditions if not one.matched]
        return [f"nearest: {miss.rule} ({miss.source})", *(f"  lacks {one}" for one in failed)]
    return [f"  matched {_condition(one)}" for one in explanation.conditions]


def _condition(one: ConditionResult) -> str:
    return f"{one.field}: wanted {', '.join(one.wanted)}; got {one.got or '(nothing)'}"
