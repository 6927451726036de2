"""Asks after every step whether the invariants of `invariants` hold, for everybody; looks only at what has changed.

Theory of operation
-------------------
Who has the same bundle and the same revocations, and the same time, answers the same: they are one `_Group`. A group
holds what it thinks of everybody's certificate, and when the first of these answers must be asked for again because a
certificate begins or ends. A certificate that changes is asked about again by each group; nothing else can change an
answer. Of those who are refused it is then seen, at every step, whether anybody in the group had to take them: that
hangs on what has befallen each of the two (`Checks.hears`, `Checks.is_sound`), which time alone changes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tests.sim.invariants import RECOVERY_S, REVOKED_S, SKEW_S, Broken, Shown, Verifier, View
from tests.sim.node import Node

WELCOME_S = 4 * RECOVERY_S
"""Who was refused for long asks only every two and a half minutes (at the pace of `in_memory.SCALE`) whether that is
over, and may have to ask in two ways if a root was replaced meanwhile."""
_CONDITIONS = ("on", "reachable", "sound", "welcome")


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """A certificate whose holder lost the right to it."""

    shown: Shown
    at: float
    """True time."""
    why: str


@dataclass(slots=True, kw_only=True)
class _Group:
    """See the module's docstring."""

    view: View
    offset_s: float
    """Of their clocks."""
    members: dict[int, Node] = field(default_factory=dict)
    refused: dict[int, str] = field(default_factory=dict)
    """Whose certificate they do not take, and why."""
    until: float = -math.inf
    """True time: before it no answer changes by itself."""
    seen: int = 0
    """How many of `Checks._changes` it has followed."""


class Checks:
    """What is true, and whether that is as it must be. Times are true Unix seconds."""

    def __init__(
        self,
        *,
        nodes: Sequence[Node],
        verifier: Verifier,
        began_at: float,
        slice_s: float,
        is_reachable: Callable[[int], bool],
        broken: Callable[[str], Broken],
    ) -> None:
        """`is_reachable`: could this node reach the control plane now? `slice_s`: how long a sidecar may take to see
        that its clock was set."""
        self.verifier = verifier
        self._nodes = nodes
        self._slice_s = slice_s
        self._is_reachable = is_reachable
        self._broken = broken
        self._groups: dict[tuple[int, float], _Group] = {}
        self._of: dict[int, _Group] = {}
        self._changes: list[int] = []
        self._taken: list[Taken] = []
        self._revoked: set[str] = set()
        """SPIFFE IDs."""
        self._estranged: set[int] = set()
        """Nodes that were revoked, running or not, and have not been in touch since: nobody waits for them, so what
        they do not take says nothing."""
        self.since = {(what, node.number): began_at for node in nodes for what in _CONDITIONS}
        """From when it holds without a break."""
        self._bare = set(range(len(nodes)))
        """Who may be without a certificate."""
        self._next_end = math.inf
        """Of the certificates of all others."""
        self.up_since = began_at
        """Of the control plane."""
        self.without_token: set[int] = set()
        """Nodes that can do nothing until an operator gives them a new token."""
        self.pairs = 0
        """Of somebody with a certificate and somebody who judges it, at each step."""

    # What has happened

    def changed(self, node: Node) -> None:
        """Its certificate, whom it trusts, or its clock."""
        self._changes.append(node.number)
        self._bare.add(node.number)
        held = self._of.get(node.number)
        key = (node.view.number, node.offset_s) if node.view is not None else None
        if held is not None and key != (held.view.number, held.offset_s):
            del held.members[node.number], self._of[node.number]
            if not held.members:
                del self._groups[held.view.number, held.offset_s]
            held = None
        if held is None and key is not None and node.view is not None:
            group = self._groups.get(key)
            if group is None:
                group = self._groups[key] = _Group(view=node.view, offset_s=node.offset_s)
            group.members[node.number] = node
            self._of[node.number] = group

    def again(self, what: str, node: Node, now: float) -> None:
        """It is what `_CONDITIONS` names again; what came before does not count."""
        self.since[what, node.number] = now

    def take(self, node: Node, now: float, why: str) -> Taken:
        """What it shows was revoked."""
        assert node.shown is not None
        taken = Taken(shown=node.shown, at=now, why=why)
        self._taken.append(taken)
        self._changes.append(node.number)
        self.estrange(node)
        return taken

    def estrange(self, node: Node) -> None:
        """It was revoked, whether it shows anything now or not."""
        self._estranged.add(node.number)

    def give_back(self, given: Sequence[Taken]) -> None:
        self._taken = [one for one in self._taken if one not in given]
        self._all_changed()

    def is_revoked(self, identity: str) -> bool:
        return identity in self._revoked

    def set_revoked(self, identity: str, is_revoked: bool) -> None:
        (self._revoked.add if is_revoked else self._revoked.discard)(identity)
        self._all_changed()

    def _all_changed(self) -> None:
        for group in self._groups.values():
            group.until = -math.inf

    # Does everything hold?

    def step(self, now: float) -> None:
        """Raises Broken."""
        self._estranged = {one for one in self._estranged if not self.hears(self._nodes[one], now)}
        if now >= self._next_end:
            self._next_end = math.inf
            self._bare = set(range(len(self._nodes)))
        for number in self._bare.copy():
            node = self._nodes[number]
            if node.shown is not None and node.shown.not_after > now:
                self._bare.discard(number)
                self._next_end = min(self._next_end, node.shown.not_after)
            elif self.is_well(node, now):
                raise self._broken(f"{node} has no certificate, although nothing is in its way")
        self._taken = [one for one in self._taken if one.shown.not_after + SKEW_S > now]
        late = [one for one in self._taken if now >= one.at + REVOKED_S]
        for group in self._groups.values():
            if abs(group.offset_s) > SKEW_S:
                continue
            self._follow(group, now)
            self.pairs += len(group.members) * len(self._nodes)
            for number, why in group.refused.items():
                self._check_refusal(group, self._nodes[number], why, now)
            for one in late:
                if not self.verifier.refusal(one.shown, group.view, now + group.offset_s):
                    self._check_taken(group, one, now)

    def _follow(self, group: _Group, now: float) -> None:
        """Asks what is not known any more."""
        asked = set(self._changes[group.seen :])
        if now >= group.until:
            group.until = math.inf
            group.refused.clear()
            asked.update(range(len(self._nodes)))
        group.seen = len(self._changes)
        for number in asked:
            why, until = self._verdict(group, self._nodes[number], now)
            group.until = min(group.until, until)
            group.refused.pop(number, None)
            if why:
                group.refused[number] = why

    def _verdict(self, group: _Group, sender: Node, now: float) -> tuple[str, float]:
        """Why the group does not take what `sender` shows and must take; empty: it does, or need not. Until when."""
        shown = sender.shown
        if shown is None or str(shown.identity) in self._revoked or self._is_taken(shown):
            return "", math.inf
        begins, ends = shown.not_before + 2 * SKEW_S, shown.not_after - SKEW_S
        if now < begins:
            return "", begins
        if now >= ends:
            return "", math.inf
        why = self.verifier.refusal(shown, group.view, now + group.offset_s)
        return why, min(ends, self.verifier.until(shown, group.view) - group.offset_s)

    def _is_taken(self, shown: Shown) -> bool:
        return any(one.shown.serial == shown.serial for one in self._taken)

    def _check_refusal(self, group: _Group, sender: Node, why: str, now: float) -> None:
        for one in group.members.values():
            if self._judges(one, now) and (not why.startswith("revoked") or self.hears(one, now)):
                raise self._broken(f"{one} does not take {sender}: {why}")

    def _check_taken(self, group: _Group, taken: Taken, now: float) -> None:
        for one in group.members.values():
            if self._judges(one, now) and self.hears(one, now):
                raise self._broken(f"{one} takes what was revoked by {taken.why} {now - taken.at:g} s ago")

    # Who is in which state

    def _judges(self, node: Node, now: float) -> bool:
        """Is it there to be shown something, with a certificate of its own and a clock in its right mind?"""
        has_certificate = node.shown is not None and node.shown.not_after > now
        return has_certificate and node.number not in self._estranged and self.is_sound(node, now)

    def is_well(self, node: Node, now: float) -> bool:
        """Has nothing been in the way of a certificate for long enough?"""
        return node.is_on and node.number not in self.without_token and self.hears(node, now)

    def hears(self, node: Node, now: float) -> bool:
        """Has nothing been in the way of what the control plane says for long enough?"""
        since = max(self.up_since, self.since["on", node.number], self.since["reachable", node.number])
        return (
            now - since > RECOVERY_S
            and now - self.since["welcome", node.number] > WELCOME_S
            and self._is_reachable(node.number)
            and node.identity not in self._revoked
            and self.is_sound(node, now)
        )

    def is_sound(self, node: Node, now: float) -> bool:
        """Has its clock been right for long enough?"""
        since = now - self.since["sound", node.number]
        return abs(node.offset_s) <= SKEW_S and since > self._slice_s + RECOVERY_S
