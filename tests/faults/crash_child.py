"""`python -m tests.faults.crash_child SCENARIO COUNT SEED`: plays a scenario, killed at COUNT points (0: all), and
examines what is left; each in a forked process. One JSON object on standard output: {points, runs, failures}."""

from __future__ import annotations

import json
import logging
import os
import random
import shutil
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path

from tests.faults.crash_points import WAYS, Points
from tests.faults.crash_scenarios import SCENARIOS, examine, prepare


def forked(work: Callable[[Callable[[str], None]], None]) -> tuple[int, list[str], str]:
    """(wait status, what it said, how it failed) of a process that does `work`."""
    reader, writer = os.pipe()
    tell = os.write
    pid = os.fork()
    if pid == 0:
        code = 0
        try:
            work(lambda text: void(tell(writer, f"{text}\n".encode())))
        except BaseException:
            tell(writer, b"!" + json.dumps(traceback.format_exc()).encode() + b"\n")
            code = 1
        os._exit(code)
    os.close(writer)
    with os.fdopen(reader) as said:
        lines = said.read().splitlines()
    _, status = os.waitpid(pid, 0)
    failure = "".join(json.loads(line[1:]) for line in lines if line.startswith("!"))
    return status, [line for line in lines if not line.startswith("!")], failure


def void(_: object) -> None:
    """Takes a value and forgets it."""


def play(name: str, template: Path, kill_at: int, way: str) -> tuple[Path, int, list[str], str, list[str]]:
    """On a copy: (the copy, wait status, acknowledged, failure, names of the operations if nobody died)."""
    directory = Path(tempfile.mkdtemp(dir=template.parent))
    shutil.copytree(template, directory, dirs_exist_ok=True)
    (directory / "mesh").chmod(0o700) if (directory / "mesh").exists() else None

    def work(ack: Callable[[str], None]) -> None:
        points = Points(kill_at, way)
        points.install()
        SCENARIOS[name](directory, ack)
        ack("*" + json.dumps(points.names))

    status, said, failure = forked(work)
    names = [line for line in said if line.startswith("*")]
    acks = [line for line in said if not line.startswith("*")]
    return directory, status, acks, failure, json.loads(names[0][1:]) if names else []


def known(template: Path) -> dict[str, str]:
    """What is before."""
    from contextlib import closing

    from control_plane.model import Level
    from control_plane.store.sqlite import SqliteStore

    if not (template / "mesh").exists():
        return {}
    with closing(SqliteStore.open(template / "mesh" / "hauberk.db")) as store:
        (root,) = [one for one in store.authorities() if one.level is Level.ROOT]
        return {"root": root.authority_id, "epoch": str(store.epoch)}


def main(name: str, count: int, seed: int) -> dict[str, object]:
    logging.disable(logging.CRITICAL)
    rng = random.Random(seed)
    failures: list[str] = []
    with tempfile.TemporaryDirectory(prefix="crash-") as scratch:
        template = Path(scratch) / "template"
        template.mkdir()
        if name != "first_start":
            _, _, failure = forked(lambda _: prepare(template))
            assert not failure, failure
        before = known(template)
        _, status, _, failure, names = play(name, template, 0, "before")
        assert (status, failure) == (0, ""), failure
        cases = [
            (at, way)
            for at, what in enumerate(names, start=1)
            for way in WAYS
            if way != "torn" or what in ("write", "pwrite")
        ]
        chosen = cases if not count else sorted(rng.sample(cases, min(count, len(cases))))
        for at, way in chosen:
            directory, status, acks, failure, _ = play(name, template, at, way)
            where = f"{name}, {way} {at} ({names[at - 1]}), acknowledged {acks}"
            if not os.WIFSIGNALED(status):
                failures.append(f"{where}: was not killed: {failure}")
                continue
            _, _, failure = forked(lambda _, d=directory, a=acks: examine(name, d, a, before))  # type: ignore[misc]
            if failure:
                failures.append(f"{where}:\n{failure}")
            shutil.rmtree(directory)
    return {"points": len(names), "runs": len(chosen), "failures": failures}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))) + "\n")
