"""Upstreams that speak the Anthropic Messages API. It sends nothing itself."""

from aurixel.plugin import Provider, hookimpl
from aurixel_anthropic.provider import Anthropic, AnthropicSettings

__all__ = ["Anthropic", "AnthropicSettings", "register_providers"]


@hookimpl
def register_providers() -> list[type[Provider]]:
    """The kind `anthropic`."""
    return [Anthropic]
