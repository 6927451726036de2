"""MeshConfig, `hauberk.dev/v1`: what holds for the whole mesh. There is one, and it is called `default`."""

from __future__ import annotations

from control_plane.policy import values
from control_plane.policy.documents import Node
from control_plane.policy.model import MeshConfigSpec
from control_plane.policy.reader import Fields, Problems
from sidecar.rules.snapshot import Action

NAME = "default"
FIELDS = (
    "trustDomain", "certificateLifetime", "defaultAction", "rootNamespace", "trustedProxiesCount", "permissive",
)  # fmt: skip
PERMISSIVE_FIELDS = ("requireUntil", "requirePeers")


def read_name(text: str) -> str:
    if text != NAME:
        raise values.BadValue(f"{values.shown(text)}: a mesh has one MeshConfig", f"call it {NAME}")
    return text


def read_spec(node: Node, problems: Problems) -> MeshConfigSpec:
    spec = Fields(node, "spec", problems, known=FIELDS)
    spec.refuse_others()
    permissive = spec.fields_of("permissive", known=PERMISSIVE_FIELDS)
    defaults = MeshConfigSpec()
    lifetime_s = spec.value("certificateLifetime", values.certificate_lifetime_s)
    return MeshConfigSpec(
        trust_domain=spec.value("trustDomain", values.trust_domain),
        certificate_lifetime_s=defaults.certificate_lifetime_s if lifetime_s is None else lifetime_s,
        default_action=spec.value("defaultAction", _default_action) or defaults.default_action,
        root_namespace=spec.value("rootNamespace", values.dns_label) or defaults.root_namespace,
        trusted_proxies_count=spec.value("trustedProxiesCount", values.proxies_count, plain="int") or 0,
        permissive_until_required=permissive is not None and permissive.boolean("requireUntil"),
        permissive_peers_required=permissive is not None and permissive.boolean("requirePeers"),
    )


def _default_action(text: str) -> Action:
    if text not in (Action.ALLOW.value, Action.DENY.value):
        raise values.BadValue(f"{values.shown(text)} is not an action", "use DENY (or ALLOW, while migrating)")
    return Action[text]
