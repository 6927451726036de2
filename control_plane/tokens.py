"""Join tokens: made for one workload, spent once.

The token string is `hauberk1.<id>.<secret>.<pin>.<join port>`: 16 hexadecimal digits; 16 random bytes and the SHA-256
of the trust anchor, both base64url without padding; the port where Join is served. The id is public. Of the secret only
a SHA-256 is stored: it is 128 random bits, so nothing slower would make it harder to find.

A token that is wrong in any way is refused with one text, whichever part was wrong; only who shows the right secret is
told that the token was used or has expired (security.md G10 to G12).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from certs.spiffe_id import SpiffeId, TrustDomain
from control_plane.errors import InvalidRequest, PermissionDenied
from control_plane.model import JoinTokenRecord, WorkloadSpec
from control_plane.store.base import Store

PREFIX = "hauberk1"
TTL_S_DEFAULT = 600.0
TTL_S_MAX = 86_400.0
SECRET_OCTETS = 16
LABELS_MAX = 64

_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
"""RFC 1123 label, lower case."""
_TOKEN_ID = re.compile(r"[0-9a-f]{16}")
_LABEL_KEY = re.compile(r"([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_LABEL_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
"""As Kubernetes labels, so that selectors mean the same there and here."""

_REFUSED = (
    "this join token is not valid: it is mistyped, has expired, was made by another control plane or is long forgotten;"
    " create a new one with: hauberk token create"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class NewToken:
    """A token just made. The only time its text exists here."""

    record: JoinTokenRecord
    text: str = field(repr=False)


def workload_spec(
    trust_domain: TrustDomain,
    *,
    service: str,
    namespace: str = "",
    service_account: str = "",
    labels: Mapping[str, str],
) -> WorkloadSpec:
    """What a token binds, checked and completed. Raises InvalidRequest naming the field."""
    namespace = namespace or "default"
    service_account = service_account or service
    for name, value in (("service", service), ("namespace", namespace), ("service account", service_account)):
        if not _NAME.fullmatch(value):
            raise InvalidRequest(
                f"{name}: {value[:80]!r} is not a name; use 1 to 63 of a-z, 0-9 and '-', beginning and ending with"
                " a letter or digit"
            )
    if len(labels) > LABELS_MAX:
        raise InvalidRequest(f"labels: at most {LABELS_MAX}")
    for key, value in labels.items():
        if not _LABEL_KEY.fullmatch(key) or not _LABEL_VALUE.fullmatch(value):
            raise InvalidRequest(f"labels: {key[:80]!r}={value[:80]!r} is not a label; write it as app=orders")
    return WorkloadSpec(
        spiffe_id=SpiffeId.for_workload(trust_domain, namespace, service_account),
        service=service,
        namespace=namespace,
        service_account=service_account,
        labels={"app": service, **labels},
    )


def create(
    store: Store,
    spec: WorkloadSpec,
    *,
    ttl_s: float,
    created_by: str,
    now: float,
    pin: bytes,
    join_port: int,
    token_bytes: Callable[[int], bytes] = os.urandom,
) -> NewToken:
    """Makes and stores a token for `spec`. `ttl_s` 0: ten minutes. Raises InvalidRequest."""
    ttl_s = ttl_s or TTL_S_DEFAULT
    if not 0 < ttl_s <= TTL_S_MAX:  # false also for NaN
        raise InvalidRequest(f"ttl: must be above 0 and at most {TTL_S_MAX:.0f} seconds (24 hours)")
    token_id = token_bytes(8).hex()
    secret = token_bytes(SECRET_OCTETS)
    assert len(secret) == SECRET_OCTETS
    record = JoinTokenRecord(
        token_id=token_id,
        secret_sha256=hashlib.sha256(secret).digest(),
        spec=spec,
        created_at=now,
        created_by=created_by,
        expires_at=now + ttl_s,
    )
    store.put_token(record)
    text = f"{PREFIX}.{token_id}.{_base64url(secret)}.{_base64url(pin)}.{join_port}"
    return NewToken(record=record, text=text)


def consume(store: Store, token_id: str, secret: bytes, now: float) -> JoinTokenRecord:
    """Spends a token; exactly one of any number of callers gets it. Raises PermissionDenied."""
    if not _TOKEN_ID.fullmatch(token_id) or len(secret) != SECRET_OCTETS:
        raise PermissionDenied(_REFUSED)
    secret_sha256 = hashlib.sha256(secret).digest()
    spent = store.consume_token(token_id, secret_sha256, now)
    if spent is not None:
        return spent
    held = store.token(token_id)
    if held is None or not hmac.compare_digest(held.secret_sha256, secret_sha256):
        raise PermissionDenied(_REFUSED)
    if held.consumed_at is not None:
        raise PermissionDenied(
            f"this join token was already used at {_when(held.consumed_at)}; a token is good for one sidecar, create"
            " another with: hauberk token create (a sidecar with a state_dir needs none to start again)"
        )
    raise PermissionDenied(
        f"this join token expired at {_when(held.expires_at)}; create a new one with: hauberk token create"
    )


def _base64url(octets: bytes) -> str:
    return base64.urlsafe_b64encode(octets).rstrip(b"=").decode("ascii")


def _when(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
