"""The configuration is read strictly: what is accepted is exactly what is written, what is not is named and placed."""

from __future__ import annotations

import io
import json
import re
import sys
from pathlib import Path
from typing import get_type_hints

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from sidecar import config_load
from sidecar.config import Address, Config, Inbound, Jwks, Limits, Outbound, OutboundPort, Timeouts, Tracing
from sidecar.config_load import load, parse, to_yaml, with_overrides
from sidecar.config_values import DOCUMENT_OCTETS_MAX
from sidecar.describe import describe
from sidecar.errors import ConfigError
from sidecar.rules.snapshot import Protocol

WHOLE = """\
service: orders
namespace: shop
trust_domain: mesh.local
control_plane: 127.0.0.1:15012
join_token_file: /run/hauberk/token
mesh_listen: 0.0.0.0:15008          # where other sidecars reach us
advertise: 10.0.0.7:15008           # what they are told; default: mesh_listen's address
inbound:
  - {port: 8080, app: 127.0.0.1:8080, protocol: http1, plaintext: 10.0.0.7:8080}   # declared, never guessed
  - {port: 9090, app: "unix:/run/orders.sock", protocol: http2}
outbound:
  listen: 127.0.0.1:15001
  ports: [{listen: 127.0.0.1:9101, service: billing.shop, port: 8080}]
admin: 127.0.0.1:15000
health: 0.0.0.0:15020
http2_engine: reference
access_log: denied
timeouts: {connect_s: 0.5, drain_s: 10}
limits: {connections_max: 100}
tracing: {sample_ratio: 0.5, otlp_endpoint: "http://127.0.0.1:4318"}
jwks: {ca_file: /etc/ca.pem, allow_networks: [10.0.0.0/8, "::1/128"], refresh_s: 300, stale_s: 900, fetch_timeout_s: 2}
"""


def refusal(document: str) -> str:
    """What the loader says about a document it must refuse."""
    with pytest.raises(ConfigError) as caught:
        parse(document, "mesh.yaml")
    return str(caught.value)


def test_the_whole_configuration_of_the_design_is_read() -> None:
    """Every field once."""
    assert parse(WHOLE, "mesh.yaml") == Config(
        service="orders",
        namespace="shop",
        trust_domain="mesh.local",
        control_plane=Address("127.0.0.1", 15012),
        join_token_file="/run/hauberk/token",
        mesh_listen=Address("0.0.0.0", 15008),
        advertise=Address("10.0.0.7", 15008),
        inbound=(
            Inbound(
                port=8080,
                app=Address("127.0.0.1", 8080),
                protocol=Protocol.HTTP1,
                plaintext=Address("10.0.0.7", 8080),
            ),
            Inbound(port=9090, app=Address(path="/run/orders.sock"), protocol=Protocol.HTTP2),
        ),
        outbound=Outbound(
            listen=Address("127.0.0.1", 15001),
            ports=(OutboundPort(listen=Address("127.0.0.1", 9101), service="billing.shop", port=8080),),
        ),
        admin=Address("127.0.0.1", 15000),
        health=Address("0.0.0.0", 15020),
        http2_engine="reference",
        access_log="denied",
        timeouts=Timeouts(connect_s=0.5, drain_s=10),
        limits=Limits(connections_max=100),
        tracing=Tracing(sample_ratio=0.5, otlp_endpoint="http://127.0.0.1:4318"),
        jwks=Jwks(
            ca_file="/etc/ca.pem",
            allow_networks=("10.0.0.0/8", "::1/128"),
            refresh_s=300.0,
            stale_s=900.0,
            fetch_timeout_s=2.0,
        ),
        source="mesh.yaml",
    )


def test_a_service_alone_is_enough() -> None:
    """All else has a default, and none of them is unsafe."""
    config = parse("service: orders", "mesh.yaml")
    assert config == Config(service="orders", source="mesh.yaml")


def test_plain_data_is_read_like_yaml() -> None:
    """For whoever has parsed it already."""
    assert parse(yaml.safe_load(WHOLE), "mesh.yaml") == parse(WHOLE, "mesh.yaml")
    with pytest.raises(ConfigError, match=r"^k8s: limits\.connections_max: must be a whole number, but is text$"):
        parse({"service": "a", "limits": {"connections_max": "many"}}, "k8s")
    with pytest.raises(ConfigError, match="holds a object"):
        parse({"service": object()}, "k8s")


@pytest.mark.parametrize(
    ("line", "says"),
    [
        # fields
        ("colour: red", "mesh.yaml:2:1: unknown field 'colour'; known: service"),
        ("name_space: a", "mesh.yaml:2:1: unknown field 'name_space'; did you mean 'namespace'?"),
        ("join_token: x", "did you mean 'join_token_file'?"),
        (
            "limits: {connection_max: 1}",
            "mesh.yaml:2:10: limits: unknown field 'connection_max'; did you mean 'connections_max'?",
        ),
        ("service: b", "mesh.yaml:2:1: field 'service' is given twice; first at mesh.yaml:1:10"),
        ("? [a]\n: b", "a field's name must be text"),
        ("<<: {namespace: x}", "unknown field '<<'"),
        # YAML
        ("namespace: &a shop", "mesh.yaml:2:12: anchors and aliases are not taken"),
        ("namespace: *a", "mesh.yaml:2:12: anchors and aliases are not taken"),
        ("namespace: !!str shop", "mesh.yaml:2:12: tags are not taken"),
        ("namespace: !!python/name:os.system x", "tags are not taken"),
        ("namespace: [", "is not YAML"),
        ("namespace: \x07", "is not YAML"),
        ("---\nservice: b", "is not YAML: but found another document"),
        ("inbound: " + "[" * 40 + "]" * 40, "is nested too deeply"),
        # types
        ("namespace: 5", "mesh.yaml:2:12: namespace: must be text, but is a number; put it in quotes"),
        ("namespace: yes", "must be text, but is yes or no"),
        ("namespace: 2026-01-01", "must be text, but is a date"),
        ("namespace:", "must be text, but is nothing"),
        ("namespace: {a: b}", "must be text, but is a mapping"),
        ("inbound: 8080", "inbound: must be a list, but is a number"),
        ("inbound: [8080]", "inbound[0]: must be a mapping, but is a number"),
        ("access_log: [all]", "must be one of all | denied | off, but is a list"),
        ("limits: {connections_max: 0x10}", "'0x10' is not a whole number in decimal digits"),
        ("limits: {connections_max: 1_000}", "is not a whole number in decimal digits"),
        ("limits: {connections_max: 010}", "is not a whole number in decimal digits"),
        ("limits: {connections_max: 1:30}", "is not a whole number in decimal digits"),
        ("limits: {connections_max: 1.5}", "'1.5' is not a whole number"),
        ('limits: {connections_max: "5"}', "must be a whole number, but is text"),
        ("timeouts: {connect_s: .inf}", "is not a number in decimal digits"),
        ("timeouts: {connect_s: .nan}", "is not a number in decimal digits"),
        ("timeouts: {connect_s: -1}", "is not a number in decimal digits"),
        # bounds
        ("timeouts: {connect_s: 0}", "timeouts.connect_s: 0.0 is out of range; from 0.01 to 60"),
        ("timeouts: {drain_s: 100000}", "is out of range"),
        ("limits: {connections_max: 0}", "0 is out of range; from 1 to 1000000"),
        ("tracing: {sample_ratio: 1.01}", "1.01 is out of range; from 0.0 to 1.0"),
        # names
        ("namespace: Shop", "namespace: 'Shop' is not a name; 1 to 63 of a-z"),
        ("namespace: a.b", "is not a name"),
        ("namespace: -a", "is not a name"),
        (f"namespace: {'a' * 64}", "is not a name"),
        ("namespace: \xe4", "'\\xe4' is not a name"),
        ("trust_domain: Mesh.Local", "trust_domain: is not a trust domain"),
        # addresses
        ("control_plane: 127.0.0.1", "'127.0.0.1' has no port"),
        ("control_plane: 127.0.0.1:70000", "70000 is not a port"),
        ("control_plane: 127.0.0.1:0", "0 is not a port; from 1 to 65535"),
        ("control_plane: 300.0.0.1:1", "'300.0.0.1' is not an IP address"),
        ("control_plane: a_b:1", "'a_b' is not an IP address"),
        ("control_plane: 0.0.0.0:1", "is no address to connect to"),
        ("advertise: 0.0.0.0:15008", "is no address to connect to"),
        ("advertise: orders.example:15008", "is not an IP address"),
        ("mesh_listen: ::1:15008", "is ambiguous; write [ ]"),
        ("mesh_listen: '[127.0.0.1]:15008'", "is ambiguous"),
        ("mesh_listen: '[fe80::1%eth0]:15008'", "is not taken"),
        ("mesh_listen: '[::ffff:127.0.0.1]:15008'", "is not taken"),
        ("admin: localhost:15000", "'localhost' is not an IP address; write 127.0.0.1"),
        ("admin: 'unix:relative'", "is not a socket's path"),
        (f"admin: 'unix:/{'a' * 107}'", "is not a socket's path"),
        # choices
        ("http2_engine: fast", "'fast' is not one of relay | reference"),
        ("http2_engine: rely", "'rely' is not one of relay | reference; did you mean 'relay'?"),
        ("access_log: offf", "'offf' is not one of all | denied | off; did you mean 'off'?"),
        ("inbound: [{port: 1, app: '127.0.0.1:1', protocol: tcp}]", "inbound[0].protocol: tcp is not yet available"),
        ("inbound: [{port: 1, app: '127.0.0.1:1', protocol: http}]", "did you mean 'http"),
        # what is missing or twice
        ("inbound: [{port: 1, app: '127.0.0.1:1'}]", "inbound[0]: field 'protocol' is missing"),
        (
            "inbound: [{port: 1, app: '127.0.0.1:1', protocol: http1}, {port: 1, app: '127.0.0.1:2', protocol: http1}]",
            "inbound[1].port: port 1 is given twice",
        ),
        (f"inbound: [{', '.join(['x'] * 65)}]", "inbound: has 65 items; at most 64"),
        (
            "inbound: [{port: 1, app: '127.0.0.1:1', protocol: http1, plaintext: 'unix:/x'}]",
            "inbound[0].plaintext: 'unix:/x' has no port",
        ),
        (
            "inbound: [{port: 1, app: '127.0.0.1:1', protocol: http1, plaintext: 8080}]",
            "inbound[0].plaintext: must be text, but is a number",
        ),
        ("inbound: [{port: 1, app: '127.0.0.1:1', protocol: http1, plain: a}]", "did you mean 'plaintext'?"),
        ("outbound: {ports: [{listen: '127.0.0.1:1', service: a.b.c, port: 1}]}", "'a.b.c' is not a service"),
        ("outbound: {ports: [{listen: '127.0.0.1:1', service: A, port: 1}]}", "'A' is not a service"),
        ("outbound: {ports: [{listen: '127.0.0.1:1', service: a.svc.cluster.local, port: 1}]}", "is not a service"),
        ("tracing: {otlp_endpoint: 'collector:4318'}", "is not a collector's URL; such as http://127.0.0.1:4318"),
        ("tracing: {otlp_endpoint: 'http://u:p@c:4318'}", "is not a collector's URL"),
        ("jwks: {allow_networks: [10.0.0.1/8]}", "is not a CIDR block; such as 10.0.0.0/8"),
        ("jwks: {allow_networks: [intranet]}", "is not a CIDR block"),
        ("jwks: {stale_s: 1}", "1.0 is out of range; from 10 to 604800"),
        ('join_token_file: "a\\0"', "is not a path"),
        ('state_dir: "a\\0"', "is not a path"),
        ("workload_api: run/agent.sock", "is not a socket's path; an absolute path of at most 107 octets"),
        (f"workload_api: /{'a' * 107}", "is not a socket's path"),
        ("workload_api: /a\nadmin: 'unix:/a'", "workload_api: unix:/a is admin's already"),
        ("workload_api_mode: 0777", "every user of this machine could speak with this service's identity"),
        ("workload_api_mode: 600", "'600' is not one of 0600 | 0660"),
        ('svid_dir: "a\\0"', "is not a path"),
        ("cache: maybe", "'maybe' is not one of true | false"),
        ("cache: true", "has no place to be; set state_dir as well"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_refused_with_its_place_and_a_way_out(line: str, says: str) -> None:
    """`file:line:column: field: message; hint`, and nothing of the file takes effect."""
    message = refusal(f"service: a\n{line}\n")
    assert says in message
    assert re.match(r"mesh\.yaml(:\d+:\d+)?: ", message)
    assert message.isprintable()
    assert message.isascii()


def test_what_can_be_chosen_is_said_once() -> None:
    """A word that resembles none of them gets no hint: the message has all there are."""
    assert refusal("service: a\nhttp2_engine: fast\n").endswith("'fast' is not one of relay | reference")


@pytest.mark.parametrize("app", ["10.0.0.7:8080", "0.0.0.0:8080", "[::]:8080", "[2001:db8::1]:8080"])
def test_the_app_must_be_on_loopback(app: str) -> None:
    """Else it could be reached past its sidecar, and the message says so."""
    message = refusal(f"service: a\ninbound: [{{port: 8080, app: '{app}', protocol: http1}}]")
    assert "is not on loopback: the app could be reached from outside without its sidecar" in message
    assert "write 127.0.0.1:8080, [::1]:8080 or unix:/path" in message


@pytest.mark.parametrize("app", ["127.0.0.1:8080", "127.9.9.9:8080", "[::1]:8080", "unix:/run/app.sock"])
def test_any_loopback_address_or_unix_socket_will_do_for_the_app(app: str) -> None:
    """127.0.0.0/8, ::1 and paths."""
    config = parse(f"service: a\ninbound: [{{port: 8080, app: '{app}', protocol: http1}}]", "mesh.yaml")
    assert str(config.inbound[0].app) == app


def test_g20_the_admin_port_must_be_on_loopback() -> None:
    """It shows the configuration; health is what strangers may see."""
    assert "admin: 0.0.0.0:15000 is not on loopback" in refusal("service: a\nadmin: 0.0.0.0:15000")
    assert parse("service: a\nadmin: unix:/run/admin.sock", "m").admin == Address(path="/run/admin.sock")
    assert parse("service: a\nhealth: 0.0.0.0:9", "m").health == Address("0.0.0.0", 9)


@pytest.mark.parametrize(
    "outbound", ["{listen: '10.0.0.7:15001'}", "{ports: [{listen: '0.0.0.0:9101', service: b, port: 1}]}"]
)
def test_outbound_ports_must_be_on_loopback(outbound: str) -> None:
    """Whoever reaches them speaks with this service's identity."""
    assert "whoever reaches this port speaks with this service's identity" in refusal(
        f"service: a\noutbound: {outbound}"
    )


def test_g13_a_token_in_the_configuration_is_refused_and_not_repeated() -> None:
    """It goes into a file; an error message goes into logs."""
    token = "hauberk1.0123456789abcdef.c2VjcmV0c2VjcmV0c2VjcmV0"
    message = refusal(f"service: a\njoin_token_file: {token}")
    assert "put the token into a file of mode 0600" in message
    assert "c2VjcmV0" not in message


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ("mesh_listen: 127.0.0.1:15000", "admin: 127.0.0.1:15000 is mesh_listen's already (127.0.0.1:15000)"),
        (
            "inbound: [{port: 80, app: '127.0.0.1:8080', protocol: http1, plaintext: '0.0.0.0:8080'}]",
            "inbound[0].app: 127.0.0.1:8080 is where the sidecar itself listens (inbound[0].plaintext: 0.0.0.0:8080)",
        ),
        (
            "inbound: [{port: 80, app: '127.0.0.1:8080', protocol: http1, plaintext: '10.0.0.1:15008'}]",
            "inbound[0].plaintext: 10.0.0.1:15008 is mesh_listen's already (0.0.0.0:15008)",
        ),
        ("mesh_listen: 0.0.0.0:15001", "outbound.listen: 127.0.0.1:15001 is mesh_listen's already"),
        ("health: '[::]:15000'", "health: [::]:15000 is admin's already"),
        (
            "inbound: [{port: 80, app: '127.0.0.1:15008', protocol: http1}]",
            "inbound[0].app: 127.0.0.1:15008 is where the sidecar itself listens (mesh_listen: 0.0.0.0:15008)",
        ),
        (
            "inbound: [{port: 80, app: 'unix:/a', protocol: http1}]\nadmin: 'unix:/a'",
            "is where the sidecar itself listens (admin: unix:/a)",
        ),
        (
            "outbound: {ports: [&, &]}".replace("&", "{listen: '127.0.0.1:1', service: b, port: 1}"),
            "outbound.ports[1].listen: 127.0.0.1:1 is outbound.ports[0].listen's already",
        ),
    ],
)
def test_no_two_may_listen_on_one_port(lines: str, says: str) -> None:
    """Found before anything is bound; wildcards count, and so does the app (a loop otherwise)."""
    assert says in refusal(f"service: a\n{lines}")


def test_ports_on_different_addresses_and_free_ports_do_not_collide() -> None:
    """127.0.0.2 is another address than 127.0.0.1, IPv6 another than 0.0.0.0; 0 means any free port."""
    parse("service: a\nadmin: 127.0.0.2:15001", "m")
    parse("service: a\nadmin: '[::1]:15008'", "m")
    parse("service: a\nadmin: 127.0.0.1:0\nmesh_listen: 127.0.0.1:0\nhealth: 127.0.0.1:0", "m")


@pytest.mark.parametrize("word", ["off", "null", "~", ""])
def test_listeners_that_may_be_missing_can_be_turned_off(word: str) -> None:
    """In the words of YAML, `off` included, which YAML 1.1 reads as false."""
    config = parse(f"service: a\nhealth: {word}\nadvertise: {word}\noutbound:\n  listen: {word}\n", "m")
    assert (config.health, config.advertise, config.outbound.listen) == (None, None, None)
    assert parse("service: a\naccess_log: off", "m").access_log == "off"


def test_an_empty_document_and_a_huge_one_are_refused() -> None:
    """Neither is a configuration."""
    assert "is empty" in refusal("")
    assert "is empty" in refusal("# nothing\n")
    assert "is larger than" in refusal("#" * (DOCUMENT_OCTETS_MAX + 1))
    assert "must be a mapping" in refusal("- service: a")
    assert "mesh.yaml:1:1: field 'service' is missing" in refusal("namespace: a")


def test_a_file_is_read_and_named(tmp_path: Path) -> None:
    """Messages carry the path as given."""
    path = tmp_path / "sidecar.yaml"
    path.write_text(WHOLE)
    assert load(str(path)) == parse(WHOLE, str(path))
    path.write_bytes(b"service: \xff")
    with pytest.raises(ConfigError, match="is not UTF-8 text at octet 9"):
        load(str(path))
    with pytest.raises(ConfigError, match="cannot be read: No such file or directory"):
        load(str(tmp_path / "missing.yaml"))


def test_standard_input_is_read_for_a_dash(monkeypatch: pytest.MonkeyPatch) -> None:
    """And named <stdin>."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"service: orders")))
    assert load("-") == Config(service="orders", source="<stdin>")


@given(st.text(alphabet=st.sampled_from("service: orders\n{}[]&*!-'\"#|>%@`,?\0\t\\ab1"), max_size=200))
def test_no_text_makes_the_loader_fail_in_any_other_way(text: str) -> None:
    """It is a configuration or a ConfigError."""
    try:
        parse(text, "m")
    except ConfigError as error:
        assert str(error).startswith("m:")  # noqa: PT017  # either outcome is right, one of them says more


@given(st.text(max_size=300))
def test_no_text_at_all_makes_the_loader_fail_in_any_other_way(text: str) -> None:
    """Also with every character there is, lone surrogates left to UTF-8."""
    try:
        parse(f"service: {text}", "m")
    except ConfigError as error:
        assert str(error).isascii()  # noqa: PT017  # as above


labels = st.from_regex(r"[a-z]([a-z0-9-]{0,10}[a-z0-9])?", fullmatch=True)
ports = st.integers(1, 65_535)


@st.composite
def configs(draw: st.DrawFn) -> Config:
    """Any configuration the loader could have made, ports apart from each other."""
    numbers = iter(draw(st.lists(ports, min_size=14, max_size=14, unique=True)))
    return Config(
        service=draw(labels),
        namespace=draw(labels),
        trust_domain=draw(st.sampled_from(["mesh.local", "prod.example.com"])),
        control_plane=Address(draw(st.sampled_from(["10.0.0.1", "cp.hauberk", "2001:db8::1"])), next(numbers)),
        join_token_file=draw(st.sampled_from(["", "-", "/run/token"])),
        state_dir="/var/lib/hauberk",
        cache=draw(st.booleans()),
        workload_api=draw(st.sampled_from(["", "/run/agent.sock"])),
        workload_api_mode=draw(st.sampled_from(["0600", "0660"])),
        svid_dir=draw(st.sampled_from(["", "/run/svid"])),
        mesh_listen=Address("0.0.0.0", next(numbers)),
        advertise=draw(st.sampled_from([None, Address("10.0.0.9", next(numbers))])),
        inbound=tuple(
            Inbound(port=number, app=draw(st.sampled_from([Address("::1", number), Address(path="/app")])),
                    protocol=draw(st.sampled_from([Protocol.HTTP1, Protocol.HTTP2])),
                    plaintext=draw(st.sampled_from([None, Address("10.0.0.9", number), Address("::", next(numbers))])))
            for number in (next(numbers), next(numbers))
        ),
        outbound=Outbound(
            listen=draw(st.sampled_from([None, Address("127.0.0.1", next(numbers))])),
            ports=(OutboundPort(listen=Address("127.0.0.1", next(numbers)), service=draw(labels), port=draw(ports)),),
        ),
        admin=Address("127.0.0.1", next(numbers)),
        health=draw(st.sampled_from([None, Address("::", 0)])),
        access_log=draw(st.sampled_from(["all", "denied", "off"])),
        timeouts=Timeouts(connect_s=draw(st.integers(10, 60_000)) / 1000),
        limits=Limits(connections_max=draw(st.integers(1, 1_000_000))),
        tracing=Tracing(sample_ratio=draw(st.integers(0, 100)) / 100),
        jwks=Jwks(allow_networks=draw(st.sampled_from([(), ("10.0.0.0/8", "fd00::/8")]))),
        source="m",
    )  # fmt: skip


@given(configs())
def test_what_is_described_reads_back_as_the_same_configuration(config: Config) -> None:
    """/config shows the truth, in the shape it is written in."""
    assert parse(to_yaml(config), "m") == config
    assert parse(describe(config), "m") == config
    json.dumps(describe(config))


def test_every_field_of_the_tree_can_be_written_and_is_described() -> None:
    """A field added to the tree and forgotten here would be silently fixed at its default."""
    assert set(config_load.FIELDS) == set(get_type_hints(Config)) - {"source"}
    assert set(describe(Config(service="a"))) == set(config_load.FIELDS)
    assert set(config_load.TIMEOUTS) == set(get_type_hints(Timeouts))
    assert set(config_load.LIMITS) == set(get_type_hints(Limits))
    for name, (least, most) in {**config_load.TIMEOUTS, **config_load.LIMITS}.items():
        default = getattr(Timeouts(), name, None) or getattr(Limits(), name)
        assert least <= default <= most


def test_the_command_line_goes_before_the_file() -> None:
    """Only what is given changes; None is not given."""
    config = parse(WHOLE, "mesh.yaml")
    changed = with_overrides(config, service="billing", health="off", namespace=None, outbound_listen="127.0.0.1:7")
    assert (changed.service, changed.namespace, changed.health) == ("billing", "shop", None)
    assert changed.outbound == Outbound(listen=Address("127.0.0.1", 7), ports=config.outbound.ports)
    assert changed.inbound == config.inbound
    assert changed.source == "mesh.yaml"


def test_a_port_on_the_command_line_is_the_one_inbound_port() -> None:
    """`hauberk run --service orders --port 8080`: the app listens there on loopback and speaks HTTP/1.1."""
    config = with_overrides(service="orders", port=8080)
    assert config.inbound == (Inbound(port=8080, app=Address("127.0.0.1", 8080), protocol=Protocol.HTTP1),)
    config = with_overrides(parse(WHOLE, "m"), port=80, app="127.0.0.1:8000", protocol="http2")
    assert config.inbound == (Inbound(port=80, app=Address("127.0.0.1", 8000), protocol=Protocol.HTTP2),)


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ({}, "--service is needed"),
        ({"service": "Orders"}, "command line: service: 'Orders' is not a name"),
        ({"service": "a", "app": "127.0.0.1:1"}, "--app and --protocol need --port"),
        ({"service": "a", "port": 0}, "inbound[0].port: 0 is out of range"),
        ({"service": "a", "port": 80, "app": "10.0.0.1:80"}, "is not on loopback"),
        ({"service": "a", "port": 15008}, "is where the sidecar itself listens"),
        ({"service": "a", "colour": "red"}, "unknown field 'colour'"),
    ],
)
def test_the_command_line_is_checked_like_the_file(flags: dict[str, object], says: str) -> None:
    """The same readers, the same refusals."""
    with pytest.raises(ConfigError) as caught:
        with_overrides(**flags)
    assert says in str(caught.value)
