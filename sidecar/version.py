"""Which version this is. `pyproject.toml` says the same, and a test holds them together.

A constant, because `importlib.metadata` would bring the package `email` along, and a file to parse, to every sidecar:
4 MB of resident memory for one word."""

from __future__ import annotations

VERSION = "0.1.0"
