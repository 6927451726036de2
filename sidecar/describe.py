"""A `Config` as plain data: in the shape a person writes, and in the shape one process hands another.

It needs nothing of what reads YAML, which a sidecar that runs has no more use for.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from sidecar.config import Address, Config, Inbound, Jwks, Limits, Outbound, OutboundPort, Timeouts, Tracing
from sidecar.rules.snapshot import Protocol


def describe(config: Config) -> dict[str, object]:
    """`config` as plain data in the shape it is written in. It holds no secret: of the token only where it lies."""
    return {
        "service": config.service,
        "namespace": config.namespace,
        "trust_domain": config.trust_domain,
        "control_plane": str(config.control_plane),
        "join_token_file": config.join_token_file,
        "state_dir": config.state_dir,
        "cache": config.cache,
        "workload_api": config.workload_api,
        "workload_api_mode": config.workload_api_mode,
        "svid_dir": config.svid_dir,
        "mesh_listen": str(config.mesh_listen),
        "advertise": str(config.advertise) if config.advertise else None,
        "inbound": [
            {
                "port": port.port,
                "app": str(port.app),
                "protocol": port.protocol.value,
                "plaintext": str(port.plaintext) if port.plaintext else "off",
            }
            for port in config.inbound
        ],
        "outbound": {
            "listen": str(config.outbound.listen) if config.outbound.listen else "off",
            "ports": [
                {"listen": str(port.listen), "service": port.service, "port": port.port}
                for port in config.outbound.ports
            ],
        },
        "admin": str(config.admin),
        "health": str(config.health) if config.health else "off",
        "http2_engine": config.http2_engine,
        "access_log": config.access_log,
        "timeouts": asdict(config.timeouts),
        "limits": asdict(config.limits),
        "tracing": asdict(config.tracing),
        "jwks": {**asdict(config.jwks), "allow_networks": list(config.jwks.allow_networks)},
    }


def dump(config: Config) -> bytes:
    """The tree as JSON, field by field, for `undump`."""
    return json.dumps(asdict(config), default=_word).encode()


def undump(octets: bytes) -> Config:
    """What `dump` was given. Only for what was dumped by the same version: nothing is checked again."""
    found: dict[str, Any] = json.loads(octets)
    outbound = found["outbound"]
    ports = [OutboundPort(**{**port, "listen": Address(**port["listen"])}) for port in outbound["ports"]]
    found |= {
        "control_plane": Address(**found["control_plane"]),
        "mesh_listen": Address(**found["mesh_listen"]),
        "advertise": _address(found["advertise"]),
        "inbound": tuple(
            Inbound(
                port=one["port"],
                app=Address(**one["app"]),
                protocol=Protocol(one["protocol"]),
                plaintext=_address(one["plaintext"]),
            )
            for one in found["inbound"]
        ),
        "outbound": Outbound(listen=_address(outbound["listen"]), ports=tuple(ports)),
        "admin": Address(**found["admin"]),
        "health": _address(found["health"]),
        "timeouts": Timeouts(**found["timeouts"]),
        "limits": Limits(**found["limits"]),
        "tracing": Tracing(**found["tracing"]),
        "jwks": Jwks(**{**found["jwks"], "allow_networks": tuple(found["jwks"]["allow_networks"])}),
    }
    return Config(**found)


def _word(value: object) -> str:
    assert isinstance(value, Protocol)
    return value.value


def _address(found: Mapping[str, Any] | None) -> Address | None:
    return Address(**found) if found is not None else None
