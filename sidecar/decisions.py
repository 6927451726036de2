"""Denials, and what the policies in shadow would have decided otherwise, on their way to the control plane. Sans-IO.

An operator who is told the id of a decision asks the control plane about it (`hauberk explain --decision`), so each is
reported there with what policies saw. Best effort, and bounded everywhere: what comes faster than `RATE_PER_S` is only
counted, and of what waits the newest `WAITING_MAX` are kept. A report holds nothing that no policy asks for, and never
the value of a header that usually carries a secret.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from protos.hauberk.v1 import discovery_pb2 as pb
from sidecar.rules.addresses import remote_address
from sidecar.rules.facts import Facts, Token
from sidecar.rules.header_names import folded
from sidecar.rules.secrets import is_secret
from sidecar.rules.verdict import Denied, Verdict

if TYPE_CHECKING:
    from sidecar.rules.authz import Authorizer
    from sidecar.rules.snapshot import Snapshot

RATE_PER_S = 100.0
BURST = 200
WAITING_MAX = 1_000
BATCH_MAX = 100
"""In one message (discovery.proto)."""

PATH_CHARACTERS_MAX = 2_048
VALUE_CHARACTERS_MAX = 256
HEADERS_MAX = 32
CLAIMS_CHARACTERS_MAX = 4_096
MEMBERS_MAX = 64
"""Of a claim that is a list."""


class Decisions:
    """What waits to be reported."""

    def __init__(
        self, clock: Callable[[], float], bits: Callable[[int], int], on_drop: Callable[[], None] = lambda: None
    ) -> None:
        """`clock`: monotonic seconds. `bits(64)`: so many that nobody can guess. `on_drop` is told of each lost."""
        self._clock = clock
        self._bits = bits
        self._on_drop = on_drop
        self._waiting: deque[pb.Decision] = deque()
        self._left, self._then = float(BURST), clock()
        self.dropped = 0
        """Since the last report."""

    def __repr__(self) -> str:
        return f"<Decisions {len(self._waiting)} waiting, {self.dropped} dropped>"

    def __len__(self) -> int:
        return len(self._waiting)

    def new_id(self) -> str:
        """That nobody can guess."""
        return f"{self._bits(64):016x}"

    def admits_one(self) -> bool:
        """Whether one more may be added now; ask before putting it together. A no is counted."""
        now = self._clock()
        self._left = min(float(BURST), self._left + max(0.0, now - self._then) * RATE_PER_S)
        self._then = now
        if self._left < 1.0:
            self._drop()
            return False
        self._left -= 1.0
        return True

    def add(self, decision: pb.Decision) -> None:
        if len(self._waiting) >= WAITING_MAX:
            self._waiting.popleft()  # people ask about the newest
            self._drop()
        self._waiting.append(decision)

    def _drop(self) -> None:
        self.dropped += 1
        self._on_drop()

    def take(self) -> pb.Decisions | None:
        """The oldest that wait, at most BATCH_MAX; None: there is nothing to tell. Taken is as good as reported."""
        if not self._waiting and not self.dropped:
            return None
        batch = [self._waiting.popleft() for _ in range(min(BATCH_MAX, len(self._waiting)))]
        message = pb.Decisions(decisions=batch, dropped_count=self.dropped)
        self.dropped = 0
        return message


def describe(
    facts: Facts, verdict: Verdict, snapshot: Snapshot, authorizer: Authorizer, *, decision_id: str, at: float
) -> pb.Decision:
    """One decision as it is reported: a denial, or a permit whose `shadow` differs. `at` in Unix seconds.

    Snapshot and authorizer are those in force; by them it is known what policies look at."""
    is_denial = isinstance(verdict, Denied)
    told = verdict if is_denial or verdict.shadow is None else verdict.shadow
    return pb.Decision(
        id=decision_id,
        at=at,
        epoch=snapshot.epoch,
        version=verdict.version,
        allowed=not is_denial,
        rule=_clipped(told.rule),
        reason=told.reason if isinstance(told, Denied) else "",
        asked=pb.Asked(
            principal=str(facts.principal) if facts.principal else "",
            source_ip=facts.source_ip,
            remote_ip=_remote_ip(facts, snapshot.trusted_proxies_count),
            destination_ip=facts.destination_ip,
            sni=_clipped(facts.sni),
            host=_clipped(facts.host),
            port=facts.port,
            method=facts.method,
            path=facts.path[:PATH_CHARACTERS_MAX],
            headers=_headers(facts.headers, authorizer.header_names),
            claims_json=_claims(facts.token, authorizer.claim_names) if facts.token else "",
        ),
        shadow=told is not verdict,
    )


def _clipped(text: str) -> str:
    return text[:VALUE_CHARACTERS_MAX]


def _remote_ip(facts: Facts, trusted_proxies_count: int) -> str:
    if not trusted_proxies_count:
        return facts.source_ip
    return remote_address([value for name, value in facts.headers if name == "x-forwarded-for"], trusted_proxies_count)


def _headers(headers: Iterable[tuple[str, str]], names: frozenset[str]) -> list[pb.Header]:
    wanted = {folded(name) for name in names}
    told = [
        pb.Header(name=name, hidden=True) if is_secret(folded(name)) else pb.Header(name=name, value=_clipped(value))
        for name, value in headers
        if folded(name) in wanted
    ]
    return told[:HEADERS_MAX]


def _claims(token: Token, names: frozenset[tuple[str, ...]]) -> str:
    """A JSON object: who the token is of and for, and the claims that policies name as far as there is room."""
    told: dict[str, object] = {"iss": _clipped(token.issuer)}
    if token.subject:
        told["sub"] = _clipped(token.subject)
    told["aud"] = [_clipped(one) for one in token.audiences[:MEMBERS_MAX]]
    if token.presenter:
        told["azp"] = _clipped(token.presenter)
    text = json.dumps(told)
    for path in sorted(names):
        texts = [_clipped(one) for one in token.claim(path)[:MEMBERS_MAX]]
        if not texts or not _put(told, path, texts):
            continue
        with_it = json.dumps(told)
        if len(with_it) > CLAIMS_CHARACTERS_MAX:
            break
        text = with_it
    return text


def _put(claims: dict[str, object], path: tuple[str, ...], value: object) -> bool:
    """False: something else is there already."""
    for name in path[:-1]:
        inner = claims.setdefault(name, {})
        if not isinstance(inner, dict):
            return False
        claims = inner
    if path[-1] in claims:
        return False
    claims[path[-1]] = value
    return True
