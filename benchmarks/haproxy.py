"""HAProxy, later."""

from __future__ import annotations


class HAProxy:
    name = "haproxy"
