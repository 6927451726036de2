"""How far our clock is from the control plane's."""

from __future__ import annotations

import logging

log = logging.getLogger(__name__)

WARN_S = 30.0
"""Certificates are valid from 60 s before they are issued, so a clock that is slow by more than that finds them of the
future; the warning comes while there is still room."""


class ClockSkew:
    """The newest measurement."""

    def __init__(self) -> None:
        self.skew_s: float | None = None
        """Our clock minus the control plane's; None: not measured yet."""
        self._warned = False

    def __repr__(self) -> str:
        return f"<ClockSkew {self.skew_s} s>"

    def heard(self, server_time: float, *, before: float, after: float) -> None:
        """An answer that was asked for at `before` and came at `after`, by our clock, carries `server_time`.

        All in Unix seconds. The answer is taken to be as old as half of the way (RFC 5905 section 8). 0: it carries
        none. A clock that was set meanwhile makes a wrong measurement, which the next one corrects."""
        if server_time <= 0:
            return
        self.skew_s = (before + after) / 2 - server_time
        is_wide = abs(self.skew_s) > WARN_S
        if is_wide and not self._warned:
            facts = {"skew_s": round(self.skew_s, 3)}
            log.warning("our clock and the control plane's differ; set this machine's clock", extra=facts)
        self._warned = is_wide
