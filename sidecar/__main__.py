"""`python -m sidecar DESCRIPTOR [COMMAND...]`: for `sidecar.handover` alone; people type `hauberk sidecar`."""

from __future__ import annotations

import os
import sys

from sidecar.handover import received_config
from sidecar.main import run_sidecar, run_with_app


def main() -> int:
    """The exit code."""
    descriptor, *command = sys.argv[1:]
    try:
        config = received_config(int(descriptor))
        return run_with_app(config, command) if command else run_sidecar(config)
    except KeyboardInterrupt:
        return 130  # 128 + SIGINT, as shells have it
    except Exception as error:
        if os.environ.get("HAUBERK_DEBUG"):
            raise
        what = " ".join(f"{type(error).__name__}: {error}".split())
        sys.stderr.write(f"hauberk: internal error: {what}; HAUBERK_DEBUG=1 shows where: please report it\n")
        return 1


if __name__ == "__main__":
    sys.exit(main())
