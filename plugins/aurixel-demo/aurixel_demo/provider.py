"""The provider `demo`: answers by itself, in both families, and fails when it is told to. It makes no connection."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import ClassVar, Final, Literal

from pydantic import BaseModel, Field

from aurixel.plugin import (
    AnyBody,
    Attempt,
    Classified,
    Host,
    Outgoing,
    PluginSettings,
    ProviderError,
    UpstreamReply,
    classify_status,
    retry_after,
)
from aurixel_demo import forms, media, script, shapes

SCHEME: Final = "demo:"


class DemoSettings(PluginSettings):
    """The block `[upstreams.NAME]` of the demo. Seconds before each piece: always, and when it is told to be slow."""

    delay: float = Field(default=0.0, ge=0, le=60)
    slow_delay: float = Field(default=0.2, ge=0, le=60)
    # Which families' chat it speaks; a request of another one is translated.
    speaks: tuple[Literal["openai_chat", "anthropic_messages", "openai_completions"], ...] = Field(
        default=("openai_chat", "anthropic_messages", "openai_completions"), min_length=1
    )


class Reply:
    """An answer as it comes: pieces with a pause before each; `dies` cuts the connection after the last one."""

    def __init__(self, status: int, kind: str, pieces: Iterable[bytes], *, pause: float, dies: bool, wait: str | None) -> None:
        self.status = status
        self.headers: Mapping[str, str] = {"content-type": kind, **({"retry-after": wait} if wait else {})}
        self._pieces, self._pause, self._dies = pieces, pause, dies

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body, in small pieces."""
        for piece in self._pieces:
            await asyncio.sleep(self._pause)
            yield piece
        if self._dies:
            raise ProviderError("upstream_died", "The upstream closed the connection.")

    async def read(self, limit: int) -> bytes:
        """The whole body."""
        body = b"".join([piece async for piece in self.chunks()])
        if len(body) > limit:
            raise ProviderError("upstream_invalid", "The upstream's answer is too large.")
        return body


class Demo:
    """An upstream inside the gateway."""

    kind: ClassVar[str] = "demo"
    dialects: ClassVar[Mapping[str, Sequence[str]]] = {
        "chat": ("openai_chat", "anthropic_messages", "openai_completions"),
        "embeddings": ("openai_embeddings",),
        "moderation": ("openai_moderations",),
        "images": ("openai_images", "openai_image_edits", "openai_image_variations"),
        "speech": ("openai_speech",),
        "transcription": ("openai_transcriptions", "openai_translations"),
    }
    Settings: ClassVar[type[BaseModel]] = DemoSettings

    def __init__(self, settings: DemoSettings, host: Host) -> None:
        self.output_limit_field: str | None = "max_completion_tokens"
        self._settings, self._clock = settings, host.clock

    def spoken(self, operation: str) -> Sequence[str]:
        """See `SpeaksLess`."""
        return self._settings.speaks if operation == "chat" else self.dialects[operation]

    def prepare(self, attempt: Attempt, body: AnyBody) -> Outgoing:
        """The dialect is all there is to say about where to go."""
        return Outgoing(method="POST", url=SCHEME + attempt.dialect, headers=(), body=body)

    def classify(self, status: int, headers: Mapping[str, str], body: bytes) -> Classified:
        """As a real vendor's provider would: the client's fault is relayed, the rest is for another upstream to try."""
        del body
        return classify_status(status, wait=retry_after(headers, self._clock.wall_ms()), relay=True)

    @asynccontextmanager
    async def open(self, outgoing: Outgoing) -> AsyncIterator[UpstreamReply]:
        """Answer the request in `outgoing.body`."""
        dialect = outgoing.url.removeprefix(SCHEME)
        body = outgoing.body
        asked = b"".join(body if isinstance(body, Sequence) else [piece async for piece in body])
        answer = script.write(forms.as_json(asked) if asked.startswith(b"--") else asked)
        if answer.trouble == "hang":
            await asyncio.Event().wait()
        yield self._reply(dialect, answer)

    def _reply(self, dialect: str, answer: script.Script) -> Reply:
        pause = self._settings.slow_delay if answer.trouble == "slow" else self._settings.delay
        dies = answer.trouble == "die"
        status = {"refuse": 400, "429": 429, "fail": 500}.get(answer.trouble or "", 200)
        if status != 200:
            body = shapes.error_body(dialect, status, "The demo was told to fail.")
            wait = "1" if status == 429 else None
            return Reply(status, "application/json", [body], pause=pause, dies=False, wait=wait)
        made = self._answer(dialect, answer, self._clock.wall_ms() // 1000)
        pieces = list(made.pieces)
        if dies:
            half = pieces[0][: len(pieces[0]) // 2]
            pieces = pieces[: len(pieces) // 2] or [half]
        elif answer.trouble == "error" and made.kind == media.EVENTS:
            pieces = [*pieces[: len(pieces) // 2], shapes.error_event(dialect)]
        return Reply(status, made.kind, pieces, pause=pause, dies=dies, wait=None)

    def _answer(self, dialect: str, answer: script.Script, created: int) -> media.Answer:
        made = media.answer(dialect, answer, created)
        if made is not None:
            return made
        if answer.stream:
            return media.Answer(media.EVENTS, tuple(shapes.events(dialect, answer, created)))
        return media.Answer(media.JSON, (shapes.whole(dialect, answer, created),))
