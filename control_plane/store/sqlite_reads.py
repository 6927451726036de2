"""Part of the embedded store: what is asked of certificates, nodes and join tokens, and changes nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from control_plane.model import Authority, IssuedRecord, JoinTokenRecord, Node
from control_plane.store.sqlite_identity import IdentityTables
from control_plane.store.sqlite_tokens import TokenTable


class IdentityReads:
    """For `SqliteStore`, which has the tables; what the answers mean is said in `Store`."""

    _identity: IdentityTables
    _tokens: TokenTable

    def token(self, token_id: str) -> JoinTokenRecord | None:
        return self._tokens.token(token_id)

    def tokens(self) -> Sequence[JoinTokenRecord]:
        return self._tokens.list()

    def unspent_tokens_until(self, created_before: float, now: float) -> float:
        return self._tokens.unspent_until(created_before, now)

    def certificate(self, serial: int) -> IssuedRecord | None:
        return self._identity.certificate(serial)

    def live_certificates(self, now: float) -> Sequence[IssuedRecord]:
        return self._identity.live(now)

    def certificates_of_node(self, node_id: str, now: float) -> Sequence[IssuedRecord]:
        return self._identity.of_node(node_id, now)

    def certificates_of_token(self, token_id: str, now: float) -> Sequence[IssuedRecord]:
        return self._identity.of_token(token_id, now)

    def unexpired_until(self, now: float) -> Mapping[tuple[str, str], float]:
        return self._identity.unexpired_until(now)

    def node(self, node_id: str) -> Node | None:
        return self._identity.node(node_id)

    def nodes(self) -> Sequence[Node]:
        return self._identity.nodes()

    def authority(self, authority_id: str) -> Authority | None:
        return self._identity.authority(authority_id)
