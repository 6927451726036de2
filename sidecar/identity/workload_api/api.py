"""The methods of the SPIFFE Workload API, as its specification has them (sections 5 and 6).

What a caller is answered when there is nothing good to say (SPIFFE Workload Endpoint section 6):

    no certificate or keys yet, or the certificate has expired    UNAVAILABLE: ask again, it may come
    revoked, refused by the control plane, or somebody else's     PERMISSION_DENIED
    a field that is missing or wrong, a token that does not hold  INVALID_ARGUMENT

A stream that is open when that happens ends with the same status, so that its client stops using what it was given.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, TypeVar

import trio
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from google.protobuf import struct_pb2
from google.protobuf.message import DecodeError, Message

from certs.authority_id import authority_ids
from certs.bundle import TrustBundle
from certs.errors import CertsError
from certs.spiffe_id import SpiffeId
from certs.svid import X509Svid
from protos.spiffe import workload_pb2 as pb
from sidecar.control.errors import RpcError
from sidecar.control.wire import frame_message
from sidecar.errors import GRPC_INTERNAL, GRPC_INVALID_ARGUMENT, GRPC_PERMISSION_DENIED, GRPC_UNAVAILABLE
from sidecar.identity.source import IdentitySource
from sidecar.identity.workload_api.calls import Answer, Call
from sidecar.identity.workload_api.feeds import Feed
from sidecar.identity.workload_api.tokens import Audiences, Tokens
from sidecar.rules.facts import Json

if TYPE_CHECKING:
    from sidecar.rules.jwt_keys import KeySet

log = logging.getLogger(__name__)

PREFIX = "/SpiffeWorkloadAPI/"
AUDIENCES_MAX = 16
AUDIENCE_CHARS_MAX = 512

M = TypeVar("M", bound=Message)


class WorkloadApi:
    """The methods, and what they answer from."""

    def __init__(
        self,
        source: IdentitySource,
        tokens: Tokens,
        clock: Callable[[], float],
        spawn: Callable[..., object],
    ) -> None:
        """`clock`: Unix seconds. `spawn` runs an async function with its arguments in a task of its own."""
        self._source = source
        self._tokens = tokens
        self._clock = clock
        self._spawn = spawn
        self._jwt_keys = ""
        self._key_set: KeySet | None = None
        self._feeds = {
            "FetchX509SVID": Feed(self._x509_svid),
            "FetchX509Bundles": Feed(self._x509_bundles),
            "FetchJWTBundles": Feed(self._jwt_bundles),
        }
        self._methods: dict[str, Answer] = {
            **{name: feed.begin for name, feed in self._feeds.items()},
            "FetchJWTSVID": self._fetch_jwt_svid,
            "ValidateJWTSVID": self._validate_jwt_svid,
        }
        self._was_valid = False

    def __repr__(self) -> str:
        return f"<WorkloadApi of {self._source!r}>"

    def find(self, path: str) -> Answer | None:
        """The method of a path, if there is one."""
        if not path.startswith(PREFIX):
            return None
        name = path.removeprefix(PREFIX)
        method = self._methods.get(name)
        if method is None:
            return None

        def answer(call: Call, message: bytes) -> None:
            caller = call.caller
            if name not in caller.known_for:  # once for each connection: a log must not grow with the asking
                caller.known_for.add(name)
                facts = {"method": name, "pid": caller.pid, "uid": caller.uid, "gid": caller.gid}
                log.info("a workload asks", extra=facts)
            method(call, message)

        return answer

    # What changes

    def changed(self) -> None:
        """The source has something else, or time has made it something else."""
        self._was_valid = self._is_valid()
        for feed in self._feeds.values():
            feed.changed()

    def jwt_keys_changed(self, jwt_keys: str) -> None:
        """A snapshot came with this JSON Web Key Set ("": with none). Tokens of keys that went are not handed out."""
        if jwt_keys != self._jwt_keys:
            self._jwt_keys, self._key_set = jwt_keys, None
            self._tokens.forget()
            self._feeds["FetchJWTBundles"].changed()

    def sweep(self) -> None:
        """Time may have ended the certificate: whoever listens is told."""
        if self._was_valid and not self._is_valid():
            log.error("the certificate has expired; workloads are told that there is none")
            self.changed()

    def _is_valid(self) -> bool:
        svid = self._source.svid
        return svid is not None and self._clock() < svid.not_after

    # X.509

    def _identity(self) -> X509Svid:
        """Who we are, if that is worth anything now. Raises RpcError."""
        svid = self._source.svid
        if svid is None:
            raise RpcError(GRPC_UNAVAILABLE, "the sidecar has no certificate yet")
        authorities = authority_ids(svid.chain_der[1:])
        if self._source.denied or self._source.revocations.refusal(svid.spiffe_id, svid.serial, authorities):
            raise RpcError(GRPC_PERMISSION_DENIED, "this identity is revoked, or refused by the control plane")
        if self._clock() >= svid.not_after:
            raise RpcError(GRPC_UNAVAILABLE, "the certificate has expired and no other could be had yet")
        return svid

    def _bundle(self) -> TrustBundle:
        bundle = self._source.bundle
        if bundle is None:
            raise RpcError(GRPC_UNAVAILABLE, "the sidecar has no trust bundle yet")
        return bundle

    def _x509_svid(self) -> bytes:
        svid, bundle = self._identity(), self._bundle()
        key = svid.private_key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
        one = pb.X509SVID(
            spiffe_id=str(svid.spiffe_id),
            x509_svid=b"".join(svid.chain_der),
            x509_svid_key=key,
            bundle=_anchors(bundle),
        )
        return pb.X509SVIDResponse(svids=[one]).SerializeToString()

    def _x509_bundles(self) -> bytes:
        self._check_not_revoked()
        bundle = self._bundle()
        return pb.X509BundlesResponse(bundles={bundle.trust_domain.uri: _anchors(bundle)}).SerializeToString()

    def _check_not_revoked(self) -> None:
        """Who is revoked is not entitled to bundles either. An expired certificate is no reason. Raises RpcError."""
        try:
            self._identity()
        except RpcError as error:
            if error.status == GRPC_PERMISSION_DENIED:
                raise

    # JWT

    def _jwt_bundles(self) -> bytes:
        self._check_not_revoked()
        bundle = self._bundle()
        if not self._jwt_keys:
            raise RpcError(GRPC_UNAVAILABLE, "the control plane has published no keys for JWT-SVIDs yet")
        return pb.JWTBundlesResponse(bundles={bundle.trust_domain.uri: self._jwt_keys.encode()}).SerializeToString()

    def _fetch_jwt_svid(self, call: Call, message: bytes) -> None:
        request = _parsed(message, pb.JWTSVIDRequest())
        audiences = _audiences(request.audience)
        own = self._identity().spiffe_id
        if request.spiffe_id and _spiffe_id(request.spiffe_id) != own:
            raise RpcError(GRPC_PERMISSION_DENIED, "this is the identity of another workload")
        scope = trio.CancelScope()
        call.abandoned = scope.cancel
        self._spawn(self._answer_token, call, audiences, str(own), scope)

    async def _answer_token(self, call: Call, audiences: Audiences, own: str, scope: trio.CancelScope) -> None:
        with scope:
            try:
                token = await self._tokens.get(audiences, own)
                self._identity()  # while we asked, it may have been revoked
            except RpcError as error:
                call.finish(error)
            except Exception:
                log.exception("unexpected error of the workload API")
                call.finish(RpcError(GRPC_INTERNAL, "unexpected error"))
            else:
                one = pb.JWTSVID(spiffe_id=token.spiffe_id, svid=token.token)
                call.answer(frame_message(pb.JWTSVIDResponse(svids=[one]).SerializeToString()))

    def _validate_jwt_svid(self, call: Call, message: bytes) -> None:
        # The library that verifies is loaded with the first token there is to verify.
        from sidecar.rules.jwt import TokenRefused
        from sidecar.rules.jwt_keys import KeySetRefused
        from sidecar.rules.jwt_svid import read_bundle, validate

        request = _parsed(message, pb.ValidateJWTSVIDRequest())
        if not request.audience or not request.svid:
            raise RpcError(GRPC_INVALID_ARGUMENT, "audience and svid must be specified")
        self._check_not_revoked()
        trust_domain = self._bundle().trust_domain
        if not self._jwt_keys:
            raise RpcError(GRPC_UNAVAILABLE, "the control plane has published no keys for JWT-SVIDs yet")
        try:
            if self._key_set is None:
                self._key_set = read_bundle(self._jwt_keys)
            valid = validate(request.svid, request.audience, self._key_set, trust_domain, self._clock())
        except KeySetRefused as error:
            raise RpcError(GRPC_UNAVAILABLE, f"the keys for JWT-SVIDs cannot be used: it {error}") from None
        except TokenRefused as error:
            raise RpcError(GRPC_INVALID_ARGUMENT, f"the token is not valid: {error.reason}") from None
        if valid.spiffe_id in self._source.revocations.identities:
            raise RpcError(GRPC_INVALID_ARGUMENT, "the token is not valid: revoked")
        claims = struct_pb2.Struct(fields={name: _value(claim) for name, claim in valid.claims.items()})
        answer = pb.ValidateJWTSVIDResponse(spiffe_id=str(valid.spiffe_id), claims=claims)
        call.answer(frame_message(answer.SerializeToString()))


def _anchors(bundle: TrustBundle) -> bytes:
    """In one order, whatever order they came in: another order is no change that anybody needs to hear of."""
    return b"".join(sorted(bundle.anchors_der))


def _parsed(message: bytes, into: M) -> M:
    """`into`, with what was sent. Raises RpcError."""
    try:
        into.ParseFromString(message)
    except DecodeError:
        raise RpcError(GRPC_INVALID_ARGUMENT, "the message does not decode") from None
    return into


def _audiences(asked: Iterable[str]) -> Audiences:
    """Raises RpcError."""
    audiences = tuple(sorted(set(asked)))
    if not audiences or not all(audiences):
        raise RpcError(GRPC_INVALID_ARGUMENT, "audience must be specified")
    if len(audiences) > AUDIENCES_MAX or any(len(one) > AUDIENCE_CHARS_MAX for one in audiences):
        text = f"at most {AUDIENCES_MAX} audiences of at most {AUDIENCE_CHARS_MAX} characters"
        raise RpcError(GRPC_INVALID_ARGUMENT, text)
    return audiences


def _spiffe_id(text: str) -> SpiffeId:
    """Raises RpcError."""
    try:
        return SpiffeId.parse(text)
    except CertsError:
        raise RpcError(GRPC_INVALID_ARGUMENT, "spiffe_id is no SPIFFE ID") from None


def _value(claim: Json) -> struct_pb2.Value:
    match claim:
        case None:
            return struct_pb2.Value(null_value=struct_pb2.NULL_VALUE)
        case bool():
            return struct_pb2.Value(bool_value=claim)
        case int() | float():
            return struct_pb2.Value(number_value=claim)
        case str():
            return struct_pb2.Value(string_value=claim)
        case Mapping():
            fields = {name: _value(one) for name, one in claim.items()}
            return struct_pb2.Value(struct_value=struct_pb2.Struct(fields=fields))
        case _:
            values = [_value(one) for one in claim]
            return struct_pb2.Value(list_value=struct_pb2.ListValue(values=values))
