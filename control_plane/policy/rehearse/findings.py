"""What lint says: every code with its meaning. Codes are stable; one that is given up is not used again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from control_plane.policy.rehearse.sarif import ERROR, NOTE, WARNING, Code

SELECTS_NOTHING = Code(id="HB001", name="SelectsNothing", text="It selects no known workload.", level=WARNING)
UNKNOWN_CALLER = Code(
    id="HB002", name="UnknownCaller", text="A principal or namespace that no known workload has.", level=WARNING
)
UNKNOWN_PORT = Code(id="HB003", name="UnknownPort", text="A port that no selected workload has.", level=WARNING)
COVERED = Code(
    id="HB010", name="Covered", text="A rule that changes nothing: another of the same action matches all it matches.",
    level=WARNING,
)  # fmt: skip
DENIED_ANYHOW = Code(
    id="HB011", name="DeniedAnyhow", text="An ALLOW rule that allows nothing: a DENY rule matches all it matches.",
    level=ERROR,
)  # fmt: skip
NEVER_MATCHES = Code(
    id="HB012", name="NeverMatches", text="A rule whose conditions contradict each other.", level=ERROR
)
NOBODY_MAY_CALL = Code(id="HB013", name="NobodyMayCall", text="A service that nobody may call.", level=NOTE)
OR_FOR_AND = Code(
    id="HB020", name="OrForAnd", text="List items with one field each: one of them is enough.", level=WARNING
)
SPLIT_RULE = Code(
    id="HB021", name="SplitRule", text="A rule with only `from` and one with only `to`: one of them is enough.",
    level=WARNING,
)  # fmt: skip
NO_FROM = Code(id="HB030", name="AnyCaller", text="An ALLOW rule that is for every caller.", level=WARNING)
WHOLE_NAMESPACE = Code(
    id="HB031", name="WholeNamespace", text="An ALLOW rule for everybody of a namespace, to everything.", level=NOTE
)
EVERYWHERE = Code(id="HB032", name="EveryAddress", text="An address block that holds every address.", level=WARNING)
DENY_BY_NOT = Code(
    id="HB033", name="DenyByNot", text="A DENY rule by `not`: it also denies whoever lacks the attribute.", level=NOTE
)
HTTP_ON_TCP = Code(id="HB040", name="HttpOnTcp", text="HTTP fields in a rule for a TCP port.", level=WARNING)
NO_TOKENS = Code(
    id="HB050", name="NoTokens", text="A rule that asks for a token where no RequestAuthentication takes any.",
    level=ERROR,
)  # fmt: skip
TOKEN_NOT_REQUIRED = Code(
    id="HB051", name="TokenNotRequired", text="Tokens are verified but no rule demands one.", level=WARNING
)
PLAINTEXT = Code(id="HB060", name="PlaintextWithoutEnd", text="Plaintext is taken without an end.", level=WARNING)
APPLY_WARNS = Code(id="HB090", name="ApplyWarns", text="`hauberk apply` warns of it.", level=NOTE)
NOT_COMPARED = Code(
    id="HB099", name="NotCompared", text="There are too many rules to compare each with each.", level=NOTE
)

CODES: Sequence[Code] = (
    SELECTS_NOTHING, UNKNOWN_CALLER, UNKNOWN_PORT, COVERED, DENIED_ANYHOW, NEVER_MATCHES, NOBODY_MAY_CALL, OR_FOR_AND,
    SPLIT_RULE, NO_FROM, WHOLE_NAMESPACE, EVERYWHERE, DENY_BY_NOT, HTTP_ON_TCP, NO_TOKENS, TOKEN_NOT_REQUIRED,
    PLAINTEXT, APPLY_WARNS, NOT_COMPARED,
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing found. `message` says what is wrong, `hint` what to do."""

    code: Code
    place: str
    """"file:line"."""
    subject: str
    """"AuthorizationPolicy shop/orders#0", or a service."""
    message: str
    hint: str
    field: str = ""
    """Of the document; empty: all of it."""
    related: tuple[tuple[str, str], ...] = ()
    """("file:line", what is there)."""

    def __str__(self) -> str:
        where = f"{self.place}: " if self.place else ""
        return f"{where}{self.code.id} {self.code.level}: {self.subject}: {self.message}; {self.hint}"
