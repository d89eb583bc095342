"""Upstreams that speak the OpenAI API: any vendor that does is a block of configuration. It sends nothing itself."""

from aurixel.plugin import Provider, hookimpl
from aurixel_openai.provider import OpenAI, OpenAISettings

__all__ = ["OpenAI", "OpenAISettings", "register_providers"]


@hookimpl
def register_providers() -> list[type[Provider]]:
    """The kind `openai`."""
    return [OpenAI]
