"""The `ca:` block of the control plane's configuration: how long authorities live, and who holds the root."""

from __future__ import annotations

from dataclasses import dataclass

from control_plane.ca.slots import CaPolicy

LIFETIME_S_MIN = 2.0
CLONE_ACTIONS = ("alarm", "revoke")
ROOTS = ("online", "offline")
_DAY_S = 86_400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class CaConfig:
    """Lifetimes in seconds, at least 2 each."""

    root_lifetime_s: float = 365 * _DAY_S
    """A successor is made at half of it, and takes over in its last third."""
    intermediate_lifetime_s: float = 7 * _DAY_S
    """As the root's, and no longer than the root lives."""
    jwt_key_lifetime_s: float = 7 * _DAY_S
    """Of a key that signs JWT-SVIDs."""
    node_lifetime_s: float = 30 * _DAY_S
    """How long after its last certificate a sidecar can come back with its node key."""
    clone_action: str = "alarm"
    """What happens to a node whose certificate was renewed from two places: alarm | revoke."""
    root: str = "online"
    """online: made and kept here. offline: what it signs is installed."""
    sign_command: tuple[str, ...] = ()
    """With an offline root: a program that signs requests (PEM on its standard input and output), and its arguments."""

    def policy(self, certificate_lifetime_s: float) -> CaPolicy:
        return CaPolicy(
            root_lifetime_s=self.root_lifetime_s,
            intermediate_lifetime_s=self.intermediate_lifetime_s,
            jwt_key_lifetime_s=self.jwt_key_lifetime_s,
            leaf_lifetime_s=certificate_lifetime_s,
            is_root_offline=self.root == "offline",
        )

    def fault(self) -> str:
        """What no single field shows, as "field: what is wrong"; empty: nothing."""
        for name in ("root_lifetime_s", "intermediate_lifetime_s", "jwt_key_lifetime_s", "node_lifetime_s"):
            if getattr(self, name) < LIFETIME_S_MIN:
                return f"{name}: must be at least {LIFETIME_S_MIN:g}"
        if self.clone_action not in CLONE_ACTIONS:
            return f"clone_action: must be one of {', '.join(CLONE_ACTIONS)}"
        if self.root not in ROOTS:
            return f"root: must be one of {', '.join(ROOTS)}"
        if self.intermediate_lifetime_s > self.root_lifetime_s:
            return "intermediate_lifetime_s: must not be longer than root_lifetime_s"
        if self.sign_command and self.root != "offline":
            return "sign_command: is for root: offline"
        return ""
