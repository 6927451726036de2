"""Makes a script smaller while it still shows what it shows: what is kept in `regressions/` should be read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from tests.oracles.scripts import Script


def minimized(script: Script, still: Callable[[Script], bool]) -> Script:
    """The script with as few steps and reactions as keep `still` true. It is true of `script`."""
    size = len(script.steps)
    while size >= 1:
        at = 0
        while at < len(script.steps):
            fewer = replace(script, steps=script.steps[:at] + script.steps[at + size :])
            if still(fewer):
                script = fewer
            else:
                at += size
        size //= 2
    for event in list(script.reactions):
        without = replace(script, reactions={e: r for e, r in script.reactions.items() if e != event})
        if still(without):
            script = without
    for change in ({"limits": "default"}, {"stalled": False}, {"cuts": ()}):
        simpler = replace(script, **change)
        if still(simpler):
            script = simpler
    return script
