"""Counts. The hot path adds to plain integers; text is made only when somebody scrapes.

A request costs two dict look-ups, one `bisect` and four additions: no lock (one thread), no object per request, no
label strings. Nothing is exported that is not named in `names`; `exposition` writes the format.

Every label set is bounded (row I07): peers are cut off at `peers_max` per direction and counted as "other" beyond;
status is a class; rows, reasons and kinds come from constants in our code and are capped all the same.
"""

from __future__ import annotations

import os
from bisect import bisect_left
from collections.abc import Iterator
from typing import Literal

import trio

from sidecar.telemetry import names
from sidecar.telemetry.exposition import Family, Kind, exposition

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""Of what `Metrics.export` returns (Prometheus text exposition format)."""

DURATION_BOUNDS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
PEERS_MAX = 1_000
SERIES_MAX = 256
"""Of refusals and of connection kinds: a backstop, both come from constants."""
RULE_SERIES_MAX = 2_000
"""Of callers and rules together; beyond, both are counted as "other"."""

Direction = Literal["inbound", "outbound"]
Verdict = Literal["allow", "deny", "none"]
"""none: it was never judged, as outbound, where the other end judges."""

_STATUS_CLASSES = ("none", "1xx", "2xx", "3xx", "4xx", "5xx")
_VERDICTS: tuple[Verdict, ...] = ("allow", "deny", "none")
_FIRST_CELL = {verdict: index * len(_STATUS_CLASSES) for index, verdict in enumerate(_VERDICTS)}
_CELLS = len(_STATUS_CLASSES) * len(_VERDICTS)


class _Requests:
    """The requests of one direction: a row of counts for each peer, and one histogram."""

    __slots__ = ("buckets", "duration_sum_s", "peers", "peers_max")

    def __init__(self, peers_max: int) -> None:
        self.peers: dict[str, list[int]] = {}
        """Peer -> count by `verdict * len(_STATUS_CLASSES) + status class`."""
        self.peers_max = peers_max
        self.buckets = [0] * (len(DURATION_BOUNDS_S) + 1)
        self.duration_sum_s = 0.0

    def add(self, status: int, peer: str, duration_s: float, verdict: Verdict) -> None:
        row = self.peers.get(peer)
        if row is None:
            row = self._row(peer)
        cell = status // 100 if 100 <= status < 600 else 0
        row[_FIRST_CELL[verdict] + cell] += 1
        self.buckets[bisect_left(DURATION_BOUNDS_S, duration_s)] += 1
        self.duration_sum_s += duration_s

    def _row(self, peer: str) -> list[int]:
        label = peer or names.PEER_UNKNOWN
        if label not in self.peers and len(self.peers) >= self.peers_max:
            label = names.PEER_OTHER
        return self.peers.setdefault(label, [0] * _CELLS)


class Metrics:
    """All counts of one sidecar process. Not thread-safe, and need not be."""

    def __init__(self, *, version: str, peers_max: int = PEERS_MAX) -> None:
        self._version = version
        self._inbound = _Requests(peers_max)
        self._outbound = _Requests(peers_max)
        self._refused: dict[tuple[str, str], int] = {}
        self._opened: dict[str, int] = {}
        self._closed: dict[str, int] = {}
        self._certificate_not_after = 0.0
        self._certificates = 0
        self._is_late = self._is_stale = False
        self._renewal_failures = 0
        self._clock_skew_s = 0.0
        self._snapshot_version = 0
        self._snapshots = 0
        self._control_connected = False
        self._access_log_dropped = 0
        self._audited: dict[tuple[str, str], int] = {}
        """By (peer, rule)."""
        self._shadow: dict[tuple[str, str, str], int] = {}
        """By (peer, verdict, rule)."""
        self._decisions_dropped = 0
        self._loop_lag_s = 0.0
        self._loop_lag_max_s = 0.0

    def request_done(
        self, direction: Direction, status: int, peer: str, duration_s: float, verdict: Verdict = "none"
    ) -> None:
        """One exchange ended.

        `status` is the one the client was told, 0 if it was told none. `peer` is the other side's SPIFFE ID; "" if
        there is none (counted as "unknown"), never a host or a path as sent.
        """
        requests = self._inbound if direction == "inbound" else self._outbound
        requests.add(status, peer, duration_s, verdict)

    def refused(self, row: str, reason: str) -> None:
        """A bad input was refused: its row in the catalogue ("" if it has none) and its constant reason."""
        key = (row, reason)
        if key not in self._refused and len(self._refused) >= SERIES_MAX:
            key = ("", names.PEER_OTHER)
        self._refused[key] = self._refused.get(key, 0) + 1

    def audited(self, peer: str, rule: str) -> None:
        """A request matched an AUDIT rule."""
        key = (peer or names.PEER_UNKNOWN, rule)
        if key not in self._audited and len(self._audited) >= RULE_SERIES_MAX:
            key = (names.PEER_OTHER, names.PEER_OTHER)
        self._audited[key] = self._audited.get(key, 0) + 1

    def shadow(self, peer: str, verdict: Verdict, rule: str) -> None:
        """The policies in shadow would decide a request otherwise: so, by that rule."""
        key = (peer or names.PEER_UNKNOWN, verdict, rule)
        if key not in self._shadow and len(self._shadow) >= RULE_SERIES_MAX:
            key = (names.PEER_OTHER, verdict, names.PEER_OTHER)
        self._shadow[key] = self._shadow.get(key, 0) + 1

    def connection_opened(self, kind: str) -> None:
        """`kind` is one of `Connection.kind`."""
        self._opened[kind] = self._opened.get(kind, 0) + 1

    def connection(self, kind: str, change: int) -> None:
        """For `Driver`: +1 when a connection begins, -1 when it ends."""
        (self.connection_opened if change > 0 else self.connection_closed)(kind)

    def connection_closed(self, kind: str) -> None:
        self._closed[kind] = self._closed.get(kind, 0) + 1

    def certificate(self, not_after: float) -> None:
        """A certificate was put into use; `not_after` in Unix seconds."""
        self._certificate_not_after = not_after
        self._certificates += 1

    def membership(self, *, is_late: bool, is_stale: bool, failures: int, clock_skew_s: float | None) -> None:
        """How it is with the certificate; `failures` of renewing it, since the start."""
        self._is_late, self._is_stale = is_late, is_stale
        self._renewal_failures = failures
        self._clock_skew_s = clock_skew_s or 0.0

    def snapshot(self, version: int) -> None:
        """A snapshot was put into use."""
        self._snapshot_version = version
        self._snapshots += 1

    def control_connected(self, connected: bool) -> None:
        self._control_connected = connected

    def access_log_dropped(self, count: int = 1) -> None:
        self._access_log_dropped += count

    def decision_dropped(self) -> None:
        self._decisions_dropped += 1

    def loop_lag(self, lag_s: float) -> None:
        """How late the event loop woke a task that asked to be woken at a certain time."""
        self._loop_lag_s = lag_s
        self._loop_lag_max_s = max(self._loop_lag_max_s, lag_s)

    def export(self) -> bytes:
        """Everything, in the Prometheus text format (`CONTENT_TYPE`)."""
        return exposition(self.families())

    def families(self) -> Iterator[Family]:
        """What `export` writes."""
        yield self._requests_family()
        yield self._duration_family()
        yield self._refused_family()
        yield from self._policy_families()
        yield from self._connection_families()
        yield from self._certificate_families()
        yield from self._gauges()
        yield from _process_families()

    def _requests_family(self) -> Family:
        labels = (names.LABEL_DIRECTION, names.LABEL_PEER, names.LABEL_STATUS_CLASS, names.LABEL_VERDICT)
        family = Family("counter", names.REQUESTS, "Exchanges that ended.", labels)
        for direction, requests in self._directions():
            for peer, row in requests.peers.items():
                for cell, count in enumerate(row):
                    if count:
                        verdict, status = divmod(cell, len(_STATUS_CLASSES))
                        family.add((direction, peer, _STATUS_CLASSES[status], _VERDICTS[verdict]), count)
        return family

    def _duration_family(self) -> Family:
        help_text = "From a request's head to the end of its exchange."
        family = Family("histogram", names.REQUEST_DURATION, help_text, (names.LABEL_DIRECTION,))
        for direction, requests in self._directions():
            buckets: list[tuple[str, int]] = []
            total = 0
            for bound, count in zip((*map(str, DURATION_BOUNDS_S), "+Inf"), requests.buckets, strict=True):
                total += count
                buckets.append((bound, total))
            family.add_histogram((direction,), buckets, requests.duration_sum_s)
        return family

    def _refused_family(self) -> Family:
        labels = (names.LABEL_ROW, names.LABEL_REASON)
        family = Family("counter", names.REFUSED, "Inputs refused before or instead of relaying.", labels)
        for key, count in self._refused.items():
            family.add(key, count)
        return family

    def _policy_families(self) -> Iterator[Family]:
        help_text = "Requests that matched an AUDIT rule."
        audited = Family("counter", names.AUDITED_REQUESTS, help_text, (names.LABEL_PEER, names.LABEL_RULE))
        for (peer, rule), count in self._audited.items():
            audited.add((peer, rule), count)
        yield audited
        help_text = "Requests that the policies in shadow would have decided otherwise: what they would, and by which."
        labels = (names.LABEL_PEER, names.LABEL_VERDICT, names.LABEL_RULE)
        shadow = Family("counter", names.SHADOW_DECISIONS, help_text, labels)
        for key, count in self._shadow.items():
            shadow.add(key, count)
        yield shadow

    def _connection_families(self) -> Iterator[Family]:
        labels = (names.LABEL_KIND,)
        opened = Family("counter", names.CONNECTIONS_OPENED, "Connections opened.", labels)
        is_open = Family("gauge", names.CONNECTIONS_OPEN, "Connections open now.", labels)
        for kind, count in self._opened.items():
            opened.add((kind,), count)
            is_open.add((kind,), count - self._closed.get(kind, 0))
        yield opened
        yield is_open

    def _certificate_families(self) -> Iterator[Family]:
        yield _one(
            "gauge",
            names.CERTIFICATE_NOT_AFTER,
            "When the certificate in use expires, Unix time; 0: none yet.",
            self._certificate_not_after,
        )
        yield _one("counter", names.CERTIFICATES_RECEIVED, "Certificates put into use.", self._certificates)
        help_text = "1 while 70 % of the certificate's life are over and it is not renewed."
        yield _one("gauge", names.CERTIFICATE_RENEWAL_LATE, help_text, int(self._is_late))
        help_text = "Renewals that did not work."
        yield _one("counter", names.CERTIFICATE_RENEWAL_FAILURES, help_text, self._renewal_failures)
        help_text = "Our clock minus the control plane's, when a certificate was last issued."
        yield _one("gauge", names.CLOCK_SKEW, help_text, self._clock_skew_s)
        help_text = "1 while certificate and policy come from the cache of an earlier process."
        yield _one("gauge", names.STALE, help_text, int(self._is_stale))

    def _gauges(self) -> Iterator[Family]:
        yield _one(
            "gauge", names.SNAPSHOT_VERSION, "Version of the snapshot in use; 0: none yet.", self._snapshot_version
        )
        yield _one("counter", names.SNAPSHOTS_RECEIVED, "Snapshots put into use.", self._snapshots)
        yield _one(
            "gauge",
            names.CONTROL_CONNECTED,
            "1 while the control plane is connected.",
            int(self._control_connected),
        )
        yield _one(
            "counter",
            names.ACCESS_LOG_DROPPED,
            "Access log lines dropped because their reader was too slow.",
            self._access_log_dropped,
        )
        yield _one(
            "counter",
            names.DECISIONS_DROPPED,
            "Denials not reported to the control plane because there were too many.",
            self._decisions_dropped,
        )
        yield _one("gauge", names.LOOP_LAG, "How late the event loop was, last time.", self._loop_lag_s)
        yield _one("gauge", names.LOOP_LAG_MAX, "How late it was at worst.", self._loop_lag_max_s)
        yield Family("gauge", names.BUILD_INFO, "Always 1.", (names.LABEL_VERSION,)).add((self._version,), 1)

    def _directions(self) -> tuple[tuple[str, _Requests], tuple[str, _Requests]]:
        return (names.INBOUND, self._inbound), (names.OUTBOUND, self._outbound)


async def watch_loop_lag(metrics: Metrics, *, interval_s: float = 1.0) -> None:
    """Measure, for ever, how late the event loop wakes a sleeper: what a request waits when the process is busy."""
    while True:
        due = trio.current_time() + interval_s
        await trio.sleep_until(due)
        metrics.loop_lag(max(0.0, trio.current_time() - due))


def _one(kind: Kind, name: str, help_text: str, number: float) -> Family:
    """A family of one sample without labels."""
    return Family(kind, name, help_text).add((), number)


def _process_families() -> Iterator[Family]:
    """The three process facts people alert on, under the names every Prometheus client gives them."""
    yield _one("gauge", names.RESIDENT_MEMORY, "Resident memory in bytes.", resident_memory_octets())
    times = os.times()
    yield _one("counter", names.CPU_SECONDS, "User and system CPU time.", times.user + times.system)
    yield _one("gauge", names.OPEN_FDS, "Open file descriptors.", len(os.listdir("/proc/self/fd")))


def resident_memory_octets() -> int:
    """This process's resident set (proc(5), /proc/pid/statm, second field, in pages)."""
    with open("/proc/self/statm", "rb") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
