"""The door to `sidecar.jwks`, which is loaded once a snapshot has a RequestAuthentication, and costs nothing before."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

from sidecar.config import Config
from sidecar.net.connection import Driver
from sidecar.rules.snapshot import Snapshot

if TYPE_CHECKING:
    from sidecar.jwks.authenticator import Authenticator


class Waiting(Exception):
    """Neither admitted nor refused: the request waits for its issuer's keys."""


class Authentication:
    """One per process. Says who authenticates users under a snapshot."""

    def __init__(self, config: Config, driver: Driver, rng: Random) -> None:
        self._config = config
        self._driver = driver
        self._rng = rng
        self._snapshot: Snapshot | None = None
        self._authenticator: Authenticator | None = None
        self._is_wanted = False

    def under(self, snapshot: Snapshot) -> Authenticator | None:
        """For the snapshot in force; None: it has no RequestAuthentication. Its issuers' keys are kept from now on."""
        if snapshot is not self._snapshot:
            self._snapshot = snapshot
            self._is_wanted = bool(snapshot.request_authentications)
            if self._authenticator is None and self._is_wanted:
                self._authenticator = self._load()
            if self._authenticator is not None:
                self._authenticator.use(snapshot.request_authentications)
        return self._authenticator if self._is_wanted else None

    def _load(self) -> Authenticator:
        from sidecar.jwks.authenticator import Authenticator

        driver = self._driver
        return Authenticator(self._config, self._rng, driver.tick, driver.spawn, driver.flush)

    def issuers(self) -> list[dict[str, object]]:
        """Of whose keys we keep: where they come from, whether there are any, and why the last fetch failed."""
        if self._authenticator is None:
            return []
        now = self._driver.clock()
        return [
            {
                "keys_from": keeper.source.jwks_uri or keeper.source.issuer,
                "has_keys": keeper.keys(now) is not None,
                "fetches": keeper.fetches,
                "error": keeper.problem,
            }
            for keeper in self._authenticator.store.keepers
        ]

    def sweep(self, now: float) -> None:
        if self._authenticator is not None:
            self._authenticator.sweep(now)
