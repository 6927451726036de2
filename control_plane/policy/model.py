"""Resources as values, and what is wrong with one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from control_plane.errors import InvalidRequest
from sidecar.rules.snapshot import Action, AuthorizationPolicy

PROBLEMS_MAX = 100
"""Reported at once; a thousand would help nobody."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicySpec:
    """An AuthorizationPolicy and whom it selects."""

    policy: AuthorizationPolicy
    selector: Mapping[str, str]
    """Labels a workload must all have; empty: every workload of the policy's namespace."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MeshConfigSpec:
    """What holds for the whole mesh. Its defaults are the ones in force while no MeshConfig is applied."""

    trust_domain: str | None = None
    """None: the one the control plane was started with."""
    certificate_lifetime_s: int = 3600
    default_action: Action = Action.DENY


Spec = PolicySpec | MeshConfigSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class ParsedResource:
    """One valid document."""

    kind: str
    """"AuthorizationPolicy" or "MeshConfig"."""
    namespace: str
    """Empty for what is cluster-wide."""
    name: str
    spec: Spec
    yaml: str = field(repr=False)
    """This document's text, without the line "---"."""
    source: str
    """"file:line"."""
    warnings: tuple[str, ...] = ()
    """Legal, but probably not what was meant."""

    @property
    def key(self) -> tuple[str, str, str]:
        return self.kind, self.namespace, self.name


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyProblem:
    """One thing that is wrong, where, and what to do about it."""

    file: str
    line: int
    """From 1; 0 when the whole file is meant."""
    column: int
    """From 1; 0 when the whole file is meant."""
    field: str
    """"spec.rules[0].from[1].source.principals[0]"; empty when the document is meant."""
    message: str
    hint: str = ""

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}:{self.column}"
        what = f"{self.field}: {self.message}" if self.field else self.message
        return f"{where}: {what}; {self.hint}" if self.hint else f"{where}: {what}"


class PolicyErrors(InvalidRequest):  # several of them, which a name in -Error would hide
    """Documents that will not be applied, none of them. Its text is one problem a line."""

    def __init__(self, problems: tuple[PolicyProblem, ...]) -> None:
        assert problems, "refused without a reason"
        super().__init__("\n".join(map(str, problems)))
        self.problems = problems
