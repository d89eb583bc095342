"""Picks a family by what a caller sent, and renders in it what belongs to no operation: errors of any path, models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final, Literal, TypeAlias

from aurixel.dialects import anthropic_family, openai_family
from aurixel.errors import RequestError
from aurixel.plugin.contracts import ErrorReply, ModelCard

Family: TypeAlias = Literal["openai", "anthropic"]

_ERRORS: Final = MappingProxyType({"openai": openai_family.encode_error, "anthropic": anthropic_family.encode_error})


def family_of(headers: Mapping[str, str]) -> Family:
    """The family of a caller on a path that both share; `headers` by lower-case name. Relay routes tell by their path."""
    return "anthropic" if "anthropic-version" in headers else "openai"


def encode_error(family: str, error: RequestError, request_id: str) -> ErrorReply:
    """An error as a whole reply of `family`."""
    return _ERRORS[family](error, request_id)


def models_list(family: str, cards: Sequence[ModelCard], query: str = "") -> bytes:
    """The JSON of `GET /v1/models`, in the order given. `ClientError` for a query that asks for no page."""
    return anthropic_family.models_list(cards, query) if family == "anthropic" else openai_family.models_list(cards)


def model_card(family: str, card: ModelCard) -> bytes:
    """The JSON of `GET /v1/models/{id}`."""
    return anthropic_family.model_card(card) if family == "anthropic" else openai_family.model_card(card)
