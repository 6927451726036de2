"""When to fetch the keys of one issuer, and which of them hold now. Sans-IO: time and answers in, URLs to fetch out.

Theory of operation
-------------------
`next_url` says what to fetch now, if anything; the owner fetches it and tells `answered` or `failed`. One fetch is
under way at a time. With discovery it has two legs: the issuer's configuration names the URI of its keys, each time
anew. Times are monotonic seconds.

    fresh      refetched after `refresh_s`, or what max-age says within half and twice of it, with jitter
    failing    retried after 1 s, 2 s, ... 60 s; the keys there are hold until `stale_s` after their fetch (row E20)
    nothing    requests that need keys are failed at once while a retry is awaited (E19)

A key id nobody knows may be new, or invented by a flood: it brings the next fetch forward once in 60 s at most (E21).
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from sidecar.config import Jwks
from sidecar.net.backoff import Backoff
from sidecar.rules.jwt_json import Refused, read_object
from sidecar.rules.jwt_keys import KeySet, KeySetRefused, read_key_set
from sidecar.rules.jwt_urls import discovery_url, parse_url
from sidecar.rules.snapshot import JwtRule

UNKNOWN_KEY_S = 60.0
RETRY_S, RETRY_MAX_S = 1.0, 60.0
JITTER = 0.1


@dataclass(frozen=True, slots=True)
class Source:
    """Where a rule's keys come from: equal for rules that share a keeper."""

    issuer: str
    jwks_uri: str
    """Empty: discovery, at the issuer."""
    timeout_s: float

    @classmethod
    def of(cls, rule: JwtRule, timeout_s: float) -> Source:
        uri = "" if rule.discover else rule.jwks_uri
        return cls("" if uri else rule.issuer, uri, rule.timeout_s or timeout_s)


class Keeper:
    """See the module's docstring."""

    def __init__(self, source: Source, config: Jwks, rng: Random, now: float) -> None:
        self.source = source
        self.problem = ""
        """Why the last fetch failed; empty: it did not."""
        self.fetches = 0
        """Begun."""
        self._config = config
        self._rng = rng
        self._backoff = Backoff(rng, base_s=RETRY_S, max_s=RETRY_MAX_S, jitter=JITTER)
        self._keys: KeySet | None = None
        self._body = b""
        self._fetched_at = now
        self._due_at = now
        self._asked_at: float | None = None
        """When an unknown key id last brought a fetch forward."""
        self._leg = ""
        """What is being fetched: "", "configuration" or "keys"."""

    def __repr__(self) -> str:
        state = self._leg or ("idle" if self._keys is not None else "without keys")
        return f"<Keeper {self.source.jwks_uri or self.source.issuer}, {state}, {self.problem or 'well'}>"

    def keys(self, now: float) -> KeySet | None:
        """None: there are none, or they are older than we may believe."""
        if self._keys is not None and now - self._fetched_at > self._config.stale_s:
            self._keys, self._body = None, b""
        return self._keys

    @property
    def is_fetching(self) -> bool:
        return bool(self._leg)

    def is_on_its_way(self, now: float) -> bool:
        """Will a fetch that is under way, or due, tell soon? Else there is nothing to wait for."""
        return bool(self._leg) or now >= self._due_at

    def may_know_more(self, now: float) -> bool:
        """A key id is unknown: is it worth waiting for a fetch? Brings one forward if none is under way."""
        if self._leg:
            return True
        if self._asked_at is not None and now - self._asked_at < UNKNOWN_KEY_S:
            return False
        self._asked_at = self._due_at = now
        return True

    def next_url(self, now: float) -> str:
        """The URL to fetch now; empty: none. After that, `answered` or `failed` must follow."""
        if self._leg or now < self._due_at:
            return ""
        self.fetches += 1
        self._leg = "keys" if self.source.jwks_uri else "configuration"
        try:
            return str(parse_url(self.source.jwks_uri) if self.source.jwks_uri else discovery_url(self.source.issuer))
        except ValueError as e:
            self.failed(now, f"the URL {e}")
            return ""

    def answered(self, now: float, body: bytes, max_age_s: float | None) -> str:
        """What came; the URL to fetch next, if there is another leg. A set that is the same stays the same object."""
        assert self._leg, "nobody asked"
        if self._leg == "configuration":
            try:
                url = self._jwks_uri(body)
            except ValueError as e:
                self.failed(now, str(e))
                return ""
            self._leg = "keys"
            return url
        try:
            keys = self._keys if self._keys is not None and body == self._body else read_key_set(body)
        except KeySetRefused as e:
            self.failed(now, f"the key set {e}")
            return ""
        self._keys, self._body, self._fetched_at = keys, body, now
        self._leg = self.problem = ""
        self._backoff.reset()
        refresh_s = self._config.refresh_s
        if max_age_s is not None:
            refresh_s = min(max(max_age_s, refresh_s / 2), refresh_s * 2)
        refresh_s = min(refresh_s, self._config.stale_s / 2)  # while they hold
        self._due_at = now + refresh_s * self._rng.uniform(1 - JITTER, 1)
        return ""

    def failed(self, now: float, problem: str) -> None:
        assert self._leg, "nobody asked"
        self._leg, self.problem = "", problem
        self._due_at = now + self._backoff.next_delay_s()

    def _jwks_uri(self, body: bytes) -> str:
        """Of the issuer's configuration (OpenID Connect Discovery 1.0 section 4.3). Raises ValueError."""
        try:
            found = read_object(body)
        except Refused as e:
            raise ValueError(f"the issuer's configuration {e}") from None
        if found.get("issuer") != self.source.issuer:
            raise ValueError("the configuration is another issuer's")
        try:
            return str(parse_url(str(found.get("jwks_uri", ""))))
        except ValueError as e:
            raise ValueError(f"the issuer's jwks_uri {e}") from None
