"""What the certificate authority raises: one tree. A malformed request is `certs.errors.InvalidCsr` instead."""

from __future__ import annotations

from pathlib import Path


class CaError(Exception):
    """Anything the certificate authority raises on purpose."""

    def __init__(self, message: str, *, row: str = "") -> None:
        super().__init__(message)
        self.row = row
        """Row of the catalogue of bad inputs, when one applies ("G01")."""


class CaStateError(CaError):
    """The CA's files do not open. Nothing was changed; the message says what is wrong and what to do."""

    def __init__(self, path: Path | str, problem: str, remedy: str, *, row: str = "") -> None:
        super().__init__(f"{path}: {problem}. {remedy}", row=row)
        self.path = str(path)
        self.problem = problem
        self.remedy = remedy


class CaExpired(CaError):
    """Nobody could sign: the root or the intermediate has expired, or is not there, or not valid, yet."""


class CaRefused(CaError):
    """An operator's step that is not taken. The text says why and what to do instead."""

    def __init__(self, message: str, *, breaks: tuple[str, ...] = (), can_force: bool = False) -> None:
        super().__init__(message)
        self.breaks = breaks
        """Who would lose by it, for people."""
        self.can_force = can_force


class IdentityMismatch(CaError):
    """A certificate was asked for somebody else than the caller, or for another trust domain."""


class EnvelopeError(CaError):
    """An encrypted key that does not open: damaged, or not with this key-encryption key."""


class UnfitToIssue(CaError):
    """A certificate was signed and then found illegal. It was thrown away: this is a bug of ours, not the caller's."""
