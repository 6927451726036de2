"""What can be wrong with an identity: one tree. Texts are for logs, never for the peer that caused them."""

from __future__ import annotations


class CertsError(Exception):
    """Anything `certs` raises on purpose."""

    def __init__(self, message: str, *, row: str = "") -> None:
        super().__init__(message)
        self.row = row
        """Row of the catalogue of bad inputs, when one applies ("F04")."""


class InvalidSpiffeId(CertsError, ValueError):
    """Not a SPIFFE ID, or not a trust domain's name."""


class InvalidSvid(CertsError):
    """A certificate or a chain that does not prove an identity."""


class InvalidBundle(CertsError):
    """A certificate that cannot be a trust anchor, or a set of them that cannot be a bundle."""


class InvalidCsr(CertsError):
    """A certificate signing request that is not answered."""
