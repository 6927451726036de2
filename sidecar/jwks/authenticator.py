"""Who is the user? One request: find its token, verify it or say no, take it out, put its claims into headers.

Theory of operation
-------------------
RequestAuthentication refuses bad tokens; it demands none (Istio's meaning). A request without a token goes on without
a user, and AuthorizationPolicy says whether that is enough. A token that is there must hold: malformed, expired, of an
issuer nobody lists, two at once: 401 (security.md E18).

Tokens are checked when a request begins. When a new snapshot comes, `again` says who the user of an open exchange is
under its rules: the same if the rule that took the token is still there, else the token must hold once more, with what
keys there are.

Where the keys are not there yet, or a key id is new, a request waits for the fetch that may bring them: as many at once
as for any upstream, and no longer than the fetch can last. There is always an end: no keys, no entry (E19).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from random import Random
from typing import Protocol

from sidecar.authentication import Waiting
from sidecar.config import Config
from sidecar.errors import KeysUnavailable, RequestError, Unauthorized
from sidecar.http.fields import folded
from sidecar.http.headers import RequestHead
from sidecar.http.session import Field
from sidecar.jwks.keeper import Keeper
from sidecar.jwks.memory import Memory
from sidecar.jwks.places import Place, Places, Presented
from sidecar.jwks.store import KeyStore
from sidecar.rules.facts import Json, Token
from sidecar.rules.jwt import KeysMissing, TokenRefused, UnknownKey, Verified, verify
from sidecar.rules.snapshot import JwtRule, RequestAuthentication

LEGS = 2
"""Of a fetch: configuration and keys, each in its own time."""
HEADER_OCTETS_MAX = 8_192


class User:
    """Whose token an exchange carried, until it ends."""

    __slots__ = ("place", "text", "verified")

    def __init__(self, text: str, place: Place, verified: Verified) -> None:
        self.text = text
        self.place = place
        self.verified = verified

    def __repr__(self) -> str:
        return f"<User of {self.verified.token.issuer}>"  # never the token


class Waiter(Protocol):
    """A request that waits for keys. One of the two is called, once, unless it is `forget`ten."""

    def keys_came(self) -> None: ...
    def keys_failed(self, error: RequestError) -> None: ...


class Authenticator:
    """One per process; `use` gives it the rules of each snapshot."""

    def __init__(
        self,
        config: Config,
        rng: Random,
        clock: Callable[[], float],
        spawn: Callable[..., None],
        flush: Callable[[], None],
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        """`clock`: monotonic seconds; `wall_clock`: Unix seconds."""
        self._clock = clock
        self._wall_clock = wall_clock
        self._flush = flush
        self._waiting: dict[Keeper, dict[Waiter, float]] = {}
        """Until when."""
        self._waiting_max = config.limits.waiting_exchanges_max
        self._memory = Memory()
        self._rules: dict[JwtRule, JwtRule] = {}
        self._places = Places(())
        self.outputs: frozenset[bytes] = frozenset()
        """Names, as `folded`, of the headers that carry claims."""
        self._suspects: frozenset[bytes] = frozenset()
        """And of those in which tokens stand."""
        self.store = KeyStore(config.jwks, rng, clock, spawn, self._news)

    def __repr__(self) -> str:
        return f"<Authenticator {len(self._rules)} rules, {len(self._memory)} tokens, {self.waiting_count} waiting>"

    @property
    def waiting_count(self) -> int:
        return sum(map(len, self._waiting.values()))

    def use(self, authentications: Sequence[RequestAuthentication]) -> None:
        """The rules of a new snapshot. One that is equal to a former one stays the same object, and what it took with
        it; none: forget everything."""
        known = self._rules
        rules = [rule for one in authentications for rule in one.jwt_rules]
        self._rules = {}
        for rule in rules:
            self._rules.setdefault(rule, known.get(rule, rule))
        in_force = list(self._rules.values())
        self._places = Places(in_force)
        self.outputs = frozenset(folded(name.encode()) for rule in in_force for name in _output_names(rule))
        self._suspects = self.outputs | self._places.folded_headers
        if not in_force:
            self._memory.clear()
        self.store.keep(in_force)

    # A request

    def admit(self, waiter: Waiter, head: RequestHead, *, is_exposed: bool) -> User | None:
        """The user of a request that begins; its head is changed to what may cross: without the token (unless its
        rule forwards it), with the headers its rule makes of it.

        `is_exposed`: it came without TLS from another machine. Whoever heard the token on its way could use it, so it
        is refused (E26). Raises Unauthorized, KeysUnavailable; or Waiting: the waiter will be told to come again."""
        try:
            presented = self._places.find(head)
            if presented is None:
                self._clean(head)
                return None
            if is_exposed:
                raise TokenRefused("E26", "plaintext")
            verified = self._verify(presented.text, presented.place)
        except TokenRefused as e:
            if isinstance(e, UnknownKey):
                self._park(waiter, [rule for rule in e.rules if self._may_know_more(rule)])
            raise unauthorized(e) from None
        except KeysMissing as e:
            self._park(waiter, [rule for rule in e.rules if self._is_on_its_way(rule)])
            raise KeysUnavailable(row="E19") from None
        self._cross(head, presented, verified)
        return User(presented.text, presented.place, verified)

    def again(self, user: User | None, head: RequestHead | None, *, is_exposed: bool) -> User | None:
        """The user of an open exchange, by the rules of now. `head`: as it was sent on. Raises Unauthorized."""
        try:
            if user is None:
                presented = self._places.find(head) if head is not None else None
                if presented is None:
                    return None
                if is_exposed:
                    raise TokenRefused("E26", "plaintext")
                text, place = presented.text, presented.place
            else:
                text, place = user.text, user.place
                if any(rule is user.verified.rule for rule in self._places.rules(place)):
                    return user
            return User(text, place, self._verify(text, place))
        except TokenRefused as e:
            raise unauthorized(e) from None
        except KeysMissing:
            raise Unauthorized("no keys to verify the token with", row="E19") from None

    def _verify(self, text: str, place: Place) -> Verified:
        """Raises TokenRefused, KeysMissing."""
        rules, now = self._places.rules(place), self._wall_clock()
        verified = self._memory.get(text, rules, self.store.keys, now)
        if verified is None:
            verified = verify(text, rules, self.store.keys, now)
            self._memory.put(text, verified)
        return verified

    # What crosses

    def _clean(self, head: RequestHead) -> None:
        """Take out what only we may say, and other spellings of where tokens stand."""
        suspects, crosses = self._suspects, self._crosses
        head.fields = [field for field in head.fields if folded(field[0]) not in suspects or crosses(field[0])]

    def _crosses(self, name: bytes) -> bool:
        return folded(name) not in self.outputs and not self._places.is_alias(name)

    def _cross(self, head: RequestHead, presented: Presented, verified: Verified) -> None:
        self._clean(head)
        if not verified.rule.forward_original_token:
            presented.remove(head)
        head.fields += _outputs_of(verified)

    # Waiting for keys

    def _is_on_its_way(self, rule: JwtRule) -> bool:
        keeper = self.store.keeper(rule)
        return keeper is not None and keeper.is_on_its_way(self._clock())

    def _may_know_more(self, rule: JwtRule) -> bool:
        keeper = self.store.keeper(rule)
        return keeper is not None and keeper.may_know_more(self._clock())

    def _park(self, waiter: Waiter, rules: Sequence[JwtRule]) -> None:
        """Raises Waiting if there is something to wait for and room to wait in; else the caller says no."""
        if not rules or self.waiting_count >= self._waiting_max:
            return
        keeper = self.store.keeper(rules[0])
        assert keeper is not None
        now = self._clock()
        self._waiting.setdefault(keeper, {})[waiter] = now + LEGS * keeper.source.timeout_s + 1.0
        self.store.begin(keeper, now)
        raise Waiting

    def forget(self, waiter: Waiter) -> None:
        """It does not want to wait any longer."""
        for waiting in self._waiting.values():
            waiting.pop(waiter, None)

    def _news(self, keeper: Keeper, count: int) -> bool:
        """A fetch has ended: resume up to `count` of those who waited for it. True: there are more."""
        waiting = self._waiting.get(keeper, {})
        for waiter in list(waiting)[:count]:
            if waiting.pop(waiter, None) is not None:
                waiter.keys_came()
        if not waiting:
            self._waiting.pop(keeper, None)
        self._flush()
        return bool(waiting) and not keeper.is_fetching

    def sweep(self, now: float) -> None:
        """Begin fetches that are due, and end what has waited too long."""
        self.store.sweep(now)
        for keeper, waiting in list(self._waiting.items()):
            for waiter, until in list(waiting.items()):
                if now > until and waiting.pop(waiter, None) is not None:
                    waiter.keys_failed(KeysUnavailable(row="E19"))
            if not waiting:
                self._waiting.pop(keeper, None)


def unauthorized(refused: TokenRefused) -> Unauthorized:
    """For the caller: 401 and no more. For metrics and the log: which row, and a word."""
    error = Unauthorized(str(refused), row=refused.row)
    error.reason = f"token_{refused.reason}"
    return error


def _output_names(rule: JwtRule) -> list[str]:
    names = [name for name, _ in rule.output_claim_to_headers]
    return [*names, rule.output_payload_to_header] if rule.output_payload_to_header else names


def _outputs_of(verified: Verified) -> list[Field]:
    """The headers a rule makes of its token."""
    rule, fields = verified.rule, list[Field]()
    if rule.output_payload_to_header:
        fields.append((rule.output_payload_to_header.encode(), verified.payload.encode()))
    for name, claim in rule.output_claim_to_headers:
        text = _claim_text(verified.token, claim)
        if text:
            fields.append((name.encode(), text))
    return fields


def _claim_text(token: Token, claim: str) -> bytes:
    """Text, whole numbers and truth values, as Istio does; anything else, and what no header may carry, is left out."""
    value: Json = token.claims
    for name in claim.split("."):
        value = value.get(name) if not isinstance(value, str | int | float | tuple | None) else None
    if isinstance(value, bool):
        return b"true" if value else b"false"
    if isinstance(value, int):
        return str(value).encode()
    if not isinstance(value, str):
        return b""
    text = value.encode("utf-8")
    is_clean = text == text.strip() and not any(octet < 0x20 or octet == 0x7F for octet in text)
    return text if is_clean and len(text) <= HEADER_OCTETS_MAX else b""
