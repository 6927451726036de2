"""What `--wait` found: who has taken a change, who has not yet, who refused it."""

from __future__ import annotations

from control_plane.cli.output import note, printable
from control_plane.cli.verb import CliError
from protos.hauberk.v1 import config_pb2

SHOWN_MAX = 5


def report(found: config_pb2.Propagation, version: int, timeout_s: float) -> None:
    """Says on standard error how far the change got. Raises CliError unless every sidecar concerned has it."""
    if found.rejected:
        reasons = "; ".join(f"{one.workload}: {one.reason}" for one in found.rejected[:SHOWN_MAX])
        raise CliError(
            printable(f"version {version} is stored, but {_count(len(found.rejected))} refused it and kept the last")
            + printable(f" good one: {reasons}")
        )
    if found.pending:
        names = ", ".join(found.pending[:SHOWN_MAX]) + (" ..." if len(found.pending) > SHOWN_MAX else "")
        raise CliError(
            printable(f"version {version} is stored, but {_count(len(found.pending))} had not taken it after")
            + printable(f" {timeout_s:g} s: {names}; see `hauberk status`")
        )
    note(f"version {version} is in force at {_count(len(found.acknowledged))}")


def _count(number: int) -> str:
    return "1 sidecar" if number == 1 else f"{number} sidecars"
