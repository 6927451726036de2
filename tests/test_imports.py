"""What a sidecar's process does not load: each of these costs memory beside every service, and is of no use there.

In a fresh process, through the module that `hauberk sidecar` becomes.
"""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

PRINT_MODULES = "import json, sys; print(json.dumps(sorted(sys.modules)))"

# Why each is not there: the command line's, or read once and left behind (sidecar.handover); or only when it is used.
NOT_AT_REST = {
    "asyncio": "there is one loop, trio's",
    "click": "the command line's",
    "control_plane": "the other side",
    "difflib": "hints for what was mistyped in a configuration",
    "grpc": "the control channel is our own",
    "html": "no part of anything here",
    "httpx": "tests'",
    "importlib.metadata": "the version is a constant",
    "opentelemetry": "only with an endpoint to send spans to",
    "prometheus_client": "the text format is written by hand",
    "protos.spiffe": "only for workloads that ask, if the configuration lets them",
    "requests": "the span exporter's",
    "rich": "the command line's",
    "sidecar.identity.svid_files": "only with a directory to write to",
    "sidecar.identity.workload_api": "only with a socket to serve",
    "socketserver": "no server but ours",
    "urllib.request": "no client but ours",
    "yaml": "the configuration was read before",
}


def loaded_by(code: str) -> set[str]:
    """Names of all modules in a new process that ran `code`."""
    run = subprocess.run([sys.executable, "-c", f"{code}\n{PRINT_MODULES}"], capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stderr
    return set(json.loads(run.stdout))


@pytest.fixture(scope="module")
def sidecar_modules() -> set[str]:
    # What site-packages' own start-up files load is not the sidecar's doing.
    return loaded_by("import sidecar.__main__") - loaded_by("pass")


@pytest.mark.parametrize("name", NOT_AT_REST)
def test_a_sidecar_does_not_load(sidecar_modules: set[str], name: str) -> None:
    """Neither the package nor anything within it."""
    assert not {module for module in sidecar_modules if module == name or module.startswith(f"{name}.")}


def test_counting_and_scraping_load_no_more_than_resting(sidecar_modules: set[str]) -> None:
    """Prometheus asks every sidecar, so what is loaded at the first scrape is loaded for good."""
    scraped = loaded_by(
        "import sidecar.__main__; from sidecar.telemetry.metrics import Metrics; Metrics(version='1').export()"
    )
    assert not {module for module in scraped - loaded_by("pass") - sidecar_modules if module != "sidecar"}


def test_help_of_the_command_line_loads_no_part_of_either_side() -> None:
    """A user feels what it takes to start."""
    loaded = loaded_by("import control_plane.cli.main")
    assert not {name.partition(".")[0] for name in loaded} & {"grpc", "trio", "cryptography", "yaml", "rich", "sidecar"}


def test_the_workload_api_loads_no_second_stack(sidecar_modules: set[str]) -> None:
    """It is the sidecar's own HTTP/2; what verifies tokens comes with the first one that is to be verified."""
    loaded = loaded_by(
        "import sidecar.__main__, sidecar.identity.svid_files, sidecar.identity.workload_api.endpoint"
    ) - loaded_by("pass")
    named = {module for module in loaded - sidecar_modules for name in NOT_AT_REST if module.startswith(name)}
    assert {module for module in named if not module.startswith(("protos.spiffe", "sidecar.identity"))} == set()
    assert not {module for module in loaded if module.startswith(JOSE)}


JOSE = ("joserfc", "sidecar.jwks", "sidecar.rules.jwt")


def test_what_verifies_tokens_is_loaded_with_the_first_rule_about_them(sidecar_modules: set[str]) -> None:
    """And then it loads no HTTP client, no thread and nothing else that a sidecar does without."""
    assert not {module for module in sidecar_modules if module.startswith(JOSE)}
    loaded = loaded_by("import sidecar.__main__, sidecar.jwks.authenticator") - loaded_by("pass")
    assert {module for module in loaded if module.startswith(JOSE)}
    wrong = {module for module in loaded - sidecar_modules for name in NOT_AT_REST if module.split(".")[0] == name}
    assert not wrong
    assert "urllib.request" not in loaded
