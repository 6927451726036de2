"""What the verbs of `hauberk policy` read: files of policies and tests, and where they write their reports."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from contextlib import contextmanager
from pathlib import Path

from control_plane.cli import files
from control_plane.cli.verb import CliError
from control_plane.policy.model import PolicyErrors
from control_plane.policy.rehearse.sources import Source


def read(names: Iterable[str]) -> list[Source]:
    """Files, directories and `-`, each file once. Raises CliError."""
    return [Source(name=one.name, text=one.text) for one in files.read_sources(names)]


def read_beside(file: str, path: str) -> list[Source]:
    """What a file names, relative to where it is. Raises CliError."""
    return read([str(Path(file).parent / path)])


@contextmanager
def refusing() -> Generator[None, None, None]:
    """Documents that are wrong end a verb as everywhere: every problem with its place."""
    try:
        yield
    except PolicyErrors as error:
        raise CliError(str(error)) from None


def write_report(path: Path | None, text: str) -> None:
    """Raises CliError."""
    if path is None:
        return
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise CliError(f"{path}: cannot be written ({error.strerror}); choose another file") from None


def tool_version() -> str:
    from importlib.metadata import version

    return version("hauberk")
