"""`hauberk backup` and `hauberk restore`."""

from __future__ import annotations

import os
import time
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from control_plane.cli.options import data_dir_option, output_option
from control_plane.cli.verb import CliError, Verb

if TYPE_CHECKING:
    from control_plane.backup import Manifest
    from control_plane.restore import Restored


def _kek_option(command: click.decorators.FC) -> click.decorators.FC:
    return click.option(
        "--kek-file", type=click.Path(path_type=Path), metavar="FILE",
        help="Where the key-encryption key is.  [default: kek.key in the data directory]",
    )(command)  # fmt: skip


def _kek(kek_file: Path | None, data_dir: Path) -> bytes | None:
    """None: it is not where it is by default. Raises ControlPlaneError, CliError."""
    from control_plane.offline import kek_in

    path = kek_file.expanduser() if kek_file else data_dir / "kek.key"
    if os.path.lexists(path):
        return kek_in(path)
    if kek_file is not None:
        raise CliError(f"{kek_file}: is not there; check --kek-file")
    return None


@click.command(
    "backup",
    cls=Verb,
    short_help="Copy the control plane's state into one file.",
    examples=("hauberk backup --data-dir /var/lib/hauberk mesh-2026-11-23.backup",),
)
@click.argument("file", type=click.Path(path_type=Path))
@_kek_option
@output_option()
@data_dir_option
def backup(*, file: Path, kek_file: Path | None, output: str, data_dir: Path) -> int:
    """Write everything the control plane knows to a new FILE, mode 0600, while it runs.

    The key-encryption key is not inside: keep a copy of it somewhere else, or the backup cannot be used. It is needed
    to make one, so that `restore` can tell whether somebody has changed it. Audit files that are full
    (audit-*-*.jsonl) are not inside either; they never change, so copy them once.
    """
    from control_plane.backup import make
    from control_plane.cli.output import clock, note, print_data, print_pairs
    from control_plane.errors import ControlPlaneError

    data_dir = data_dir.expanduser().absolute()
    try:
        kek = _kek(kek_file, data_dir)
        manifest = make(data_dir, file, release=metadata.version("hauberk"), now=time.time(), kek=kek)
    except ControlPlaneError as error:
        raise CliError(str(error)) from None
    except OSError as error:
        scratch = str(file.parent / f".{file.name}-")
        where = file if str(error.filename or scratch).startswith(scratch) else error.filename
        raise CliError(
            f"{where}: cannot be written ({error.strerror}); choose another FILE, there is none now"
        ) from None
    audit = manifest.head.seq if manifest.head else 0
    if output == "table":
        print_pairs(
            [
                ("backup", f"{file}"),
                ("of", f"{manifest.trust_domain}, {clock(manifest.made_at)}"),
                ("epoch", f"{manifest.epoch}"),
                ("audit", f"up to record {audit}"),
                ("needs", f"the key-encryption key {manifest.kek_id}"),
            ]
        )
    else:
        print_data({"file": str(file), **_told(manifest), "audit": audit, "verifiable": bool(manifest.mac)}, output)
    if not manifest.mac:
        note(
            f"warning: {data_dir / 'kek.key'} is not there, so nobody can tell later whether somebody has changed this"
            " backup, and restore will refuse it; name the key-encryption key: --kek-file FILE"
        )
    note("the key-encryption key (kek.key, or kek_file) is not in the backup; keep a copy of it apart from it")
    return 0


@click.command(
    "restore",
    cls=Verb,
    short_help="Make the control plane's state from a backup.",
    examples=(
        "hauberk restore --data-dir /var/lib/hauberk mesh-2026-11-23.backup",
        "hauberk restore --data-dir /var/lib/hauberk --replace mesh-2026-11-23.backup",
        "hauberk restore --data-dir /var/lib/hauberk mesh-2026-11-23.backup -o json",
    ),
)
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--replace", is_flag=True, help="Over a state that is there; it is kept beside.")
@click.option("--unverified", is_flag=True, help="Although nothing shows that nobody has changed the backup.")
@_kek_option
@output_option()
@data_dir_option
def restore(
    *, file: Path, replace: bool, unverified: bool, kek_file: Path | None, output: str, data_dir: Path
) -> int:  # fmt: skip
    """Make the state in FILE the control plane's; it must be stopped.

    The key-encryption key of the backup's time must be at hand: it tells whether somebody has changed the backup.
    A new epoch begins and every unused join token is void. What the audit file in the directory says happened since
    the backup is taken over: certificates issued, revocations, authorities, deletions. What cannot be known is said:
    read it.
    """
    from control_plane.app import prepare_data_dir
    from control_plane.cli.output import note
    from control_plane.errors import ControlPlaneError
    from control_plane.restore import restore as make_again

    data_dir = data_dir.expanduser().absolute()
    try:
        prepare_data_dir(data_dir)
        done = make_again(
            data_dir,
            file,
            replace=replace,
            by="local operator",
            now=time.time(),
            kek=_kek(kek_file, data_dir),
            unverified=unverified,
        )
    except ControlPlaneError as error:
        raise CliError(str(error)) from None
    except OSError as error:
        raise CliError(f"{error.filename or data_dir}: {error.strerror}; start `hauberk restore` again") from None
    if output == "table":
        _tell(done)
    else:
        _tell_programs(done, output)
    if not (data_dir / "kek.key").exists():
        note(f"before the start: that key belongs at {data_dir}/kek.key, mode 0400, or where kek_file says")
    return 0


def _told(manifest: Manifest) -> dict[str, Any]:
    """For programs."""
    return {
        "trust_domain": manifest.trust_domain,
        "made_at": manifest.made_at,
        "epoch": manifest.epoch,
        "kek_id": manifest.kek_id,
    }


def _tell_programs(done: Restored, output: str) -> None:
    from control_plane.cli.output import print_data

    told = done.taken_over
    data = {
        **_told(done.manifest),
        "epoch": done.epoch,
        "voided_tokens": done.voided_tokens,
        "knows_since": done.knows_since,
        "taken_over": {
            "certificates": told.certificates,
            "revocations": told.revocations,
            "authorities": told.authorities,
            "deletions": told.deletions,
        },
        "lost": told.lost,
        "unverified": list(done.unverified),
        "replaced": str(done.replaced or ""),
        "audit_set_aside": str(done.audit_set_aside or ""),
    }
    print_data(data, output)


def _tell(done: Restored) -> None:
    from control_plane.cli.output import clock, note, print_pairs, printable

    told = done.taken_over
    pairs = [
        ("restored", f"{done.manifest.trust_domain} as of {clock(done.manifest.made_at)}"),
        ("epoch", f"{done.epoch}"),
        ("join tokens", f"{done.voided_tokens} unused ones are void"),
    ]
    if done.knows_since:
        since = f"{told.certificates} certificates, {told.revocations} revocations, {told.authorities} authorities"
        pairs.append(("taken over", f"{since}, {told.deletions} deletions"))
    if done.replaced is not None:
        pairs.append(("before", f"{done.replaced}"))
    if done.audit_set_aside is not None:
        pairs.append(("audit file", f"the one that was here is {done.audit_set_aside}"))
    pairs.append(("needs", f"the key-encryption key {done.manifest.kek_id}"))
    print_pairs(pairs)
    for one in (*done.unverified, *told.lost):
        note(f"note: {printable(one)}")
