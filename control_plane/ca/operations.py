"""Steps, done: by time (`tick`) and by operators. Each is judged first (`slots`, `refusals`), then made (`records`),
then written (`book`); a process killed between two steps goes on from the first at its next start.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from certs.spiffe_id import TrustDomain
from control_plane.ca.book import Book
from control_plane.ca.errors import CaError, CaRefused
from control_plane.ca.hierarchy import Issuer, make_request
from control_plane.ca.offline import SignCommand, check_distinct, names_key, read_chain
from control_plane.ca.records import Maker
from control_plane.ca.refusals import (
    Refusal,
    alarms,
    breaks,
    listed,
    refuse_another_root,
    refuse_prepare,
    refuse_recovery,
    refuse_step,
)
from control_plane.ca.root import Root
from control_plane.ca.slots import (
    CaPolicy,
    Live,
    Readiness,
    Step,
    StepKind,
    active,
    advance,
    is_valid,
    newest,
    next_steps,
    plan,
)
from control_plane.ca.vault import Vault
from control_plane.logs import fields
from control_plane.model import Authority, Level, Phase

log = logging.getLogger(__name__)

OURSELVES = "control plane"
RETRY_S = 10.0
STEPS_MAX = 16
"""In one tick: a rotation of every level at once takes nine."""
DOUBT_REFUSAL = (
    "this machine's clock went ahead less than a day ago, so who would lose by it may count as gone; look whether the"
    " clock is right, and force it, or wait"
)
DOUBT_ALARM = "this machine's clock went ahead less than a day ago: until it is trusted again roots stay as they are"
BREAKS_TOLD_MAX = 100
"""In one audit record."""
_PAST = {
    StepKind.ACTIVATE: "activated",
    StepKind.TAINT: "tainted",
    StepKind.REVOKE: "revoked",
    StepKind.RETIRE: "retired",
}


class Operations:
    """Changes authorities."""

    def __init__(
        self,
        book: Book,
        maker: Maker,
        policy: CaPolicy,
        trust_domain: TrustDomain,
        vault: Vault,
        *,
        sign_command: Sequence[str] = (),
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.policy = policy
        self._book = book
        self._maker = maker
        self._trust_domain = trust_domain
        self._vault = vault
        self._command = SignCommand(sign_command, monotonic) if sign_command else None
        self.is_clock_doubted = False
        self._retry_at = 0.0
        self._alarms: tuple[str, ...] = ()
        self._failure = ""

    def begin(self, now: float, adopted: Root | None) -> None:
        """At start, before anybody is served: what a new mesh needs, or the root of an older data directory, in one
        transaction. Raises CaError, ControlPlaneError."""
        if self._book.view.authorities:
            return
        jwt = replace(self._maker.jwt_key(now), phase=Phase.ACTIVE, activated_at=now)
        if adopted is not None:
            root = self._maker.adopted_root(adopted)
            root = replace(root, phase=Phase.ACTIVE, activated_at=root.prepared_at)
            self._book.begin([root, jwt], "adopted", now)
            log.warning(
                "the root of an older data directory is in the database now; its files under ca/ are not used any more"
                " and may be removed once there is a backup",
                extra=fields(authority=root.authority_id),
            )
        elif self.policy.is_root_offline:
            self._book.begin([self._maker.request(now, ""), jwt], "requested", now)
        else:
            self._book.begin([*self._new_hierarchy(now, None), jwt], "created", now)

    def leaf_lifetime(self, lifetime_s: float) -> None:
        """What leaves are asked for now: who signs them must live longer."""
        if lifetime_s > 0 and lifetime_s != self.policy.leaf_lifetime_s:
            lifetime_s = min(lifetime_s, self.policy.leaf_lifetime_max_s)
            self.policy = replace(self.policy, leaf_lifetime_s=lifetime_s)

    def close(self) -> None:
        """Ends a command that is still running. Idempotent."""
        if self._command is not None:
            self._command.close()

    # by time

    def tick(self, now: float, readiness: Readiness) -> bool:
        """See `CertificateAuthority.tick`."""
        before = self._book.view
        if self._retry_at - RETRY_S <= now < self._retry_at:
            return False
        try:
            self._hear_command(now)
            self._run_due(now, readiness)
            self._book.forget(now)
            self._failure = ""
        except Exception as failure:
            # Whatever it is, the rest of the housekeeping must go on.
            self._retry_at = now + RETRY_S
            self._failure = f"the last step of the CA failed: {failure}"
            log.exception("a step of the CA failed; it is tried again", extra=fields(retry_s=RETRY_S))
        self._tell_alarms(now, readiness)
        return self._book.view is not before

    def next_steps(self, now: float, readiness: Readiness) -> tuple[Step, ...]:
        return next_steps(self._book.view.authorities, now, self.policy, readiness, self._live(now))

    def alarms(self, now: float, readiness: Readiness) -> tuple[str, ...]:
        found = alarms(self._book.view.authorities, now, self.policy, readiness, self._live(now))
        doubt = DOUBT_ALARM if self.is_clock_doubted else ""
        return tuple(filter(None, (*found, doubt, self._failure)))

    def _run_due(self, now: float, readiness: Readiness) -> None:
        for _ in range(STEPS_MAX):
            due = plan(self._book.view.authorities, now, self.policy, readiness, self._live(now))
            if self.is_clock_doubted:
                due = tuple(step for step in due if self._is_harmless(step, now))
            if not due:
                return
            if due[0].waits_for:
                told = fields(authority=due[0].authority_id, level=due[0].level.value, missing=listed(due[0].waits_for))
                log.error("it signs from now on although not everybody has said that they know it", extra=told)
            self._do(due[0], now, OURSELVES)
        log.error("the CA's steps do not come to an end", extra=fields(steps=STEPS_MAX))

    def _is_harmless(self, step: Step, now: float) -> bool:
        """Also if the clock is ahead, so that those who are waited for count as gone."""
        if step.kind is StepKind.RETIRE or step.level is Level.ROOT:
            return False
        signing = active(self._book.view.authorities, Level.INTERMEDIATE)
        if step.kind is not StepKind.ACTIVATE or step.level is Level.JWT or signing is None:
            return True
        return self._by_id(step.authority_id).parent_id == signing.parent_id or not is_valid(signing, now)

    def _do(self, step: Step, now: float, by: str) -> Authority:
        if step.kind is StepKind.PREPARE:
            return self._prepare(step.level, now, by)
        return self._advance(step.authority_id, step.kind, now, by)

    def _live(self, now: float) -> Live:
        """Asked only when it matters: what signs, or will, is not retired."""
        ends = any(one.phase in (Phase.OLD, Phase.TAINTED) for one in self._book.view.authorities)
        return self._book.ends(now) if ends else Live()

    def _tell_alarms(self, now: float, readiness: Readiness) -> None:
        found = self.alarms(now, readiness)
        for one in found:
            if one.split(" has waited ")[0] not in {known.split(" has waited ")[0] for known in self._alarms}:
                log.error("alarm of the CA: %s", one)
        self._alarms = found

    # by operators

    def prepare(self, level: Level, now: float, by: str, *, force: bool) -> Authority:
        authorities = self._book.view.authorities
        _raise(refuse_prepare(authorities, level, now, self.policy, force=force))
        requested = newest(authorities, level, Phase.REQUESTED)
        if requested is not None and not force:
            return requested
        return self._prepare(level, now, by)

    def activate(self, authority_id: str, now: float, by: str, readiness: Readiness, *, force: bool) -> Authority:
        forced = self._check(authority_id, StepKind.ACTIVATE, now, readiness, force=force)
        done = self._advance(authority_id, StepKind.ACTIVATE, now, by, forced)
        self._run_due(now, readiness)
        return done

    def taint(self, authority_id: str, now: float, by: str) -> Authority:
        self._check(authority_id, StepKind.TAINT, now, Readiness(), force=False)
        return self._advance(authority_id, StepKind.TAINT, now, by)

    def revoke(self, authority_id: str, now: float, by: str, *, force: bool) -> Authority:
        forced = self._check(authority_id, StepKind.REVOKE, now, Readiness(), force=force)
        return self._advance(authority_id, StepKind.REVOKE, now, by, forced)

    def breaks(self, authority_id: str, kind: StepKind, now: float, readiness: Readiness) -> tuple[str, ...]:
        one = self._by_id(authority_id)
        return breaks(one, kind, readiness, self._book.live(now))

    def recover(self, now: float, by: str, *, force: bool) -> Authority:
        """See `CertificateAuthority.recover`."""
        authorities = self._book.view.authorities
        old = active(authorities, Level.ROOT)
        refusal = refuse_recovery(authorities, now, self.policy)
        if refusal is not None and not (force and refusal.can_force):
            _raise(refusal)
        self._make_room(now)
        authorities = self._book.view.authorities
        new = self._new_hierarchy(now, old)
        superseded = [
            replace(one, phase=Phase.OLD)
            for one in authorities
            if one.phase is Phase.ACTIVE and one.level is not Level.JWT
        ]
        told = {"forced": refusal.reason} if refusal is not None else {}
        self._book.write([*superseded, *new], "recovered", now, by, **told)
        log.warning("the CA has a new root", extra=fields(authority=new[0].authority_id, by=by))
        return new[0]

    def install(self, certificate_pem: str, now: float, by: str) -> Authority:
        """See `CertificateAuthority.install`."""
        authorities = self._book.view.authorities
        chain = read_chain(certificate_pem, self._trust_domain, authorities)
        requested = next(
            (one for one in authorities if one.phase is Phase.REQUESTED and names_key(chain.intermediate, one)), None
        )
        if requested is None:
            raise CaRefused("the certificate is for none of the keys that were requested; see `hauberk ca status`")
        issuer = Issuer(certificate=chain.intermediate, anchor=chain.root, private_key=self._vault.unseal(requested))
        try:
            made = self._maker.intermediate_record(issuer, requested.sealed_key, now)
        except CaError as failure:
            raise CaRefused(
                f"the signed intermediate {failure}; the extensions it needs are in docs/ca.md"
            ) from failure
        known = next((one for one in authorities if one.authority_id == made.parent_id), None)
        written = [made]
        if known is None:
            _raise(refuse_another_root(authorities))
            check_distinct(chain.root, authorities)
            current = active(authorities, Level.ROOT)
            root = self._maker.root_record(chain.root, b"", now, current)
            if current is None:
                root = replace(root, phase=Phase.ACTIVE, activated_at=now)
            written.append(root)
        elif known.certificate_der != issuer.anchor_der:
            raise CaRefused(
                f"the root {known.authority_id} is known with another certificate of the same key; make a root with a"
                " new key, or sign under the certificate that is known"
            )
        elif known.phase not in (Phase.PREPARED, Phase.ACTIVE):
            raise CaRefused(f"its root {known.authority_id} is {known.phase.value}; sign with another one")
        self._book.write(written, "installed", now, by)
        return made

    def csr_pem(self, authority_id: str) -> str:
        one = self._by_id(authority_id)
        if one.phase is not Phase.REQUESTED:
            return ""
        return make_request(self._vault.unseal(one), self._trust_domain).decode("ascii")

    def find(self, prefix: str, level: Level | None) -> Authority:
        found = [
            one
            for one in self._book.view.authorities
            if one.authority_id.startswith(prefix) and level in (None, one.level)
        ]
        if len(found) != 1:
            what = "no authority" if not found else f"{len(found)} authorities"
            raise CaRefused(f"{what} of that id ({prefix}); see `hauberk ca status`")
        return found[0]

    # how it is done

    def _make_room(self, now: float) -> None:
        """For one more root: what is to be retired by time is retired now. Raises CaRefused."""
        if refuse_another_root(self._book.view.authorities) is not None:
            for step in plan(self._book.view.authorities, now, self.policy, Readiness(), self._live(now)):
                if step.level is Level.ROOT and step.kind is StepKind.RETIRE:
                    self._do(step, now, OURSELVES)
        _raise(refuse_another_root(self._book.view.authorities))

    def _new_hierarchy(self, now: float, predecessor: Authority | None) -> list[Authority]:
        root = replace(self._maker.root(now, predecessor), phase=Phase.ACTIVE, activated_at=now)
        intermediate = replace(self._maker.intermediate(root, now), phase=Phase.ACTIVE, activated_at=now)
        return [root, intermediate]

    def _prepare(self, level: Level, now: float, by: str) -> Authority:
        authorities = self._book.view.authorities
        root = active(authorities, Level.ROOT)
        if level is Level.ROOT:
            made = self._maker.root(now, root)
        elif level is Level.JWT:
            made = self._maker.jwt_key(now)
        elif root is None or self.policy.is_root_offline or not root.sealed_key:
            made = self._maker.request(now, root.authority_id if root is not None else "")
        else:
            made = self._maker.intermediate(root, now)
        event = "requested" if made.phase is Phase.REQUESTED else "prepared"
        self._book.write([made], event, now, by)
        log.info("authority %s", event, extra=fields(of_level=level.value, authority=made.authority_id, by=by))
        return made

    def _advance(
        self, authority_id: str, kind: StepKind, now: float, by: str, forced: Refusal | None = None
    ) -> Authority:
        """`forced`: what it was done against, for the audit file."""
        changed = advance(self._book.view.authorities, authority_id, kind, now)
        subject = next(one for one in changed if one.authority_id == authority_id)
        told: dict[str, str | list[str]] = {}
        if forced is not None:
            told = {"forced": forced.reason, "breaks": list(forced.breaks[:BREAKS_TOLD_MAX])}
        self._book.write(changed, _PAST[kind], now, by, **told)
        log.info("authority %s", _PAST[kind], extra=fields(of_level=subject.level.value, authority=authority_id, by=by))
        return subject

    def _check(
        self, authority_id: str, kind: StepKind, now: float, readiness: Readiness, *, force: bool
    ) -> Refusal | None:
        """What it would be refused for without `force`. Raises CaRefused."""
        self._by_id(authority_id)
        is_doubted = self.is_clock_doubted and kind is not StepKind.TAINT
        doubt = Refusal(reason=DOUBT_REFUSAL, can_force=True) if is_doubted else None
        if not force:
            _raise(doubt)
        authorities, live = self._book.view.authorities, self._book.live(now)
        _raise(refuse_step(authorities, authority_id, kind, now, readiness, live, force=force))
        return (refuse_step(authorities, authority_id, kind, now, readiness, live) or doubt) if force else None

    def _by_id(self, authority_id: str) -> Authority:
        """Raises KeyError."""
        return {one.authority_id: one for one in self._book.view.authorities}[authority_id]

    def _hear_command(self, now: float) -> None:
        """Sends the open request to the command, and takes its answer when it is there. Raises CaRefused, OSError."""
        command = self._command
        if command is None:
            return
        if command.is_running:
            answer = command.answer()
            if answer is not None:
                self.install(answer, now, "sign_command")
            return
        requested = newest(self._book.view.authorities, Level.INTERMEDIATE, Phase.REQUESTED)
        if requested is not None:
            command.start(self.csr_pem(requested.authority_id))


def _raise(refusal: Refusal | None) -> None:
    if refusal is not None:
        raise CaRefused(refusal.reason, breaks=refusal.breaks, can_force=refusal.can_force)
