"""What a policy costs by its size: 10 rules against 10,000, with 1,000 callers that may come.

    python -m benchmarks.policy_rules [--rules 10000] [--callers 1000] [--changes 6] [--output FILE]

First without any process: how long decoding and compiling take, and the longest slice of it, during which nothing else
could happen; what the first and what every later decision takes. Each shape of rules is a way for them to be many.

Then with a real sidecar behind a real control plane: one client asks one request after the other, alone, and while
policies of that size are replaced again and again. The worst a request met is what somebody waiting would have felt.
"""

from __future__ import annotations

import gc
import json
import platform
import random
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from benchmarks import apps, work
from benchmarks.load import percentile
from benchmarks.ours import POLICY_RULES, PinnedMesh, apply, document, joined, revision
from benchmarks.rapid_reset import Client
from benchmarks.report import rounded, spread
from benchmarks.system import Cores, Setup
from benchmarks.tools import ROOT
from certs.spiffe_id import SpiffeId, TrustDomain
from control_plane.policy.wire import policy_to_proto
from protos.hauberk.v1 import discovery_pb2 as pb
from sidecar.net.slices import uncollected
from sidecar.rules.authz import Authorizer, Denied, PeerAuthorizer
from sidecar.rules.decode_policies import policies as decoding_policies
from sidecar.rules.facts import Peer
from sidecar.rules.snapshot import Action, AuthorizationPolicy, Operation, Rule, Snapshot, Source, When
from tests.e2e.harness import Inbound, Mesh

FEW = 10
DECISIONS = 20_000
ROUNDS = 5
MESH = TrustDomain.parse(work.TRUST_DOMAIN)
ME = SpiffeId.for_workload(MESH, work.NAMESPACE, work.SERVICE)

Shape = Callable[[random.Random, int, int, int], Rule]
"""(rng, number of the rule, how many rules, how many callers there are) -> the rule."""


def place(number: int) -> str:
    """Of the rule: below /v/, in as many lengths as there are in paths, with 10 rules as with many."""
    return f"/v/{number:x}{'abcdefgh'[: number % 7]}"


def account(number: int) -> str:
    return work.principal(f"caller-{number:04}")


def _own(rng: random.Random, number: int, count: int, callers: int) -> Rule:
    """However few the rules are, most callers are named by some: a few of them, or 30."""
    some = tuple(account(rng.randrange(callers)) for _ in range(max(3, 3 * callers // count)))
    return Rule(
        sources=(Source(principals=some),), operations=(Operation(methods=("GET",), paths=(f"{place(number)}/*",)),)
    )


def _shared(rng: random.Random, number: int, count: int, callers: int) -> Rule:
    return Rule(
        sources=(Source(namespaces=(work.NAMESPACE,)),),
        operations=(Operation(methods=("GET",), paths=(f"{place(number)}/*", f"/w/{number}")),),
    )


def _template(rng: random.Random, number: int, count: int, callers: int) -> Rule:
    return Rule(operations=(Operation(methods=("GET",), paths=(f"{place(number)}/{{*}}/{{**}}",)),))


def _tenant(rng: random.Random, number: int, count: int, callers: int) -> Rule:
    return Rule(
        operations=(Operation(methods=("GET",)),),
        when=(When(key="request.headers[x-tenant]", values=(f"tenant-{number}",)),),
    )


SHAPES: Mapping[str, Shape] = {
    "each rule its callers and paths": _own,
    "one namespace, each rule its paths": _shared,
    "everybody, each rule a template": _template,
    "each rule a header's value": _tenant,
}


def snapshot_of(rules: Sequence[Rule]) -> Snapshot:
    policies = tuple(
        AuthorizationPolicy(
            namespace=work.NAMESPACE,
            name=f"rules-{start:05}",
            action=Action.ALLOW,
            rules=tuple(rules[start : start + POLICY_RULES]),
        )
        for start in range(0, len(rules), POLICY_RULES)
    )
    return Snapshot(
        epoch=1,
        version=1,
        trust_domain=MESH,
        identity=ME,
        service=work.SERVICE,
        namespace=work.NAMESPACE,
        labels={},
        default_action=Action.DENY,
        policies=policies,
        services={},
        trust_anchors_der=(),
        certificate_lifetime_s=3600,
    )


def in_slices(steps: Any) -> tuple[Any, float, float]:
    """What a generator returns, the seconds it took, and those of its longest step."""
    began = time.perf_counter()
    longest = 0.0
    with uncollected():  # as a sidecar does
        while True:
            at = time.perf_counter()
            try:
                next(steps)
            except StopIteration as done:
                now = time.perf_counter()
                return done.value, now - began, max(longest, now - at)
            longest = max(longest, time.perf_counter() - at)


def decided(
    peers: Mapping[str, PeerAuthorizer], rules: Sequence[Rule], rng: random.Random, *, again: bool = False
) -> list[float]:
    """Seconds of each decision, every one by some rule. No question is asked twice, so none is remembered; unless
    `again`: then it is the second time for each that is measured, as for most requests there are."""
    spent = []
    names = list(peers)
    for _ in range(DECISIONS):
        number = rng.randrange(len(rules))
        sources = rules[number].sources
        peer = peers[rng.choice((sources[0].principals if sources else ()) or names)]
        path, fields = f"{place(number)}/a/{rng.random()}", ((b"x-tenant", f"tenant-{number}".encode()),)
        if again:
            peer.authorize(work.SERVICE, work.SERVICE_PORT, "GET", path, fields)
        began = time.perf_counter()
        verdict = peer.authorize(work.SERVICE, work.SERVICE_PORT, "GET", path, fields)
        spent.append(time.perf_counter() - began)
        if isinstance(verdict, Denied):
            raise RuntimeError(f"{path}: {verdict}")  # noqa: TRY004 - the benchmark is wrong, not a type
    return spent


def measured(shape: Shape, count: int, callers: int) -> dict[str, Any]:
    rng = random.Random(1)
    rules = [shape(rng, number, count, callers) for number in range(count)]
    snapshot = snapshot_of(rules)
    messages = [
        pb.AuthorizationPolicy.FromString(policy_to_proto(one).SerializeToString()) for one in snapshot.policies
    ]
    _, decode_s, decode_longest_s = in_slices(decoding_policies(messages))
    authorizer, compile_s, compile_longest_s = in_slices(Authorizer.compiling(snapshot))
    peers: dict[str, PeerAuthorizer] = {}
    met = []
    for number in range(callers):
        caller = SpiffeId.for_workload(MESH, work.NAMESPACE, f"caller-{number:04}")
        began = time.perf_counter()
        peers[caller.principal] = authorizer.for_peer(Peer(caller))
        met.append(time.perf_counter() - began)
    first = decided(peers, rules, rng)
    later = decided(peers, rules, rng)
    again = decided(peers, rules, rng, again=True)
    return {
        "decode_s": decode_s,
        "compile_s": compile_s,
        "longest_slice_s": max(decode_longest_s, compile_longest_s),
        "caller_median_s": statistics.median(met),
        "caller_longest_s": max(met),
        "first_decision_median_s": statistics.median(first),
        "decision_median_s": statistics.median(later),
        "decision_p99_s": percentile(sorted(later), 0.99),
        "remembered_median_s": statistics.median(again),
    }


def compared(shape: Shape, count: int, callers: int) -> dict[str, Any]:
    """Each figure of FEW rules and of `count`, in turn, round by round; and the ratio of the decisions."""
    few, many = [], []
    for _ in range(ROUNDS):
        few.append(measured(shape, FEW, callers))
        many.append(measured(shape, count, callers))
    ratios = [b["decision_median_s"] / a["decision_median_s"] for a, b in zip(few, many, strict=True)]
    remembered = [b["remembered_median_s"] / a["remembered_median_s"] for a, b in zip(few, many, strict=True)]
    firsts = [b["first_decision_median_s"] / a["first_decision_median_s"] for a, b in zip(few, many, strict=True)]
    return {
        "decision_ratio": spread(ratios),
        "first_decision_ratio": spread(firsts),
        "remembered_ratio": spread(remembered),
        "few": {name: spread([one[name] for one in few]) for name in few[0]},
        "many": {name: spread([one[name] for one in many]) for name in many[0]},
    }


# A real sidecar


class Changing:
    """Applies one of two policies after the other, in a thread, as an operator would."""

    def __init__(self, mesh: Mesh, versions: Sequence[Sequence[work.Rule]], changes: int) -> None:
        self._mesh = mesh
        self._versions = versions
        self._changes = changes
        self.spent: list[float] = []
        self._thread = threading.Thread(target=self._run)
        self._error: BaseException | None = None

    def __enter__(self) -> Changing:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._thread.join()
        if self._error is not None:
            raise self._error

    @property
    def is_running(self) -> bool:
        return self._thread.is_alive()

    def _run(self) -> None:
        try:
            for number in range(self._changes):
                began = time.perf_counter()
                replace(self._mesh, self._versions[number % len(self._versions)])
                self.spent.append(time.perf_counter() - began)
        except BaseException as error:
            self._error = error


def replace(mesh: Mesh, rules: Sequence[work.Rule]) -> None:
    """The first document of many, and wait until it is enforced. Whoever is told gets all of them."""
    file = Path(mesh.directory / "change.yaml")
    file.write_text(document("rules-00000", rules[:POLICY_RULES]))
    mesh.done("apply", "-f", str(file), "--wait", "--timeout", "20s")


def many_rules(count: int, variant: str) -> list[work.Rule]:
    """The 50 that are used, last, and those that match nothing; the first of these differs between variants."""
    idle = work.idle_rules(count - len(work.rules()))
    changed = work.Rule(principal=idle[0].principal, methods=("GET",), path=f"/{variant}", prefix=f"/{variant}/")
    return [changed, *idle[1:], *work.rules()]


def felt(rules_count: int, changes: int) -> dict[str, Any]:
    """Latencies of one client, alone under few and under many rules, and while many are replaced."""
    with tempfile.TemporaryDirectory() as directory, ExitStack() as stack:
        cores = Cores.choose()
        own, files = Path(directory, "ours"), Path(directory, "files")
        own.mkdir()
        files.mkdir()
        work.write_files(files)
        (files / "mime.types").write_text("")
        app = apps.start_http2(stack, directory=Path(directory), files=files, core=cores.rest, is_grpc=False)
        setup = Setup(app=app, cores=cores, directory=own)
        mesh = stack.enter_context(PinnedMesh(setup, ROOT, sys.executable))
        mesh.start_control_plane()
        apply(mesh, work.rules())
        service = mesh.sidecar(
            work.SERVICE, inbound=[Inbound(work.SERVICE_PORT, f"127.0.0.1:{app}", "http2")], access_log="denied"
        )
        mesh.wait_ready(service)
        port = int(service.status["mesh"].rpartition(":")[2])
        client = Client(port, joined(mesh))
        versions = [many_rules(rules_count, "a"), many_rules(rules_count, "b")]
        for _ in range(500):
            client.ask()
        few = sorted(client.ask() for _ in range(3_000))
        apply(mesh, versions[1])
        replace(mesh, versions[1])
        many = sorted(client.ask() for _ in range(3_000))
        changing = Changing(mesh, versions, changes)
        during: list[float] = []
        with changing:
            while changing.is_running:
                during.append(client.ask())
        during.sort()
        return {
            "few": latencies(few),
            "many": latencies(many),
            "while_changing": latencies(during),
            "apply_wait_s": spread(changing.spent),
            "changes": changes,
        }


def latencies(values: Sequence[float]) -> dict[str, float]:
    """Milliseconds."""
    figures = {f"p{100 * share:g}_ms": rounded(1e3 * percentile(values, share)) for share in (0.5, 0.99, 0.999)}
    return {**figures, "max_ms": rounded(1e3 * values[-1]), "requests": len(values)}


@click.command()
@click.option("--rules", "rules_count", default=10_000, show_default=True)
@click.option("--callers", default=1_000, show_default=True)
@click.option("--changes", default=6, show_default=True, help="Of the policy, while a client asks.  0: leave that out.")
@click.option("--output", type=click.Path(path_type=Path), default=ROOT / "benchmarks/results/policy_rules.json")
def main(rules_count: int, callers: int, changes: int, output: Path) -> None:
    """Print what a policy costs by its size."""
    found: dict[str, Any] = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "version": revision(ROOT),
        "python": platform.python_version(),
        "rules": rules_count,
        "callers": callers,
        "shapes": {},
    }
    gc.collect()
    gc.freeze()  # as a sidecar does when it has started
    for name, shape in SHAPES.items():
        one = found["shapes"][name] = compared(shape, rules_count, callers)
        few, many, ratio = one["few"], one["many"], one["decision_ratio"]
        click.echo(
            f"{name}: a decision {1e6 * few['decision_median_s']['median']:.1f} us with {FEW} rules,"
            f" {1e6 * many['decision_median_s']['median']:.1f} us with {rules_count},"
            f" ratio {ratio['median']} ({ratio['min']}-{ratio['max']}), of first decisions"
            f" {one['first_decision_ratio']['median']}; of remembered ones"
            f" {1e6 * many['remembered_median_s']['median']:.2f} us, ratio {one['remembered_ratio']['median']}"
        )
        click.echo(
            f"    decoded in {1e3 * many['decode_s']['median']:.0f} ms, compiled in"
            f" {1e3 * many['compile_s']['median']:.0f} ms, longest slice"
            f" {1e3 * many['longest_slice_s']['median']:.1f} ms (max {1e3 * many['longest_slice_s']['max']:.1f}),"
            f" a caller's first request {1e3 * many['caller_median_s']['median']:.2f} ms more"
            f" (longest {1e3 * many['caller_longest_s']['median']:.1f})"
        )
    if changes:
        felt_by_client = found["sidecar"] = felt(rules_count, changes)
        for name in ("few", "many", "while_changing"):
            click.echo(f"a client, {name.replace('_', ' ')}: {felt_by_client[name]}")
        click.echo(f"apply --wait: {felt_by_client['apply_wait_s']} s, {changes} times")
    output.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
