"""Canned answers without any upstream, for a first look and for tests. It makes no connection and keeps nothing."""

from aurixel.plugin import Provider, hookimpl
from aurixel_demo.provider import Demo, DemoSettings

__all__ = ["Demo", "DemoSettings", "register_providers"]


@hookimpl
def register_providers() -> list[type[Provider]]:
    """The kind `demo`."""
    return [Demo]
