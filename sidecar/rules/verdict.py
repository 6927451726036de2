"""What the evaluator answers: leave, or not. Only an authorizer makes a Permit, with the seal that it alone uses."""

from __future__ import annotations

from typing import Final, final

DEFAULT_RULE = "default"

DENY_MATCHED = "a DENY rule matched"
ALLOW_MATCHED = "an ALLOW rule matched"
NO_ALLOW_MATCHED = "no ALLOW rule matched"
DEFAULT_DENY = "no ALLOW policy selects this workload and the default is DENY"
DEFAULT_ALLOW = "no ALLOW policy selects this workload and the default is ALLOW"

SEAL: Final = object()
"""For `sidecar.rules.authz` alone."""


class _Answer:
    """What both answers have. Compared by value, never changed."""

    __slots__ = ("audits", "rule", "shadow", "version")

    rule: str
    """"namespace/name#rule-index", or "default"."""
    version: int
    """Of the snapshot that was decided with."""
    audits: tuple[str, ...]
    """Names of the AUDIT rules that matched."""
    shadow: Verdict | None
    """What would be decided if the policies in shadow were enforced; None: the same."""

    def _set(self, rule: str, version: int, audits: tuple[str, ...], shadow: Verdict | None) -> None:
        for name, value in (("rule", rule), ("version", version), ("audits", audits), ("shadow", shadow)):
            object.__setattr__(self, name, value)

    def _values(self) -> tuple[object, ...]:
        return self.rule, self.version, self.audits, self.shadow

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"a {type(self).__name__} does not change")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, type(self)):
            return NotImplemented
        return self._values() == other._values()

    def __hash__(self) -> int:
        return hash(self._values())


@final
class Permit(_Answer):
    """Leave to open one upstream exchange. Only an authorizer makes them; opening an upstream takes one."""

    __slots__ = ()

    def __init__(
        self, seal: object, rule: str, version: int, audits: tuple[str, ...] = (), shadow: Verdict | None = None
    ) -> None:
        if seal is not SEAL:
            raise TypeError("a Permit is made by an Authorizer only")
        self._set(rule, version, audits, shadow)

    def __reduce__(self) -> str:
        raise TypeError("a Permit is made by an Authorizer only")

    def __repr__(self) -> str:
        return f"<Permit by {self.rule} at version {self.version}>"


@final
class Denied(_Answer):
    """No. `reason` is one of this module's constants."""

    __slots__ = ("reason",)

    reason: str

    def __init__(
        self, *, rule: str, reason: str, version: int, audits: tuple[str, ...] = (), shadow: Verdict | None = None
    ) -> None:
        self._set(rule, version, audits, shadow)
        object.__setattr__(self, "reason", reason)

    def _values(self) -> tuple[object, ...]:
        return *super()._values(), self.reason

    def __repr__(self) -> str:
        return f"<Denied by {self.rule} at version {self.version}: {self.reason}>"


Verdict = Permit | Denied


def annotated(verdict: Verdict, audits: tuple[str, ...], shadow: Verdict | None) -> Verdict:
    """The same verdict with what is to be told of it."""
    if not audits and shadow is None:
        return verdict
    if isinstance(verdict, Permit):
        return Permit(SEAL, verdict.rule, verdict.version, audits, shadow)
    return Denied(rule=verdict.rule, reason=verdict.reason, version=verdict.version, audits=audits, shadow=shadow)
