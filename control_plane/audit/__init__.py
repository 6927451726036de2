"""The record of every mutation, every issuance and every refused call: `<data dir>/audit.jsonl`, a chain of hashes.

- `chain`       one record a line, each with the SHA-256 of the line before; walking a file. Pure.
- `log`         `AuditLog`: writes them, durably, inside the transaction they speak of; opens what a crash left
- `opening`     what a start finds: as it was left, torn by a crash, or not what was written
- `files`       the file that grows and those it was before
- `refusals`    how many refused calls are written down one by one, and how many only counted. Pure.
- `checkpoint`  signed statements that the chain was so long and ended so; the key that signs them
- `verify`      the whole of a chain against the signatures and against the store
- `restart`     going on, on record, without what is lost
- `export`      records as syslog (RFC 5424) and as OCSF events

No audit, no change: what cannot be written down is not done (security.md G30).
"""

from __future__ import annotations

from control_plane.audit.chain import Field
from control_plane.audit.log import AuditLog

__all__ = ["AuditLog", "Field"]
