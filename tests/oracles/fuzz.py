"""`make fuzz`: some seconds of atheris on each target, from the inputs in `corpus/`.

    python -m tests.oracles.fuzz frames --seconds 25
    python -m tests.oracles.fuzz hpack --keep      what it found goes into `corpus/`, merged to what is needed

Needs atheris, which the tests do not: it has a venv of its own (`.venv-fuzz`), made by `make fuzz`. A finding ends the
run with its traceback and the file that made it; put that file into `corpus/<target>/` when it is mended, where the
fast tests replay it for ever.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

CORPUS = Path(__file__).parent / "corpus"
TARGETS = ("frames", "hpack", "policy", "snapshot")
_ENGINES = ["sidecar.http", "hpack", "h2", "hyperframe"]
INSTRUMENTED = {
    "frames": _ENGINES,
    "hpack": _ENGINES,
    "policy": ["control_plane.policy", "sidecar.rules", "yaml"],
    "snapshot": ["sidecar.rules"],
}


def main() -> int:
    parser = argparse.ArgumentParser(description="fuzz one target")
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("--seconds", type=int, default=25)
    parser.add_argument("--keep", action="store_true", help="merge what is new into the corpus")
    parser.add_argument("--inside", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside is not None:
        return _fuzz(options.target, options.inside)
    corpus = CORPUS / options.target
    with tempfile.TemporaryDirectory(prefix="hauberk-fuzz-") as scratch:
        found = Path(scratch) / "found"
        found.mkdir()
        limits = ["-max_len=4096", "-rss_limit_mb=1024", "-timeout=10"]
        run = [
            *limits,
            f"-max_total_time={options.seconds}",
            "-verbosity=0",
            "-print_final_stats=1",
            f"-artifact_prefix={Path.cwd()}/",
        ]
        failed = _inside(options.target, [*run, str(found), str(corpus)], scratch)
        if failed or not options.keep:
            return failed
        merged = Path(scratch) / "merged"
        merged.mkdir()
        failed = _inside(options.target, ["-merge=1", *limits, str(merged), str(corpus), str(found)], scratch)
        if not failed and any(merged.iterdir()):
            shutil.rmtree(corpus)
            shutil.copytree(merged, corpus)
        return failed


def _inside(target: str, arguments: list[str], scratch: str) -> int:
    """libFuzzer ends the process it runs in, so it gets one of its own; to merge it starts itself again by its name,
    which therefore has to be a program."""
    program = Path(scratch) / "fuzz"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m tests.oracles.fuzz {target} --inside "$0" "$@"\n')
    program.chmod(0o700)
    return subprocess.run([program, *arguments]).returncode


def _fuzz(target: str, arguments: list[str]) -> int:
    try:
        import atheris
    except ImportError:
        sys.stderr.write("atheris is not installed for this Python: run `make fuzz`, which makes a venv that has it\n")
        return 2
    with atheris.instrument_imports(include=INSTRUMENTED[target]):
        one_input = _one_input(target)
    atheris.Setup(arguments, one_input)
    atheris.Fuzz()
    return 0


def _one_input(target: str) -> Callable[[bytes], None]:
    if target == "policy":
        from tests.oracles import fuzz_policy

        return fuzz_policy.one_input
    if target == "snapshot":
        from tests.oracles import fuzz_snapshot

        return fuzz_snapshot.one_input
    from sidecar.http.engines import HTTP2_ENGINES, http2_engine
    from tests.oracles import fuzz_frames, fuzz_hpack

    for name in HTTP2_ENGINES:
        http2_engine(name)
    return {"frames": fuzz_frames.one_input, "hpack": fuzz_hpack.one_input}[target]


if __name__ == "__main__":
    sys.exit(main())
