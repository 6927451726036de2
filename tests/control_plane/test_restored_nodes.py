"""Nodes and revocations through backup and restore, with real certificates."""

from __future__ import annotations

from pathlib import Path

import pytest

from certs.svid import new_private_key
from control_plane import backup
from control_plane.errors import PermissionDenied
from control_plane.restore import restore
from tests.control_plane.desk import node_id_of, opened
from tests.control_plane.support import NOW


def test_j07_nodes_and_revocations_are_as_they_were(tmp_path: Path) -> None:
    """Who joined since the backup renews and comes back by its node key; what came of a token revoked since is refused,
    and what was given back is taken; a certificate put away before the restore alarms nobody after it."""
    data_dir, file = tmp_path / "cp", tmp_path / "backup"
    kept, late, shut_out, forgiven = (new_private_key() for _ in range(4))
    with opened(tmp_path) as desk:
        known = desk.join(node=kept)
        out, back = desk.join(node=shut_out), desk.join(node=forgiven)
        tokens = [desk.node_of(one.svid).token_id for one in (out, back)]
        desk.revoke("token", tokens[1])
        kek = (data_dir / "kek.key").read_bytes()
        backup.make(data_dir, file, release="1", now=NOW, kek=kek)
        joined = desk.join(node=late)
        renewed = desk.renew(known.svid)
        desk.confirm(renewed)
        desk.revoke("token", tokens[0], "lost")
        desk.reinstate("token", tokens[1])
    restore(data_dir, file, replace=True, by="ann", now=NOW + 1, kek=kek)
    with opened(tmp_path) as desk:
        desk.clock.at += 60
        for svid in (joined.svid, renewed, back.svid):
            desk.confirm(desk.renew(svid))
        for key in (kept, late, forgiven):
            desk.renew(desk.rejoin(key))
            node = desk.state.store.node(node_id_of(key))
            assert node is not None
            assert node.alarm == ""
        with pytest.raises(PermissionDenied, match="revoked, by its serial"):
            desk.renew(out.svid)
        with pytest.raises(PermissionDenied, match="revoked"):
            desk.rejoin(shut_out)
        assert {one.value for one in desk.revocations()} == {tokens[0], f"{out.svid.serial:x}"}


def test_j07_a_node_that_joined_again_since_the_backup_has_its_last_token(tmp_path: Path) -> None:
    """And each of its certificates the one it came of."""
    data_dir, file, key = tmp_path / "cp", tmp_path / "backup", new_private_key()
    with opened(tmp_path) as desk:
        first = desk.join(node=key).svid
        kek = (data_dir / "kek.key").read_bytes()
        backup.make(data_dir, file, release="1", now=NOW, kek=kek)
        renewed, second = desk.renew(first), desk.join(node=key).svid
        tokens = [desk.node_of(second).token_id]
        held = desk.state.store.certificate(first.serial)
        assert held is not None
        tokens.append(held.token_id)
    restore(data_dir, file, replace=True, by="ann", now=NOW + 1, kek=kek)
    with opened(tmp_path) as desk:
        desk.clock.at += 60
        assert desk.node_of(second).token_id == tokens[0] != tokens[1]
        assert set(desk.revoke("token", tokens[1]).serials) == {f"{one.serial:x}" for one in (first, renewed)}
        desk.renew(desk.rejoin(key))
