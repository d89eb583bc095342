"""The official SDKs read what the dialects hand on, and see what the upstream meant: text, tools, usage, errors, models."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import anthropic
import openai
import pytest

from aurixel.dialects import encode_error, model_card, models_list
from aurixel.errors import ClientError, CreditError, GatewayError, PolicyError, ProviderError, RequestError
from aurixel.plugin.contracts import ErrorReply, ModelCard
from tests.dialects.cases import Case, cases, name_of, play


class Canned(ThreadingHTTPServer):
    """Answers every request with `answer`, and counts them."""

    daemon_threads = True
    answer = ErrorReply(200, (), b"")
    asked = 0

    def stream(self, body: bytes) -> None:
        self.answer = ErrorReply(200, (("content-type", "text/event-stream; charset=utf-8"),), body)

    def json(self, body: bytes) -> None:
        self.answer = ErrorReply(200, (("content-type", "application/json"),), body)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: Canned

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("content-length", 0)))
        self.server.asked += 1
        answer = self.server.answer
        self.send_response(answer.status)
        for name, value in answer.headers:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(answer.body)

    do_GET = do_POST  # noqa: N815 - the name that the server looks for

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture(scope="module")
def server() -> Iterator[Canned]:
    with Canned(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def openai_client(server: Canned) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="k", max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def anthropic_client(server: Canned) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=server.url, api_key="k", max_retries=0) as client:
        yield client


def handed_on(case: Case) -> bytes:
    """What a client of the gateway receives: the dialect's output, and the error event where the stream failed."""
    played = play(case.dialect.stream_reader(case.request(stream=True)), [case.upstream])
    if not played.error:
        return played.out
    return played.out + case.dialect.encode_stream_error(ProviderError(played.error, "It failed."), "req_1")


def good(dialect: str) -> list[Case]:
    return [case for case in cases("upstream.sse", dialect) if "error" not in case.meta]


def bad(dialect: str) -> list[Case]:
    return [case for case in cases("upstream.sse", dialect) if "error" in case.meta]


@pytest.mark.parametrize("case", good("openai_chat"), ids=name_of)
def test_the_openai_sdk_follows(case: Case, server: Canned, openai_client: openai.OpenAI) -> None:
    server.stream(handed_on(case))
    text, finish, usage, tools = "", None, None, {}
    stream = openai_client.chat.completions.create(model="m", messages=[{"role": "user", "content": "x"}], stream=True)
    for chunk in stream:
        if chunk.usage is not None:
            usage = [chunk.usage.prompt_tokens, chunk.usage.completion_tokens]
        for choice in chunk.choices:  # user code walks it unasked
            if choice.index:
                continue
            if isinstance(choice.delta.content, str):
                text += choice.delta.content
            finish = choice.finish_reason or finish
            for call in choice.delta.tool_calls or ():
                known = tools.setdefault(call.index, [call.id, call.function.name, ""])
                known[2] += call.function.arguments or ""
    meta = case.meta
    assert text == meta.get("text", text)
    assert finish == meta["finish"]
    assert usage == meta.get("sdk_usage")
    assert list(tools.values()) == meta.get("tools", [])


@pytest.mark.parametrize("case", bad("openai_chat"), ids=name_of)
def test_the_openai_sdk_sees_the_failure(case: Case, server: Canned, openai_client: openai.OpenAI) -> None:
    server.stream(handed_on(case))
    stream = openai_client.chat.completions.create(model="m", messages=[{"role": "user", "content": "x"}], stream=True)
    with pytest.raises(openai.APIError) as caught:
        list(stream)
    assert (caught.value.code, caught.value.type) == (case.meta["error"], "server_error")
    assert "secret" not in str(caught.value.body)


@pytest.mark.parametrize("case", good("openai_responses"), ids=name_of)
def test_the_openai_sdk_follows_a_response(case: Case, server: Canned, openai_client: openai.OpenAI) -> None:
    server.stream(handed_on(case))
    with openai_client.responses.stream(model="m", input="x") as stream:
        events: list[Any] = list(stream)
    meta, last = case.meta, events[-1]
    assert last.type == f"response.{meta['status']}"
    usage = last.response.usage
    assert (usage and [usage.input_tokens, usage.output_tokens]) == meta.get("sdk_usage")
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == meta["text"]
    calls = [event.item for event in events if event.type == "response.output_item.done"]
    tools = [[item.call_id, item.name, item.arguments] for item in calls if item.type == "function_call"]
    assert tools == meta.get("tools", [])


@pytest.mark.parametrize("case", bad("openai_responses"), ids=name_of)
def test_the_openai_sdk_sees_a_response_fail(case: Case, server: Canned, openai_client: openai.OpenAI) -> None:
    sent = handed_on(case)
    server.stream(sent)
    with pytest.raises(openai.APIError) as caught:
        list(openai_client.responses.create(model="m", input="x", stream=True))
    assert (caught.value.code, caught.value.type) == (case.meta["error"], "server_error")
    # Whoever does not know that event stops at the next one.
    assert b"secret" not in sent
    assert sent.split(b"\n\n")[-2].startswith(b"event: response.failed\ndata: {")
    if b"response.created" in sent:
        with openai_client.responses.stream(model="m", input="x") as stream, pytest.raises(openai.APIError):
            stream.get_final_response()


@pytest.mark.parametrize("case", good("anthropic_messages"), ids=name_of)
def test_the_anthropic_sdk_follows(case: Case, server: Canned, anthropic_client: anthropic.Anthropic) -> None:
    server.stream(handed_on(case))
    asked: Any = {"model": "m", "max_tokens": 4096, "messages": [{"role": "user", "content": "x"}]}
    with anthropic_client.messages.stream(**asked) as stream:
        message = stream.get_final_message()
    meta = case.meta
    assert message.stop_reason == meta["finish"]
    assert [message.usage.input_tokens, message.usage.output_tokens] == meta["sdk_usage"]
    if "blocks" in meta:
        shown = [block.model_dump(exclude_none=True) for block in message.content]
        wanted = meta["blocks"]
        assert [{key: block.get(key) for key in like} for block, like in zip(shown, wanted, strict=True)] == wanted


@pytest.mark.parametrize("case", bad("anthropic_messages"), ids=name_of)
def test_the_anthropic_sdk_sees_the_failure(case: Case, server: Canned, anthropic_client: anthropic.Anthropic) -> None:
    server.stream(handed_on(case))
    asked: Any = {"model": "m", "max_tokens": 4096, "messages": [{"role": "user", "content": "x"}]}
    with anthropic_client.messages.stream(**asked) as stream, pytest.raises(anthropic.APIStatusError) as caught:
        stream.get_final_message()
    assert caught.value.error_code == case.meta["error"]
    assert "secret" not in str(caught.value.body)


@pytest.mark.parametrize("case", [case for case in cases("reply.json", "openai_chat") if "text" in case.meta], ids=name_of)
def test_the_openai_sdk_reads_whole_replies(case: Case, server: Canned, openai_client: openai.OpenAI) -> None:
    server.json(case.reply)
    reply = openai_client.chat.completions.create(model="m", messages=[{"role": "user", "content": "x"}])
    assert reply.choices[0].message.content == case.meta["text"]


@pytest.mark.parametrize("case", [case for case in cases("reply.json", "openai_responses") if "text" in case.meta], ids=name_of)
def test_the_openai_sdk_reads_whole_responses(case: Case, server: Canned, openai_client: openai.OpenAI) -> None:
    server.json(case.reply)
    assert openai_client.responses.create(model="m", input="x").output_text == case.meta["text"]


# error, exception of each SDK, how often each asks when it may try twice
ERRORS: list[tuple[RequestError, Any, Any, int, int]] = [
    (ClientError("invalid_json", "No."), openai.BadRequestError, anthropic.BadRequestError, 1, 1),
    (ClientError("invalid_key", "No."), openai.AuthenticationError, anthropic.AuthenticationError, 1, 1),
    (ClientError("account_suspended", "No."), openai.PermissionDeniedError, anthropic.PermissionDeniedError, 1, 1),
    (ClientError("model_not_found", "No."), openai.NotFoundError, anthropic.NotFoundError, 1, 1),
    (ClientError("method_not_allowed", "No."), openai.APIStatusError, anthropic.APIStatusError, 1, 1),
    (ClientError("body_too_large", "No."), openai.APIStatusError, anthropic.ContentTooLargeError, 1, 1),
    (CreditError("credit_exhausted", "No."), openai.RateLimitError, anthropic.PaymentRequiredError, 1, 1),
    (PolicyError("rate_limit_requests", "No.", retry_after=0.001), openai.RateLimitError, anthropic.RateLimitError, 2, 2),
    (
        ProviderError("upstream_overloaded", "No.", retry_after=0.001),
        openai.InternalServerError,
        anthropic.OverloadedError,
        2,
        2,
    ),
    (ProviderError("upstream_credentials", "No."), openai.InternalServerError, anthropic.InternalServerError, 1, 1),
    (
        ProviderError("upstream_timeout", "No.", retry_after=0.001),
        openai.InternalServerError,
        anthropic.GatewayTimeoutError,
        2,
        2,
    ),
    (GatewayError("model_unpriced", "No."), openai.InternalServerError, anthropic.ServiceUnavailableError, 1, 1),
]


@pytest.mark.parametrize(("error", "openai_type", "_", "asks", "__"), ERRORS, ids=lambda value: getattr(value, "code", None))
def test_the_openai_sdk_raises(
    error: RequestError, openai_type: Any, _: Any, asks: int, __: int, server: Canned, openai_client: openai.OpenAI
) -> None:
    server.answer, server.asked = encode_error("openai", error, "req_1"), 0
    with pytest.raises(openai_type) as caught:
        openai_client.with_options(max_retries=1).chat.completions.create(model="m", messages=[])
    assert caught.value.request_id == "req_1"
    assert caught.value.code
    assert server.asked == asks


@pytest.mark.parametrize(("error", "_", "anthropic_type", "__", "asks"), ERRORS, ids=lambda value: getattr(value, "code", None))
def test_the_anthropic_sdk_raises(
    error: RequestError, _: Any, anthropic_type: Any, __: int, asks: int, server: Canned, anthropic_client: anthropic.Anthropic
) -> None:
    server.answer, server.asked = encode_error("anthropic", error, "req_1"), 0
    with pytest.raises(anthropic_type) as caught:
        anthropic_client.with_options(max_retries=1).messages.create(model="m", max_tokens=1, messages=[])
    assert caught.value.request_id == "req_1"
    assert caught.value.error_code == error.code
    assert server.asked == asks


CARDS = [ModelCard(id=f"vendor/m{n}", created_ms=1_790_000_000_000 + n, context=1000, max_output=100) for n in range(45)]


def test_the_sdks_list_models(server: Canned, openai_client: openai.OpenAI, anthropic_client: anthropic.Anthropic) -> None:
    server.json(models_list("openai", CARDS))
    assert [model.id for model in openai_client.models.list()] == [card.id for card in CARDS]
    server.json(models_list("anthropic", CARDS, "limit=1000"))
    listed = list(anthropic_client.models.list())
    assert [model.id for model in listed] == [card.id for card in CARDS]
    assert (listed[0].max_input_tokens, listed[0].max_tokens, listed[0].lifecycle) == (1000, 100, "active")


def test_the_sdks_read_a_model(server: Canned, openai_client: openai.OpenAI, anthropic_client: anthropic.Anthropic) -> None:
    server.json(model_card("openai", CARDS[0]))
    assert openai_client.models.retrieve("vendor/m0").created == 1_790_000_000
    server.json(model_card("anthropic", CARDS[0]))
    assert anthropic_client.models.retrieve("vendor/m0").created_at.timestamp() == 1_790_000_000
