"""Verdicts where not everything is known: what is claimed holds whatever the rest turns out to be."""

from __future__ import annotations

import dataclasses

from hypothesis import event, given, settings
from hypothesis import strategies as st

from control_plane.policy.rehearse.possible import Known, Views
from sidecar.rules.authz import Authorizer, Facts, Permit
from sidecar.rules.request_facts import operation_attributes, peer_attributes
from sidecar.rules.snapshot import Action, AuthorizationPolicy, Rule, Snapshot
from tests.control_plane.policy.rehearse.rules import facts, rules, snapshot


def known_of(request: Facts, *, has_no_token: bool, proxies: int) -> Known:
    """As a record has it: neither headers nor tokens, and of the addresses the source's."""
    principal, namespace, account, source_ip, _, _, remote_ip = peer_attributes(request.peer)
    return Known(
        peer=(principal, namespace, account, source_ip, None, None, remote_ip if proxies == 0 else None),
        operation=operation_attributes(request.host, request.port, request.method, request.path),
        has_no_token=has_no_token,
        is_tcp=not request.method,
    )


policies = st.lists(st.tuples(st.sampled_from([Action.ALLOW, Action.DENY]), rules), max_size=3)


def of(listed: list[tuple[Action, Rule]], default: Action, proxies: int) -> Snapshot:
    found = tuple(
        AuthorizationPolicy(namespace="s", name=f"p{number}", action=action, rules=(rule,))
        for number, (action, rule) in enumerate(listed)
    )
    return dataclasses.replace(snapshot(proxies), policies=found, default_action=default)


def views_of(made: Snapshot, *, has_users: bool) -> Views:
    views = Views(made)
    views.has_users = has_users
    return views


def allows(made: Snapshot, request: Facts) -> bool:
    return isinstance(Authorizer(made).authorize(request), Permit)


@settings(deadline=None)
@given(policies, policies, facts(), st.lists(facts(), min_size=4, max_size=12), st.integers(0, 1), st.booleans())
def test_what_can_be_told_holds_whatever_is_not_known(
    before: list[tuple[Action, Rule]],
    after: list[tuple[Action, Rule]],
    recorded: Facts,
    others: list[Facts],
    proxies: int,
    has_users: bool,
) -> None:
    """A verdict that is told is that of every call that the record could be of; equal forms decide every one alike."""
    sides = [of(before, Action.DENY, proxies), of([*before, *after], Action.DENY, proxies)]
    known = known_of(recorded, has_no_token=not has_users, proxies=proxies)
    told = [views_of(one, has_users=has_users).possible(known) for one in sides]
    event(f"told: {[one.allowed for one in told]}, alike: {told[0].form == told[1].form}")
    for other in others:
        could_be = dataclasses.replace(
            recorded,
            headers=other.headers if recorded.method else (),
            token=other.token if has_users and recorded.method else None,
            destination_ip=other.destination_ip,
            sni=other.sni,
            remote_ip=other.remote_ip if proxies else None,
        )
        verdicts = [allows(one, could_be) for one in sides]
        for verdict, possible in zip(verdicts, told, strict=True):
            assert possible.allowed in (None, verdict)
            assert (possible.allowed is None) == bool(possible.missing)
        if told[0].form == told[1].form:
            assert verdicts[0] == verdicts[1]
