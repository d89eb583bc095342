"""The models that the SDKs' tests name, and a price for all that they may use."""

from __future__ import annotations

from collections.abc import Mapping

from anthropic.resources.messages import DEPRECATED_MODELS

# SDK -> operation -> the names in its tests.
_MODELS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "openai": {
        "chat": ("gpt-6-astra", "gpt-3.5-turbo-instruct", "model"),
        "embeddings": ("text-embedding-3-small",),
        "moderation": ("omni-moderation-2024-09-26", "omni-moderation-latest"),
        "images": ("gpt-image-1.5", "gpt-image-2.5-flare"),
        "speech": ("tts-1",),
        "transcription": ("gpt-4o-transcribe", "whisper-1"),
    },
    "anthropic": {"chat": ("claude-opus-5-5", "model_id", *DEPRECATED_MODELS)},
}
_PRICES: Mapping[str, str] = {
    "chat": 'input = "1.00"\noutput = "4.00"\ncache_write_5m = "1.25"\ncache_write_1h = "2.00"\n',
    "embeddings": 'input = "0.02"\n',
    "moderation": 'requests = "0"\n',
    "images": 'images = "0.04"\ninput = "5.00"\noutput = "10.00"\noutput_image = "40.00"\n',
    "speech": 'characters = "15.00"\n',
    "transcription": 'audio_seconds = "0.0001"\n',
}


def _each(sdk: str) -> list[tuple[str, str]]:
    return [(name, operation) for operation, names in _MODELS[sdk].items() for name in names]


def models(sdk: str) -> str:
    """models.toml: all served by the upstream `up`, by the same names."""
    return "\n".join(
        f'[models."{name}"]\noperations = ["{operation}"]\ncontext = 1000000\nmax_output = 100000\n'
        f'routes = [{{ upstream = "up", model = "{name}" }}]\n'
        for name, operation in _each(sdk)
    )


def prices(sdk: str) -> str:
    """prices.toml."""
    return "\n".join(
        f'[[price]]\nmodel = "{name}"\neffective = 2025-01-01\n{_PRICES[operation]}' for name, operation in _each(sdk)
    )
