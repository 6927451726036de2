"""Power cuts, one at each write point."""

from __future__ import annotations

import os

import pytest

from control_plane.store.sqlite import SqliteStore

FILE_CALLS = ("open", "fchmod", "fsync", "rename", "unlink")
STORE_CALLS = ("change_fact", "record_fact", "put_authority")


class PowerCut(BaseException):
    """The process is gone: no handler of ours runs, only the kernel closes descriptors."""


def fail_at(step: int, failure: BaseException, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The step-th point at which the disk or the store is touched fails: there is one before every call, and one after
    every call of the store. Returns the points as they are reached; fewer than `step`: none failed."""
    reached: list[str] = []

    def point(name: str) -> None:
        reached.append(name)
        if len(reached) == step:
            raise failure

    def watch(owner: object, name: str) -> None:
        real = getattr(owner, name)

        def watched(*args: object, **kwargs: object) -> object:
            point(name)
            result = real(*args, **kwargs)
            if owner is not os:
                point(f"after {name}")
            return result

        monkeypatch.setattr(owner, name, watched)

    for name in FILE_CALLS:
        watch(os, name)
    for name in STORE_CALLS:
        watch(SqliteStore, name)
    return reached
