"""Calls to the control plane over its unix socket. The only file of the command line that imports grpc.

Whoever may open the socket (mode 0600) is the operator; there is nothing else to prove. A gRPC status becomes one clear
line that ends with what to do next.
"""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn, TypeVar
from urllib.parse import quote

from google.protobuf.message import Message

os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # its own log lines on standard error say nothing a user can act on

import grpc

from control_plane.cli.output import note, printable
from control_plane.cli.verb import CliError, RefusedRequest

PACKAGE = "hauberk.v1"
CALL_TIMEOUT_S = 10.0
CHANGE_TIMEOUT_S = 60.0
"""Of what changes policy: ten thousand rules take seconds to read, and to say who gains and who loses by them."""
QUIET_S = 1.0
"""What takes longer says so."""
SOCKET_PATH_OCTETS_MAX = 107
"""sun_path of unix(7), less its final zero."""

AnswerT = TypeVar("AnswerT", bound=Message)


class Client:
    """One channel to one control plane; a context manager."""

    def __init__(self, socket: Path) -> None:
        check_socket(socket)
        self._socket = socket
        # The path is part of a URI, so what a URI gives a meaning to is escaped (RFC 3986 section 2.1).
        self._channel = grpc.insecure_channel(f"unix:{quote(str(socket))}")

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._channel.close()

    def call(
        self, method: str, request: Message, answer: type[AnswerT], *, timeout_s: float = CALL_TIMEOUT_S
    ) -> AnswerT:
        """`method` is "Service/Method" of hauberk.v1. Raises CliError, RefusedRequest among them."""
        stub = self._channel.unary_unary(
            f"/{PACKAGE}.{method}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=answer.FromString,
        )
        try:
            response: AnswerT = self._patiently(stub.future(request, timeout=timeout_s), timeout_s)
        except grpc.RpcError as error:
            self._explain(error, timeout_s)
        return response

    def _patiently(self, call: Any, timeout_s: float) -> Any:
        """Its answer; who sits before a terminal is told when that takes long. Raises grpc.RpcError."""
        try:
            return call.result(timeout=QUIET_S)
        except grpc.FutureTimeoutError:
            if sys.stderr.isatty():
                note(f"waiting for the answer, up to {timeout_s:.0f} s ...")
            return call.result()

    def _explain(self, error: grpc.RpcError, timeout_s: float) -> NoReturn:
        """One line for each status. What the control plane says is passed on as it is, less terminal controls."""
        code, details = error.code(), printable(error.details() or "")
        if code is grpc.StatusCode.UNAVAILABLE:
            # Also what an orderly refusal ("try again later") comes as, which has its own words.
            raise CliError(details if details and not _is_transport(details) else _nobody(self._socket)) from None
        if code is grpc.StatusCode.DEADLINE_EXCEEDED:
            raise CliError(
                f"the control plane at {self._socket} did not answer within {timeout_s:g} s; is it overloaded? Its log"
                " (standard error) says what it does"
            ) from None
        if code is grpc.StatusCode.UNIMPLEMENTED:
            raise CliError(
                "the control plane does not know this call: it runs another version than this command; upgrade it"
            ) from None
        if code in (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN):
            raise CliError(f"the control plane failed ({details or code.name}); its log says more") from None
        if code is grpc.StatusCode.INVALID_ARGUMENT and details:
            raise RefusedRequest(details) from None
        raise CliError(details or f"the control plane refused: {code.name}") from None


def check_socket(path: Path) -> None:
    """Raises CliError for what can be told without calling."""
    if len(os.fsencode(path)) > SOCKET_PATH_OCTETS_MAX:
        raise CliError(
            f"{path}: longer than {SOCKET_PATH_OCTETS_MAX} bytes, which sockets do not allow; use a shorter --data-dir"
        )
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise CliError(_nobody(path)) from None
    except OSError as error:
        raise CliError(f"{path}: {_who_may(error)}") from None
    if not stat.S_ISSOCK(mode):
        raise CliError(f"{path}: is not a socket; --socket wants the control plane's, {path.name} or such")
    if not os.access(path, os.R_OK | os.W_OK):
        raise CliError(f"{path}: belongs to another user; run this as the user who runs the control plane")


def _who_may(error: OSError) -> str:
    if isinstance(error, PermissionError):
        return "may not be looked at; run this as the user who runs the control plane"
    return f"cannot be used ({error.strerror}); check --socket and --data-dir"


def _nobody(socket: Path) -> str:
    return (
        f"no control plane answers at {socket}; start one with `hauberk control-plane --data-dir {socket.parent}`,"
        " or say where it is with --data-dir or --socket"
    )


def _is_transport(details: str) -> bool:
    """Whether grpc speaks, not the control plane. Its words differ between versions; these are in all of them."""
    words = ("failed to connect", "connection refused", "socket closed", "no such file", "unix:", "goaway", "endpoint")
    return any(word in details.lower() for word in words)
