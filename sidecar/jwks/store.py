"""The keys of all issuers a snapshot names, kept fresh. Trio at the edge; when to fetch is `keeper`'s to say.

One task per fetch and none between them: the sweep of the data plane asks each keeper what is due.
"""

from __future__ import annotations

import ipaddress
import logging
import ssl
from collections.abc import Awaitable, Callable, Iterable
from random import Random

import trio

from sidecar.config import Jwks
from sidecar.jwks.fetch import Document, FetchFailed, fetch, tls_context
from sidecar.jwks.keeper import Keeper, Source
from sidecar.rules.jwt_keys import KeySet, KeySetRefused, read_key_set
from sidecar.rules.snapshot import JwtRule

log = logging.getLogger(__name__)

RESUMED_AT_ONCE = 16
"""Requests that waited for keys are verified in groups: nobody else waits for all of them."""


class KeyStore:
    """See the module's docstring. `news` is called with a keeper at the end of each fetch, until it returns False: it
    resumes some of those who wait, and says whether there are more."""

    def __init__(
        self,
        config: Jwks,
        rng: Random,
        clock: Callable[[], float],
        spawn: Callable[..., None],
        news: Callable[[Keeper, int], bool],
    ) -> None:
        """`clock`: monotonic seconds."""
        self._config = config
        self._rng = rng
        self._clock = clock
        self._spawn = spawn
        self._news = news
        self._allowed = [ipaddress.ip_network(block) for block in config.allow_networks]
        self._context: ssl.SSLContext | None = None
        self._keepers: dict[Source, Keeper] = {}
        self._inline: dict[str, KeySet | None] = {}

    def __repr__(self) -> str:
        return f"<KeyStore {list(self._keepers.values())}, {len(self._inline)} inline>"

    @property
    def keepers(self) -> list[Keeper]:
        return list(self._keepers.values())

    def keep(self, rules: Iterable[JwtRule]) -> None:
        """These are the rules from now on. Keys of those that stay are kept, those that come are fetched at once."""
        keepers: dict[Source, Keeper] = {}
        inline: dict[str, KeySet | None] = {}
        for rule in rules:
            if rule.jwks:
                if rule.jwks not in inline:
                    inline[rule.jwks] = self._inline.get(rule.jwks) or _inline(rule)
                continue
            source = Source.of(rule, self._config.fetch_timeout_s)
            keepers[source] = self._keepers.get(source) or Keeper(source, self._config, self._rng, self._clock())
        self._keepers, self._inline = keepers, inline
        self.sweep(self._clock())

    def keys(self, rule: JwtRule) -> KeySet | None:
        if rule.jwks:
            return self._inline.get(rule.jwks)
        keeper = self.keeper(rule)
        return keeper.keys(self._clock()) if keeper is not None else None

    def keeper(self, rule: JwtRule) -> Keeper | None:
        """None: its keys stand in the rule."""
        return None if rule.jwks else self._keepers.get(Source.of(rule, self._config.fetch_timeout_s))

    def sweep(self, now: float) -> None:
        """Begin what is due. Called a few times a second, and when somebody cannot wait."""
        for keeper in self._keepers.values():
            self.begin(keeper, now)

    def begin(self, keeper: Keeper, now: float) -> None:
        if url := keeper.next_url(now):
            self._spawn(self._run, keeper, url)

    async def _run(self, keeper: Keeper, url: str) -> None:
        """One fetch, which may have two legs."""
        try:
            while url:
                document = await self._fetch(url, keeper.source.timeout_s)
                url = keeper.answered(self._clock(), document.body, document.max_age_s)
        except FetchFailed as e:
            keeper.failed(self._clock(), str(e))
        except BaseException:
            if keeper.is_fetching:
                keeper.failed(self._clock(), "given up")
            raise
        if keeper.problem:
            log.warning(
                "keys of a token issuer cannot be fetched, trying again",
                extra={"issuer": keeper.source.issuer or keeper.source.jwks_uri, "error": keeper.problem},
            )
        while self._news(keeper, RESUMED_AT_ONCE):
            await trio.lowlevel.checkpoint()

    def _fetch(self, url: str, timeout_s: float) -> Awaitable[Document]:
        if self._context is None:
            try:
                self._context = tls_context(self._config.ca_file)
            except (OSError, ssl.SSLError) as e:
                raise FetchFailed(f"jwks.ca_file {self._config.ca_file} cannot be used: {type(e).__name__}") from None
        return fetch(url, self._context, self._allowed, timeout_s)


def _inline(rule: JwtRule) -> KeySet | None:
    try:
        return read_key_set(rule.jwks)
    except KeySetRefused as e:  # the control plane refuses such a rule; without keys it takes no token
        log.error(  # noqa: TRY400 - what happened is in the text
            "keys in a RequestAuthentication cannot be used", extra={"issuer": rule.issuer, "error": str(e)}
        )
        return None
