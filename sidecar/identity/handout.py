"""What workloads on this machine are given of our identity: the Workload API, files, or both, as configured.

A sidecar with neither loads nothing of them.
"""

from __future__ import annotations

import os
import secrets
import socket
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import trio

from sidecar.config import Config
from sidecar.control.rpc import Channel
from sidecar.identity.source import IdentitySource
from sidecar.net.connection import Driver

if TYPE_CHECKING:
    from sidecar.identity.svid_files import FileKeeper, SvidFiles
    from sidecar.identity.workload_api.endpoint import Endpoint


class Handout:
    """See the module's docstring. Give it every snapshot's `jwt_keys`; the rest it hears from the source."""

    def __init__(
        self,
        config: Config,
        source: IdentitySource,
        channel: Callable[[], Channel | None],
        *,
        clock: Callable[[], float] = time.time,
        random_name: Callable[[], str] = lambda: secrets.token_hex(8),
    ) -> None:
        """Binds the socket and opens the directory, so that what is wrong with them is found at once. `channel`: the
        one to the control plane, if there is one now. `clock`: Unix seconds. Raises ConfigError."""
        self._config = config
        self._source = source
        self._channel = channel
        self._clock = clock
        self._listener: socket.socket | None = None
        self._socket_file: tuple[int, int] | None = None
        self._files: SvidFiles | None = None
        self._keeper: FileKeeper | None = None
        self._endpoint: Endpoint | None = None
        self._jwt_keys = ""
        if config.svid_dir:
            from sidecar.identity.svid_files import FileKeeper, SvidFiles

            self._files = SvidFiles(config.svid_dir, random_name)
            self._keeper = FileKeeper(self._files, source, clock)
        try:
            self._bind()
        except BaseException:
            self.close()
            raise

    def __repr__(self) -> str:
        return f"<Handout {self._config.workload_api or 'no socket'}, {self._config.svid_dir or 'no files'}>"

    def _bind(self) -> None:
        if self._config.workload_api:
            from sidecar.identity.workload_api.endpoint import bind_endpoint

            self._listener = bind_endpoint(self._config.workload_api, self._config.workload_api_mode)
            self._socket_file = _file(self._config.workload_api)

    @property
    def endpoint_socket(self) -> str:
        """What SPIFFE_ENDPOINT_SOCKET says (SPIFFE Workload Endpoint section 4); "" without a Workload API."""
        return f"unix://{self._config.workload_api}" if self._config.workload_api else ""

    def jwt_keys_changed(self, jwt_keys: str) -> None:
        """The JSON Web Key Set of a snapshot; "" is none."""
        self._jwt_keys = jwt_keys
        if self._keeper is not None:
            self._keeper.jwt_keys_changed(jwt_keys)
        if self._endpoint is not None:
            self._endpoint.jwt_keys_changed(jwt_keys)

    async def run(self, driver: Driver, on_refused: Callable[[str, str], object]) -> None:
        """Until cancelled. `on_refused` counts what was refused: its row in the catalogue and a constant reason."""
        try:
            async with trio.open_nursery() as nursery:
                if self._keeper is not None:
                    nursery.start_soon(self._run_files, self._keeper)
                if self._listener is not None:
                    nursery.start_soon(self._run_endpoint, self._listener, driver, on_refused)
        finally:
            self.close()

    async def _run_files(self, keeper: FileKeeper) -> None:
        unsubscribe = self._source.subscribe(keeper.changed)
        try:
            await keeper.run()
        finally:
            unsubscribe()

    async def _run_endpoint(
        self, listener: socket.socket, driver: Driver, on_refused: Callable[[str, str], object]
    ) -> None:
        from sidecar.identity.workload_api.endpoint import Endpoint
        from sidecar.identity.workload_api.tokens import Issuer

        issue = Issuer(self._channel)
        self._endpoint = Endpoint(self._config, driver, self._source, issue, self._clock, on_refused)
        self._endpoint.jwt_keys_changed(self._jwt_keys)
        await self._endpoint.run(listener)

    def close(self) -> None:
        """The socket's file is removed if it is still the one we made. The files of the certificate stay."""
        if self._listener is not None:
            self._listener.close()
            self._listener = None
            if self._socket_file == _file(self._config.workload_api):
                os.unlink(self._config.workload_api)
        if self._files is not None:
            self._files.close()
            self._files = None


def _file(path: str) -> tuple[int, int] | None:
    """Which file that is; None: none."""
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino
