"""What annotations say to us. People's own are ignored; one that means to be ours and is not known is refused, because
a policy that was only to be tried out must not be enforced for a typing error.

    hauberk.dev/mode              AuthorizationPolicy     shadow | enforce
    istio.io/dry-run              AuthorizationPolicy     "true" | "false": the same, by Istio's name
    hauberk.dev/plaintext-until   PeerAuthentication      when PERMISSIVE and DISABLE end: RFC 3339
    hauberk.dev/plaintext-from    PeerAuthentication      whom they let in: addresses and CIDR blocks, by commas
    hauberk.dev/token-types       RequestAuthentication   what a token's `typ` may be, by commas
"""

from __future__ import annotations

from collections.abc import Mapping

from control_plane.policy import documents, values
from control_plane.policy.reader import Fields, did_you_mean, string_map

PREFIX = "hauberk.dev/"
MODE = "hauberk.dev/mode"
DRY_RUN = "istio.io/dry-run"
PLAINTEXT_UNTIL = "hauberk.dev/plaintext-until"
PLAINTEXT_FROM = "hauberk.dev/plaintext-from"
TOKEN_TYPES = "hauberk.dev/token-types"  # noqa: S105  # the name of an annotation

KNOWN: Mapping[str, tuple[str, ...]] = {
    "AuthorizationPolicy": (MODE, DRY_RUN),
    "PeerAuthentication": (PLAINTEXT_UNTIL, PLAINTEXT_FROM),
    "RequestAuthentication": (TOKEN_TYPES,),
}


def read_annotations(metadata: Fields, kind: str) -> Fields:
    """Those that say something to us, and only they. Labels are checked too: what is ours is no label."""
    known = KNOWN.get(kind, ())
    _refuse_ours(metadata, "labels", kind, ())
    _refuse_ours(metadata, "annotations", kind, known)
    node = metadata.node_of("annotations")
    nothing = documents.Mapping(place=metadata.node.place, entries={})
    ours = Fields(
        node if isinstance(node, documents.Mapping) else nothing,
        metadata.path_of("annotations"),
        metadata.problems,
        known=known,
    )
    ours.entries = {name: entry for name, entry in ours.entries.items() if name in known}
    return ours


def _refuse_ours(metadata: Fields, field: str, kind: str, known: tuple[str, ...]) -> None:
    node = metadata.node_of(field)
    if node is None:
        return
    path, problems = metadata.path_of(field), metadata.problems
    string_map(node, path, problems, values.label_key, str, plain_of={PLAINTEXT_UNTIL: "timestamp"})
    if not isinstance(node, documents.Mapping):
        return
    for name, (key, value) in node.entries.items():
        if name in known or not (name.startswith(PREFIX) or name == DRY_RUN):
            continue
        if name == DRY_RUN and isinstance(value, documents.Scalar) and value.text == "false":
            continue
        where = f"{path}.{values.shown(name)[1:-1]}"
        if name in KNOWN.get(kind, ()):
            problems.add(key, where, "is an annotation, not a label", "write it under metadata.annotations")
            continue
        hint = did_you_mean(name, known) or (f"known are {', '.join(known)}" if known else f"a {kind} has none")
        problems.add(key, where, f"is no annotation of {kind} known to this version", hint)


def is_shadow(ours: Fields) -> bool:
    """Of an AuthorizationPolicy."""
    mode, dry_run = ours.value(MODE, _mode), ours.value(DRY_RUN, _dry_run)
    if mode is not None and dry_run is not None and mode != dry_run:
        key, _ = ours.entries[MODE]
        ours.problems.add(key, ours.path_of(MODE), f"contradicts {DRY_RUN}", "keep one of the two")
    return bool(mode or dry_run)


def _mode(text: str) -> bool:
    if text not in ("shadow", "enforce"):
        raise values.BadValue(f"{values.shown(text)} is not a mode", "write shadow or enforce")
    return text == "shadow"


def _dry_run(text: str) -> bool:
    if text not in ("true", "false"):
        raise values.BadValue(f"{values.shown(text)} is neither true nor false", 'write "true" or "false"')
    return text == "true"
