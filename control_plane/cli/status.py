"""`hauberk status`: who is in the mesh, and is all well."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from control_plane.cli.options import output_option, reaches_control_plane
from control_plane.cli.verb import Verb

if TYPE_CHECKING:
    from protos.hauberk.v1 import admin_pb2

BACKDATE_S = 60.0
"""Certificates are valid from so long before they are made: what clocks may be off by."""
SKEW_WARN_S = 30.0
"""Half of that."""
LATE_AT = 0.7
"""Of its life: a certificate is renewed at half."""


@click.command(
    "status",
    cls=Verb,
    short_help="Show the control plane and its sidecars.",
    examples=("hauberk status", "hauberk status -o json | jq '.workloads[].spiffe_id'"),
)
@output_option()
@reaches_control_plane
def status(*, output: str, socket: Path) -> None:
    """Show the control plane and every sidecar it knows.

    POLICY is the version a sidecar lives by, and the one last sent to it if that is another. A change that does not
    concern a sidecar is not sent to it, so its version may be below the current one. CERTIFICATE says when the one it
    holds ends.
    """
    from control_plane.cli.client import Client
    from control_plane.cli.output import plain, print_data
    from protos.hauberk.v1 import admin_pb2

    with Client(socket) as control_plane:
        answer = control_plane.call("Admin/Status", admin_pb2.StatusRequest(), admin_pb2.StatusResponse)
    if output == "table":
        show(answer)
    else:
        print_data(plain(answer), output)


def show(answer: admin_pb2.StatusResponse) -> None:
    """The control plane in a few lines, then one line for each sidecar, then what needs somebody's attention."""
    from control_plane.cli.output import print_pairs, print_table, until

    now = answer.server_time
    print_pairs(
        [
            ("trust domain", answer.trust_domain),
            ("control plane", answer.control_plane_version),
            ("policy version", f"{answer.version} (epoch {answer.epoch})"),
            ("default action", answer.default_action),
            *_anchor(answer),
        ]
    )
    click.echo()
    if not answer.workloads:
        how = "`hauberk token create --service NAME` makes a token for one"
        click.echo(f"no sidecar has joined yet; {how if answer.anchor_sha256 else 'none can before there is a root'}")
        return
    rows = [
        [
            f"{one.service}.{one.namespace}",
            one.spiffe_id,
            one.instance[:8] or "-",
            presence(one, now),
            one.ports or "-",
            one.address or "-",
            policy(one),
            until(one.certificate_not_after, now),
            f"{round(one.clock_skew_s, 1) + 0.0:+.1f}s" if one.connected else "-",
            one.sidecar_version or "-",
        ]
        for one in sorted(answer.workloads, key=lambda one: (one.namespace, one.service, one.instance))
    ]
    columns = [
        "SERVICE",
        "IDENTITY",
        "INSTANCE",
        "SIDECAR",
        "PORTS",
        "ADDRESS",
        "POLICY",
        "CERTIFICATE",
        "CLOCK",
        "VERSION",
    ]
    print_table(columns, rows)
    for line in problems(answer):
        click.secho(line, fg="yellow", err=True)


def _anchor(answer: admin_pb2.StatusResponse) -> list[tuple[str, str]]:
    """Of the active root; a mesh whose root is kept offline begins without one."""
    from control_plane.cli.output import clock, until

    if not answer.anchor_sha256:
        return [("trust anchor", "none yet: the offline root has signed nothing; see `hauberk ca status`")]
    ends = f"{clock(answer.anchor_not_after)} ({until(answer.anchor_not_after, answer.server_time)})"
    return [("trust anchor", answer.anchor_sha256), ("anchor valid until", ends)]


def presence(one: admin_pb2.WorkloadStatus, now: float) -> str:
    """Whether its sidecar is connected, and if not, since when."""
    from control_plane.cli.output import until

    if one.connected:
        return "connected"
    return f"gone ({until(one.last_seen, now)})" if one.last_seen else "gone"


def policy(one: admin_pb2.WorkloadStatus) -> str:
    """Which version it lives by, against the one it was sent."""
    if one.rejected_reason:
        return f"{one.acknowledged_version} (refused {one.pushed_version})"
    if one.acknowledged_version != one.pushed_version:
        return f"{one.acknowledged_version} ({one.pushed_version} sent)"
    return str(one.acknowledged_version) if one.acknowledged_version else "-"


def problems(answer: admin_pb2.StatusResponse) -> list[str]:
    """What an operator should look at, a line each."""
    from control_plane.cli.output import printable, span

    lines = []
    for one in answer.workloads:
        who = f"{one.service}.{one.namespace} ({one.instance[:8] or f'node {one.node_id[:8]}'})"
        if one.rejected_reason:
            lines.append(f"{who} refused version {one.pushed_version}: {one.rejected_reason}")
        if abs(one.clock_skew_s) > SKEW_WARN_S:
            lines.append(f"{who}: its clock is off by {span(one.clock_skew_s)}; set it by NTP")
        if one.certificate_not_after and one.certificate_not_after <= answer.server_time:
            lines.append(f"{who}: its certificate has expired; it can neither call nor be called")
        elif _is_late(one, answer.server_time):
            ends = span(one.certificate_not_after - answer.server_time)
            lines.append(f"{who}: its certificate ends in {ends} and was not renewed; see the sidecar's log")
        if one.alarm:
            lines.append(f"{who}: {one.alarm}; when it is dealt with: hauberk reinstate alarm {one.node_id}")
    return [printable(line).replace("\n", " ") for line in lines]


def _is_late(one: admin_pb2.WorkloadStatus, now: float) -> bool:
    """Has most of its certificate's life gone by?"""
    if not one.connected or not one.certificate_not_before or not one.certificate_not_after:
        return False
    made_at = one.certificate_not_before + BACKDATE_S
    return now > made_at + LATE_AT * (one.certificate_not_after - made_at)
