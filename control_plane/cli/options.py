"""What several verbs take: where the control plane answers, a namespace, a kind, a duration, an output format."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

DEFAULT_DATA_DIR = Path("~/.local/share/hauberk")
SOCKET_NAME = "operator.sock"
DEFAULT_NAMESPACE = "default"

# Kind -> what people call it.
KINDS = {
    "AuthorizationPolicy": ("authorizationpolicy", "authorizationpolicies", "ap"),
    "PeerAuthentication": ("peerauthentication", "peerauthentications", "pa"),
    "RequestAuthentication": ("requestauthentication", "requestauthentications", "ra"),
    "MeshConfig": ("meshconfig", "meshconfigs", "mc"),
}
MESH_WIDE = frozenset({"MeshConfig"})
"""Kinds that are in no namespace."""
ALL = "all"

_UNIT_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0}
_DURATION = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,6})?)(ms|s|m|h|d)")

F = TypeVar("F", bound=Callable[..., Any])


class Duration(click.ParamType[float]):
    """`30s`, `10m`, `1h30m`: seconds as a float. A number without its unit is refused."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        text = str(value)
        parts = _DURATION.findall(text)
        if not parts or "".join(number + unit for number, unit in parts) != text:
            self.fail(f"{text!r} is not a duration; write it with a unit, such as 30s, 10m or 1h30m", param, ctx)
        return float(sum(float(number) * _UNIT_S[unit] for number, unit in parts))


class Version(click.ParamType[int]):
    """A version of the policies: 57, or @57 as `policy diff` has it."""

    name = "version"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        text = str(value).removeprefix("@")
        if not (text.isascii() and text.isdigit() and len(text) < 19 and int(text) > 0):
            self.fail(
                f"{str(value)!r} is no version; write its number, as `hauberk policy history` lists it", param, ctx
            )
        return int(text)


class Kind(click.ParamType[str]):
    """A kind of resource in any spelling, as it is written in YAML. `all` gives the empty string."""

    name = "kind"

    def __init__(self, *, or_all: bool = False) -> None:
        self._or_all = or_all

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        spelled = str(value).lower()
        for kind, names in KINDS.items():
            if spelled in names:
                return kind
        if self._or_all and spelled in (ALL, ""):
            return ""
        words = [name for names in KINDS.values() for name in names] + ([ALL] if self._or_all else [])
        close = difflib.get_close_matches(spelled, words, n=1)
        hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(words)}"
        return self.fail(f"{str(value)!r} is no kind of resource; {hint}", param, ctx)


class Label(click.ParamType[tuple[str, str]]):
    """`key=value`, as a pair."""

    name = "key=value"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        if isinstance(value, tuple):
            return value
        key, equals, text = str(value).partition("=")
        if not equals or not key:
            self.fail(f"{str(value)!r} is not a label; write key=value, such as app=orders", param, ctx)
        return key, text


def reaches_control_plane(command: F) -> F:
    """Adds --socket and --data-dir. The command receives `socket`: the path of the operator's socket."""

    def find(ctx: click.Context, _param: click.Parameter, value: Path | None) -> Path:
        data_dir: Path = ctx.params.pop("data_dir")
        return (value or data_dir / SOCKET_NAME).expanduser().absolute()

    command = click.option(
        "--socket", type=click.Path(path_type=Path), envvar="HAUBERK_SOCKET", metavar="PATH", callback=find,
        help=f"The control plane's socket.  [default: {SOCKET_NAME} in the data directory; env: HAUBERK_SOCKET]",
    )(command)  # fmt: skip
    return data_dir_option(command, is_eager=True)


def data_dir_option(command: F, *, is_eager: bool = False) -> F:
    """Adds --data-dir."""
    return click.option(
        "--data-dir", type=click.Path(path_type=Path), envvar="HAUBERK_DATA_DIR", default=DEFAULT_DATA_DIR,
        metavar="DIR", is_eager=is_eager,
        help=f"Where the control plane keeps its state.  [default: {DEFAULT_DATA_DIR}; env: HAUBERK_DATA_DIR]",
    )(command)  # fmt: skip


def output_option(*, default: str | None = "table") -> Callable[[F], F]:
    """Adds -o table|json|yaml. The command receives `output`."""
    return click.option(
        "-o", "--output", type=click.Choice(["table", "json", "yaml"]), default=default,
        show_default=default is not None,
        help="How to print the answer.",
    )  # fmt: skip


def wait_options(command: F) -> F:
    """Adds --wait and --timeout. The command receives `wait` and `timeout_s`."""
    command = click.option(
        "--timeout", "timeout_s", type=Duration(), default="10s", show_default=True, metavar="DURATION",
        help="How long to wait at most, with --wait.",
    )(command)  # fmt: skip
    return click.option("--wait", is_flag=True, help="Return when every sidecar concerned has taken the change.")(
        command
    )


def namespace_of(kind: str, namespace: str | None) -> str:
    """Where one named resource is looked for. Raises UsageError for a namespace that cannot be."""
    if kind in MESH_WIDE:
        if namespace:
            raise click.UsageError(f"a {kind} holds for the whole mesh; leave --namespace out")
        return ""
    return namespace or DEFAULT_NAMESPACE


def split_name(name: str, namespace: str | None) -> tuple[str, str | None]:
    """`shop/orders` is `orders` in namespace `shop`, as listed. Returns (name, namespace)."""
    before, slash, after = name.partition("/")
    if not slash:
        return name, namespace
    if not before or not after or (namespace and namespace != before):
        raise click.UsageError(f"{name!r} names a namespace other than --namespace; write one of them")
    return after, before
