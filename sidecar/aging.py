"""The end of connections by time: of certificates, of use, of patience."""

from __future__ import annotations

from sidecar.config import Timeouts
from sidecar.http.session import ErrorCode
from sidecar.net.connection import Connection, Driver

SWEEP_S = 0.25
CONNECTION_AGE_MAX_S = 3_600.0
DRAINED_MAX_S = 5.0
"""How long a peer may take to answer the PING of our goodbye."""
CLOSED_MAX_S = 10.0
"""How long a peer may take to read our last words."""


class Aging:
    """Looks at one connection at a time, a few times a second and when a certificate ends."""

    def __init__(self, driver: Driver, timeouts: Timeouts) -> None:
        self._driver = driver
        self._timeouts = timeouts

    def next_look_s(self, now: float) -> float:
        """How long until connections are to be looked at again: a certificate ends on time, whenever that is."""
        ends = (one.expires_at for one in self._driver.connections if one.expires_at is not None)
        return min((SWEEP_S, *(end - now for end in ends if end > now)))

    def look_at(self, connection: Connection, now: float) -> None:
        """A connection ends when its certificate does (row F15), takes no new streams from half of that life on, and
        goes when nobody has used it for long. Whoever does not do their part in that is not waited for (A14, I01), nor
        is a sidecar that gives no sign of life. `now`: monotonic seconds."""
        session, timeouts = connection.session, self._timeouts
        is_quiet = not session.open_streams
        closed_s = _lasts_s(connection, "closed", session.closed, now)
        is_unused = is_quiet and now - _used_at(connection) > (connection.idle_s or timeouts.connection_idle_s)
        is_old = now - connection.opened > CONNECTION_AGE_MAX_S and not session.draining
        drained_s = _lasts_s(connection, "drained", is_quiet and session.draining, now)
        awaiting_s = _lasts_s(connection, "awaiting", is_quiet and session.awaits_rest, now)
        is_dead = (
            session.awaits_pong and now - connection.activity > timeouts.keepalive_s + timeouts.keepalive_timeout_s
        )
        is_stuck = connection.unsent and now - connection.sent_at > timeouts.idle_s
        is_overdue = connection.close_at is not None and now >= connection.close_at
        if is_dead or is_overdue or is_stuck or closed_s > CLOSED_MAX_S:
            connection.close()
            return
        if connection.expires_at is not None and now >= connection.expires_at:
            session.shutdown(ErrorCode.NO_ERROR)
        elif awaiting_s > timeouts.headers_s:
            session.shutdown(ErrorCode.PROTOCOL_ERROR)
        elif drained_s > DRAINED_MAX_S:
            session.shutdown(ErrorCode.NO_ERROR)
        elif connection.retire_at is not None and now >= connection.retire_at:
            connection.retire_at = None
            session.drain()
        elif is_old or is_unused:
            session.drain()
        elif self._is_due_for_ping(connection, now):
            connection.since["asked"] = now
            session.ping()
        else:
            return
        self._driver.touched.add(session)

    def _is_due_for_ping(self, connection: Connection, now: float) -> bool:
        """Whether nothing came for so long that the other sidecar may be gone, its address with it (RFC 9113 section
        6.7). A connection that waits for use is asked about by its client only: by both, each would take the other's
        question for use."""
        session = connection.session
        is_kept = connection.kind == "mesh_client" or (connection.kind == "mesh_server" and session.open_streams > 0)
        is_silent = now - connection.activity > self._timeouts.keepalive_s
        return is_kept and is_silent and not session.awaits_pong and not session.closed


def _used_at(connection: Connection) -> float:
    """Monotonic time of the last sign that somebody uses the connection. The answer to our own PING is none."""
    session, since, activity = connection.session, connection.since, connection.activity
    if not session.awaits_pong and since.pop("asked", None) is not None:
        since["answered"] = activity
    if session.open_streams or not ("asked" in since or since.get("answered") == activity):
        since["used"] = activity
    return since.get("used", connection.opened)


def _lasts_s(connection: Connection, state: str, holds: bool, now: float) -> float:
    """For how long the sweep has seen the connection in this state without a break."""
    if not holds:
        connection.since.pop(state, None)
        return 0.0
    return now - connection.since.setdefault(state, now)
