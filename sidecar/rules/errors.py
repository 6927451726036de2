"""What the decision code raises: one tree."""

from __future__ import annotations


class RulesError(Exception):
    """Anything `sidecar.rules` raises on purpose."""


class DecodeError(RulesError):
    """A snapshot that will not be used: refused whole, the last good one stays. The message goes into the NACK."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.field = field
        """Path of the offending field: `policies[2].rules[0].sources[0].principals[1]`."""
        self.problem = problem


class RoutingError(RulesError):
    """No service of the mesh can be meant by this host, or the service has no such port."""


class PathError(RulesError):
    """What cannot be a request's path, or could be read in two ways."""

    def __init__(self, problem: str, row: str) -> None:
        super().__init__(f"{problem} (row {row})")
        self.problem = problem
        self.row = row
        """Of the catalogue of bad inputs."""
