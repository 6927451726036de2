"""The sidecar's process begins anew with the configuration it was given, whole, and with nothing else."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from hypothesis import given

from sidecar.config import Address, Config
from sidecar.describe import dump, undump
from sidecar.handover import received_config
from tests.sidecar.test_config import configs

BECOME = "from sidecar.config import Config; from sidecar.handover import become_sidecar; become_sidecar(Config({}){})"


@given(configs())
def test_what_is_dumped_reads_back_as_the_same_configuration(config: Config) -> None:
    """Every field, the name of the file included; `==` compares all of the tree."""
    assert undump(dump(config)) == config
    assert [type(port) for port in undump(dump(config)).inbound] == [type(port) for port in config.inbound]


def test_the_descriptor_is_closed_once_the_configuration_was_read() -> None:
    """The app must not inherit it."""
    config = Config(service="orders", advertise=Address("10.0.0.7", 15_008))
    descriptor = os.memfd_create("test")
    os.write(descriptor, dump(config))
    os.lseek(descriptor, 0, os.SEEK_SET)
    assert received_config(descriptor) == config
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


@pytest.mark.parametrize("command", ["", ", ['true']"])
def test_the_new_process_judges_the_configuration_as_the_old_one_did(command: str) -> None:
    """Without a join token either way of running ends at once, with one line and exit code 1."""
    code = BECOME.format("service='orders', join_token_file='/nowhere'", command)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "hauberk: join token: /nowhere: No such file or directory\n"


def test_what_is_in_the_working_directory_is_not_imported(tmp_path: os.PathLike[str]) -> None:
    """Else whoever may write there would run with the sidecar's identity."""
    with open(os.path.join(tmp_path, "trio.py"), "w") as file:
        file.write("raise SystemExit('planted')\n")
    code = BECOME.format("service='orders', join_token_file='/nowhere'", "")
    done = subprocess.run([sys.executable, "-P", "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert "planted" not in done.stderr
    assert done.returncode == 1
