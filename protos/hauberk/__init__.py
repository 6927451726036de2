"""Versions of the wire: `v1` is the only one."""
