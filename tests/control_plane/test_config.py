"""The configuration file, strictly."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.config import ControlPlaneConfig, Limits, ListenAddress, load, parse
from control_plane.errors import ConfigError

WHOLE = """\
data_dir: /var/lib/hauberk
trust_domain: prod.example
listen: 0.0.0.0:15012
join_listen: "[::1]:15011"
operator_socket: /run/hauberk.sock
kek_file: /run/kek
certificate_lifetime_s: 600
endpoint_lost_s: 2.5
restart_grace_s: 10
push_debounce_s: 0.1
limits:
  join_burst: 5
  join_rate_per_s: 0.5
"""


def test_everything_can_be_set() -> None:
    """And arrives as it was meant."""
    assert parse(WHOLE, "cp.yaml") == ControlPlaneConfig(
        data_dir=Path("/var/lib/hauberk"),
        trust_domain="prod.example",
        listen=ListenAddress("0.0.0.0", 15012),
        join_listen=ListenAddress("::1", 15011),
        operator_socket=Path("/run/hauberk.sock"),
        kek_file=Path("/run/kek"),
        certificate_lifetime_s=600,
        endpoint_lost_s=2.5,
        restart_grace_s=10.0,
        push_debounce_s=0.1,
        limits=Limits(join_burst=5, join_rate_per_s=0.5),
        source="cp.yaml",
    )


def test_an_empty_file_and_a_directory_are_enough() -> None:
    """All else has a default."""
    config = parse("", "cp.yaml", data_dir=Path("/d"))
    assert config == ControlPlaneConfig(data_dir=Path("/d"), source="cp.yaml")
    assert config.operator_socket_path == Path("/d/operator.sock")
    assert str(ListenAddress("::1", 7)) == "[::1]:7"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("listen: 1.2.3.4:1\nlisten: 1.2.3.4:2", "cp.yaml:2: listen: given twice"),
        ("colour: red", "cp.yaml:1: colour: unknown field; known here: ca, certificate_lifetime_s"),
        ("limits:\n  join_bursts: 3", "cp.yaml:2: limits.join_bursts: unknown field"),
        ("limits:\n  join_burst: 3.5", "cp.yaml:2: limits.join_burst: must be a whole number above 0"),
        ("limits: [1]", "cp.yaml:1: limits: must be a mapping"),
        ("- a", "cp.yaml:1: file: must be a mapping"),
        ("data_dir:", "cp.yaml:1: data_dir: must be text"),
        ("data_dir: ''", "cp.yaml:1: data_dir: must not be empty"),
        ("data_dir: [x", "cp.yaml:1: is not valid YAML"),
        ("trust_domain: 12", "cp.yaml:1: trust_domain: must be text"),
        ("trust_domain: Mesh.Local", "trust_domain: "),
        ("listen: localhost:15012", 'write it as "127.0.0.1:15012"'),
        ("listen: 127.0.0.1:70000", "no port between 0 and 65535"),
        ("listen: ::1:80", "is not an address"),
        ("listen: 127.0.0.1:9\njoin_listen: 127.0.0.1:9", "join_listen: must differ from listen"),
        ("certificate_lifetime_s: 1", "certificate_lifetime_s: must be from 2 to 86400"),
        ("certificate_lifetime_s: -5", "must be a whole number above 0"),
        ("certificate_lifetime_s: yes", "must be a whole number above 0"),
        ("endpoint_lost_s: .nan", "must be a number above 0"),
        ("endpoint_lost_s: .inf", "must be a number above 0"),
        (f"operator_socket: /{'x' * 120}", "longer than 107 octets"),
        ("ca:\n  rot: online", "cp.yaml:2: ca.rot: unknown field; known here: clone_action"),
        ("ca:\n  root: elsewhere", "cp.yaml: ca.root: must be one of online, offline"),
        ("ca:\n  clone_action: ignore", "cp.yaml: ca.clone_action: must be one of alarm, revoke"),
        ("ca:\n  root_lifetime_s: 1", "cp.yaml: ca.root_lifetime_s: must be at least 2"),
        ("ca:\n  node_lifetime_s: 0", "cp.yaml:2: ca.node_lifetime_s: must be a number above 0"),
        ("ca:\n  root_lifetime_s: 60", "cp.yaml: ca.intermediate_lifetime_s: must not be longer than root_lifetime_s"),
        ("ca:\n  sign_command: [sign]", "cp.yaml: ca.sign_command: is for root: offline"),
        ("ca:\n  sign_command: sign --now", "cp.yaml:2: ca.sign_command: must be a list: a program and its arguments"),
        ("ca:\n  sign_command: [sign, 3]", "cp.yaml:2: ca.sign_command[1]: must be text"),
    ],
)
def test_what_is_wrong_is_named_with_file_line_and_field(text: str, told: str) -> None:
    """Nothing is guessed."""
    with pytest.raises(ConfigError) as refused:
        parse(text, "cp.yaml", data_dir=Path("/d"))
    assert told in str(refused.value)


def test_lifetimes_of_authorities_may_be_as_short_as_a_test_wants() -> None:
    """And an offline root has a command, as arguments."""
    text = """\
ca:
  root_lifetime_s: 6
  intermediate_lifetime_s: 4
  jwt_key_lifetime_s: 2
  node_lifetime_s: 2.5
  clone_action: revoke
  root: offline
  sign_command: [/opt/sign, --root, a root]
"""
    ca = parse(text, "cp.yaml", data_dir=Path("/d")).ca
    assert (ca.root_lifetime_s, ca.node_lifetime_s, ca.clone_action) == (6.0, 2.5, "revoke")
    assert ca.sign_command == ("/opt/sign", "--root", "a root")
    policy = ca.policy(3)
    assert (policy.intermediate_lifetime_s, policy.jwt_key_lifetime_s, policy.leaf_lifetime_s) == (4.0, 2.0, 3)
    assert policy.is_root_offline


def test_a_directory_must_be_given() -> None:
    """There is no default place for keys."""
    with pytest.raises(ConfigError, match="--data-dir"):
        parse("", "cp.yaml")


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """Missing, binary, or far too large."""
    with pytest.raises(ConfigError, match="No such file"):
        load(tmp_path / "none.yaml")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="UTF-8"):
        load(tmp_path / "binary")
    (tmp_path / "large").write_bytes(b"#" * 300_000)
    with pytest.raises(ConfigError, match="larger than"):
        load(tmp_path / "large")
    (tmp_path / "good").write_text("certificate_lifetime_s: 30")
    assert load(tmp_path / "good", data_dir=tmp_path).certificate_lifetime_s == 30


@given(st.text(max_size=200))
def test_any_text_is_a_configuration_or_a_config_error(text: str) -> None:
    """Never another error."""
    told = ""
    try:
        parse(text, "cp.yaml", data_dir=Path("/d"))
    except ConfigError as refused:
        told = str(refused)
    assert told == "" or told.startswith("cp.yaml")
