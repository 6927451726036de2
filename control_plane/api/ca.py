"""CaStatus, CaStep, CaInstall and CaRehearse: the certificate authorities, for operators."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from certs.bundle import pin
from control_plane.api.authz import Caller
from control_plane.api.ca_topology import topology
from control_plane.ca.authority import CertificateAuthority
from control_plane.ca.errors import CaRefused
from control_plane.ca.rehearse.model import Question, RehearsedFailure
from control_plane.ca.rehearse.play import rehearse
from control_plane.ca.slots import Live, Readiness, Step, StepKind, is_distrusted, newest
from control_plane.errors import FailedPrecondition, InvalidRequest
from control_plane.model import Authority, Level, Phase
from control_plane.push.hub import Hub
from control_plane.registry import Registry
from control_plane.store.base import Store
from protos.hauberk.v1 import admin_pb2 as pb

RECOVER = "recover"
STEPS = (*(kind.value for kind in (StepKind.PREPARE, StepKind.ACTIVATE, StepKind.TAINT, StepKind.REVOKE)), RECOVER)
HORIZON_S_MAX = 3 * 365 * 86_400.0
ID_CHARACTERS_MAX = 32


class CaApi:
    """Handlers of hauberk.v1.Admin that are about authorities."""

    def __init__(
        self,
        *,
        store: Store,
        authority: CertificateAuthority,
        registry: Registry,
        hub: Hub,
        readiness: Callable[[float], Readiness],
        now: Callable[[], float],
    ) -> None:
        self._store = store
        self._authority = authority
        self._registry = registry
        self._hub = hub
        self._readiness = readiness
        self._now = now

    async def status(self, _caller: Caller, _request: pb.CaStatusRequest) -> pb.CaStatusResponse:
        now = self._now()
        readiness, live = self._readiness(now), self._authority.live(now)
        return pb.CaStatusResponse(
            authorities=[_message(one, live) for one in self._authority.authorities],
            next_steps=[_step(one) for one in self._authority.next_steps(now, readiness)],
            alarms=self._authority.alarms(now, readiness),
            server_time=now,
        )

    async def step(self, caller: Caller, request: pb.CaStepRequest) -> pb.CaStepResponse:
        """Raises InvalidRequest, FailedPrecondition (it is refused; the text names who would lose by it)."""
        if request.step not in STEPS:
            raise InvalidRequest(f"step: {request.step!r} is none; one of {', '.join(STEPS)}")
        try:
            return self._step(caller, request)
        except CaRefused as refusal:
            raise _refused(refusal) from refusal

    async def install(self, caller: Caller, request: pb.CaInstallRequest) -> pb.CaStepResponse:
        """Raises FailedPrecondition: it is not what was asked for."""
        now = self._now()
        try:
            made = self._authority.install(request.certificate_pem, now, caller.name)
        except CaRefused as refusal:
            raise _refused(refusal) from refusal
        self._changed(now)
        return self._answer(made.authority_id, now)

    async def rehearse(self, _caller: Caller, request: pb.CaRehearseRequest) -> pb.CaRehearseResponse:
        """In a thread of its own: a large mesh takes seconds. Raises InvalidRequest."""
        level = _level(request.level)
        if level not in (Level.ROOT, Level.INTERMEDIATE):
            raise InvalidRequest("level: root or intermediate; the keys of JWT-SVIDs are not waited for")
        if not (math.isfinite(request.horizon_s) and 0 <= request.horizon_s <= HORIZON_S_MAX):
            raise InvalidRequest(f"horizon_s: must be from 0 to {HORIZON_S_MAX:.0f}")
        now = self._now()
        copy = topology(self._store, self._authority, self._registry, self._hub, self._readiness(now), now)
        question = Question(level=level, force=request.force, horizon_s=request.horizon_s)
        report = await asyncio.to_thread(rehearse, copy, question, now)
        return pb.CaRehearseResponse(
            steps=[pb.RehearsedStep(at=one.at, what=one.what) for one in report.steps],
            failures=map(_failure, report.failures),
        )

    def _step(self, caller: Caller, request: pb.CaStepRequest) -> pb.CaStepResponse:
        now = self._now()
        level = _level(request.level) if request.level else None
        if request.step == RECOVER:
            if request.dry_run:
                return pb.CaStepResponse()
            made = self._authority.recover(now, caller.name, force=request.force)
        elif request.step == StepKind.PREPARE.value:
            if level is None:
                raise InvalidRequest("level: say which: root, intermediate or jwt")
            if request.dry_run:
                return pb.CaStepResponse()
            made = self._authority.prepare(level, now, caller.name, force=request.force)
        else:
            return self._step_of_one(self._find(request, level), caller, request, now)
        self._changed(now)
        return self._answer(made.authority_id, now)

    def _step_of_one(
        self, subject: Authority, caller: Caller, request: pb.CaStepRequest, now: float
    ) -> pb.CaStepResponse:
        """Raises CaRefused."""
        kind, authority_id = StepKind(request.step), subject.authority_id
        if subject.phase is Phase.REVOKED and kind in (StepKind.TAINT, StepKind.REVOKE):
            if is_distrusted(subject) or request.dry_run:
                return self._answer(authority_id, now)
            kind = StepKind.REVOKE  # it was retired: nobody is left to leave it, but its key could still sign
        readiness = self._readiness(now)
        breaks = () if kind is StepKind.TAINT else self._authority.breaks(authority_id, kind, now, readiness)
        if request.dry_run:
            return self._answer(authority_id, now, breaks)
        if kind is StepKind.ACTIVATE:
            self._authority.activate(authority_id, now, caller.name, readiness, force=request.force)
        elif kind is StepKind.TAINT:
            self._authority.taint(authority_id, now, caller.name)
        else:
            self._authority.revoke(authority_id, now, caller.name, force=request.force)
        self._changed(now)
        return self._answer(authority_id, now, breaks)

    def _find(self, request: pb.CaStepRequest, level: Level | None) -> Authority:
        """Whom the step is about. Raises InvalidRequest, CaRefused."""
        if request.authority_id:
            return self._authority.find(request.authority_id[: ID_CHARACTERS_MAX + 1].lower(), level)
        if request.step != StepKind.ACTIVATE.value or level is None:
            raise InvalidRequest("authority_id: say which, or its beginning; `hauberk ca status` lists them")
        prepared = newest(self._authority.authorities, level, Phase.PREPARED)
        if prepared is None:
            raise CaRefused(f"no {level.value} is prepared; run `hauberk ca prepare {level.value}` first")
        return prepared

    def _changed(self, now: float) -> None:
        """What follows from it is done at once, not at the next tick; and everybody is told."""
        self._authority.tick(now, self._readiness(now))
        self._hub.notify()

    def _answer(self, authority_id: str, now: float, breaks: tuple[str, ...] = ()) -> pb.CaStepResponse:
        one = next(one for one in self._authority.authorities if one.authority_id == authority_id)
        return pb.CaStepResponse(
            authority=_message(one, self._authority.live(now)),
            breaks=breaks,
            csr_pem=self._authority.csr_pem(authority_id),
        )


def _refused(refusal: CaRefused) -> FailedPrecondition:
    """With who would lose by it, so that nobody forces what they do not know."""
    text = str(refusal)
    unnamed = [one for one in refusal.breaks if one not in text]
    return FailedPrecondition("\n".join([text, *(f"  {one}" for one in unnamed)]))


def _level(text: str) -> Level:
    try:
        return Level(text)
    except ValueError:
        raise InvalidRequest(f"level: {text!r} is none; one of {', '.join(one.value for one in Level)}") from None


def _message(one: Authority, live: Live) -> pb.Authority:
    der = one.certificate_der
    return pb.Authority(
        authority_id=one.authority_id,
        level=one.level.value,
        phase=one.phase.value,
        parent_id=one.parent_id,
        not_before=one.not_before,
        not_after=one.not_after,
        prepared_at=one.prepared_at,
        activated_at=one.activated_at or 0.0,
        tainted_at=one.tainted_at or 0.0,
        revoked_at=one.revoked_at or 0.0,
        has_key=bool(one.sealed_key),
        live_certificates=live.count(one.authority_id),
        last_certificate_not_after=live.until(one.authority_id),
        certificate_sha256=pin(der).hex() if der else "",
        certificate_pem=x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM).decode() if der else "",
    )


def _step(one: Step) -> pb.CaNextStep:
    return pb.CaNextStep(
        level=one.level.value,
        step=one.kind.value,
        authority_id=one.authority_id,
        not_before=one.not_before,
        waits_for=one.waits_for,
        waits_until=one.waits_until if one.waits_for and math.isfinite(one.waits_until) else 0.0,
    )


def _failure(one: RehearsedFailure) -> pb.RehearsedFailure:
    made = pb.RehearsedFailure(who=one.who, until=one.until, why=one.why)
    setattr(made, "from", one.start)  # a keyword of Python
    return made
