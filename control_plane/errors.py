# they are named after the gRPC status they become
"""What the control plane raises on purpose: one tree, each class carrying the gRPC status it becomes.

`status` is the name of a gRPC status code (https://grpc.github.io/grpc/core/md_doc_statuscodes.html); it is turned into
one in a single place, `control_plane.api.server`. The text goes to the caller as it is, so it says what to do and never
holds a secret or a path inside this program. Anything that is not a `ControlPlaneError` is a bug: it is logged here and
the caller is told INTERNAL and nothing else.
"""

from __future__ import annotations


class ControlPlaneError(Exception):
    """Anything the control plane raises on purpose."""

    status = "INTERNAL"


class StartError(ControlPlaneError):
    """The control plane cannot start. One line for whoever started it: what is wrong and the way out."""

    status = "FAILED_PRECONDITION"


class ConfigError(StartError):
    """The configuration cannot be used. Names the file, the line and the field."""


class StoreError(StartError):
    """The store cannot be opened or trusted."""


class StoreDamaged(StoreError):
    """The database is not whole (security.md J04). Nothing was changed."""


class TrustBroken(StoreError):
    """The database says of whom the mesh trusts what this control plane did not write (security.md J06). Nothing was
    changed."""


class AuditDamaged(StoreError):
    """The audit file is not the one that was written (security.md J11). Nothing was changed."""


class StoreLocked(StoreError):
    """Another control plane has this data directory (security.md J08)."""


class InvalidRequest(ControlPlaneError):
    """The caller sent something that can never work."""

    status = "INVALID_ARGUMENT"


class NotFound(ControlPlaneError):
    status = "NOT_FOUND"


class Unauthenticated(ControlPlaneError):
    """We do not know who calls."""

    status = "UNAUTHENTICATED"


class PermissionDenied(ControlPlaneError):
    """We know who calls (or need not), and the answer is no."""

    status = "PERMISSION_DENIED"


class Revoked(PermissionDenied):
    """The caller's certificate is worth nothing any more."""


class FailedPrecondition(ControlPlaneError):
    """Right request, wrong state of the mesh; says which state is needed."""

    status = "FAILED_PRECONDITION"


class ResourceExhausted(ControlPlaneError):
    """A limit was reached; says which, and when to try again."""

    status = "RESOURCE_EXHAUSTED"


class Unavailable(ControlPlaneError):
    """Not now; the caller should come back."""

    status = "UNAVAILABLE"


class Replaced(ControlPlaneError):
    """A newer stream of the same sidecar took over this one."""

    status = "ABORTED"
