"""What can go wrong with getting and keeping an identity."""

from __future__ import annotations

from sidecar.errors import ConfigError, SidecarError


class IdentityError(SidecarError):
    """Anything about our identity."""


class NoIdentityYet(IdentityError):
    """No certificate or no trust bundle so far: nothing may be accepted or dialled (F26)."""


class IssuedRefused(IdentityError):
    """The control plane issued something that is not a legal identity for us; it is not used."""


class NotProven(IdentityError):
    """A new certificate did not carry a call to the control plane; the one before it stays."""


class StateError(ConfigError, IdentityError):
    """The state directory cannot be used; the text says why, and the way out."""


class TokenError(ConfigError, IdentityError):
    """The join token cannot be read. The text never holds any part of it."""


class BindingError(ConfigError, IdentityError):
    """The configuration names another service than the join token was made for."""


class JoinError(IdentityError):
    """Joining failed."""


class JoinRefused(JoinError):
    """Final: the token is spent, expired or unknown. Trying again is no use; a new token is needed."""


class WrongPin(JoinError):
    """Whoever answers is not the control plane we know (G14). A start ends with it, because most often the address or
    the token is of another mesh; a sidecar that runs asks again, because somebody may have stood in between."""


class ControlPlaneUnreachable(JoinError):
    """Nobody answered, or the connection broke. Try again later."""
