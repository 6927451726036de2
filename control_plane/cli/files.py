"""What `-f` names: a file, a directory of files, or standard input; read whole before anything is sent."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from control_plane.cli.verb import CliError
from protos.hauberk.v1 import config_pb2

STDIN = "-"
SUFFIXES = (".yaml", ".yml", ".json")
FILE_OCTETS_MAX = 1024 * 1024
"""What the control plane takes of one file."""


def read_sources(names: Iterable[str]) -> list[config_pb2.SourceFile]:
    """In the order named, each file once. Raises CliError naming the file."""
    sources: dict[str, config_pb2.SourceFile] = {}
    for name in names:
        for path in _expand(name):
            if path not in sources:
                sources[path] = config_pb2.SourceFile(name="<stdin>" if path == STDIN else path, text=_read(path))
    return list(sources.values())


def _expand(name: str) -> Iterator[str]:
    """A directory stands for the files in it, not for those further down."""
    path = Path(name)
    if name == STDIN or not path.is_dir():
        yield name
        return
    try:
        found = sorted(item for item in path.iterdir() if item.suffix in SUFFIXES and not item.is_dir())
    except OSError as error:
        raise CliError(f"{name}: cannot be read ({error.strerror}); check the path and its mode") from None
    if not found:
        raise CliError(f"{name}: holds no file ending in {', '.join(SUFFIXES)}; name a file or another directory")
    yield from map(str, found)


def _read(path: str) -> str:
    source = "<stdin>" if path == STDIN else path
    try:
        if path == STDIN:
            raw = sys.stdin.buffer.read(FILE_OCTETS_MAX + 1)
        else:
            with open(path, "rb") as file:
                raw = file.read(FILE_OCTETS_MAX + 1)
        if len(raw) > FILE_OCTETS_MAX:
            raise CliError(f"{source}: larger than 1 MiB; split it")
        return raw.decode("utf-8")
    except OSError as error:
        raise CliError(f"{source}: cannot be read ({error.strerror}); check the path and its mode") from None
    except UnicodeDecodeError as error:
        raise CliError(f"{source}: is not UTF-8 text at byte {error.start}; save it as UTF-8") from None
