"""Writes a conversation as a request of `anthropic_messages`, so that the upstream does not refuse it.

What this dialect has no word for is reported; what it cannot carry and must not lose is a `ClientError`. What a model can
do is read off its traits, never off its name.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from aurixel.dialects.anthropic_messages.codec_blocks import Block, Blocks
from aurixel.dialects.anthropic_messages.codec_schema import closed_schema, object_schema
from aurixel.dialects.json_fields import unsupported, wrong
from aurixel.dialects.spelling import end_user
from aurixel.errors import ClientError
from aurixel.plugin.canonical import Conversation, Effort, Losses, Reasoning, ToolResult, Written
from aurixel.plugin.contracts import ModelRules

_NOT_SAID: Final = ("verbosity", "seed", "presence_penalty", "frequency_penalty", "logit_bias", "cache_key")
_WRAP: Final = {"type": "object", "properties": {"input": {"type": "string"}}, "required": ["input"]}
_ANSWER: Final = "answer"
_ANSWER_WORDS: Final = "Gives the answer. Call it once, with the whole answer."
_JSON_HINT: Final = "Answer with one JSON object and nothing else: no words around it, no code fence."
_LEAST_BUDGET: Final = 1024
_BUDGETS: Final[dict[Effort, int]] = {
    "none": 0,
    "minimal": 1024,
    "low": 1024,
    "medium": 2048,
    "high": 4096,
    "xhigh": 8192,
    "max": 16_384,
}
_LEAST_TOP_P: Final = 0.95  # with thinking


def write(conversation: Conversation, rules: ModelRules, losses: Losses) -> Written:
    """See `ChatCodec.write`."""
    return _Writing(conversation, rules, losses).written()


class _Writing:
    """One request being written."""

    def __init__(self, conversation: Conversation, rules: ModelRules, losses: Losses) -> None:
        self._asked, self._rules, self._losses = conversation, rules, losses
        self._blocks = Blocks(conversation, losses)
        self._body: dict[str, Any] = {"model": conversation.model}
        self._answer_tool: str | None = None
        self._thinks = False

    def written(self) -> Written:
        asked, losses, body = self._asked, self._losses, self._body
        if asked.logprobs is not None:
            raise unsupported(losses.word("logprobs"), "Asking this model for the probabilities of tokens")
        for name in _NOT_SAID:
            if getattr(asked, name) is not None:
                losses.drop(name)
        limit = body["max_tokens"] = self._limit()
        tools = self._tools()
        system, messages = self._turns()
        self._reasoning(limit, messages)
        self._format(tools, system)
        if system:
            body["system"] = system
        body["messages"] = messages
        self._choice(tools)
        self._sampling()
        if asked.stop:
            stops = [stop for stop in asked.stop if stop and not stop.isspace()]
            if len(stops) < len(asked.stop):
                losses.change("stop")
            if stops:
                body["stop_sequences"] = stops
        if asked.user is not None:
            losses.change("user")
            body["metadata"] = {"user_id": end_user(asked.user)}
        if asked.cache is not None:
            self._blocks.mark(body, asked.cache)
        if asked.stream:
            body["stream"] = True
        names = self._blocks.names.changed
        if names:
            losses.change("tools.names")
        try:
            encoded = msgspec.json.encode(body)
        except RecursionError:  # a schema that was taken apart
            raise ClientError("too_deep", "The body is nested too deeply.", param=losses.word("format")) from None
        return Written(
            body=encoded,
            names=names,
            wrapped=frozenset(self._blocks.wrapped),
            answer_tool=self._answer_tool,
        )

    def _limit(self) -> int:
        asked, most = self._asked.max_output, self._rules.max_output
        if asked is None:
            return most
        if asked > most:
            self._losses.change("max_output")
            return most
        return asked

    # --- tools ------------------------------------------------------------------------------------------------------

    def _tools(self) -> list[Block]:
        asked, blocks = self._asked, self._blocks
        blocks.names.reserve(tool.name for tool in asked.tools)
        allowed = asked.tool_choice.allowed if asked.tool_choice is not None else None
        if allowed is not None:
            self._losses.emulate("tool_choice")
        tools: list[Block] = []
        for tool in asked.tools:
            if allowed is not None and tool.name not in allowed:
                continue
            written: Block = {"name": blocks.names.tool(tool.name)}
            description = tool.description
            if tool.custom:
                self._losses.emulate("tools.custom")
                blocks.wrapped.add(written["name"])
                written["input_schema"] = _WRAP
                if tool.grammar is not None:
                    self._losses.emulate("tools.grammar")
                    told = f"The input must be of this format: {bytes(tool.grammar).decode()}"
                    description = f"{description}\n\n{told}" if description else told
            else:
                written["input_schema"] = object_schema(tool.schema, "tools")
            if description:
                written["description"] = description
            if tool.strict:
                if "structured_outputs" in self._rules.traits:
                    written["strict"] = True
                else:
                    self._losses.drop("tools.strict")
            tools.append(blocks.mark(written, tool.cache))
        return tools

    def _choice(self, tools: list[Block]) -> None:
        """The tools, and how they may be called. Nobody is told of a choice between no tools."""
        if not tools:
            return
        self._body["tools"] = tools
        asked, choice = self._asked, self._asked.tool_choice
        mode = choice.mode if choice is not None else None
        if self._answer_tool is not None:
            if len(tools) == 1 or mode == "none":
                written: Block = {"type": "tool", "name": self._answer_tool, "disable_parallel_tool_use": True}
            else:
                written = {"type": "any"}
        elif mode in ("any", "tool") and self._thinks:
            self._losses.change("tool_choice")
            written = {"type": "auto"}
        elif choice is not None and mode == "tool":
            written = {"type": "tool", "name": self._blocks.names.tool(choice.name or "")}
        elif mode is not None:
            written = {"type": mode}
        elif asked.parallel_tools is False:
            written = {"type": "auto"}
        else:
            return
        if asked.parallel_tools is False and written["type"] != "none":
            written["disable_parallel_tool_use"] = True
        self._body["tool_choice"] = written

    def _format(self, tools: list[Block], system: list[Block]) -> None:
        form = self._asked.format
        if form is None:
            return
        if form.kind == "json_object" or form.schema is None:
            self._losses.emulate("format")
            system.append({"type": "text", "text": _JSON_HINT})
        elif "structured_outputs" in self._rules.traits:
            if form.description:
                self._losses.drop("format.description")
            schema, changed = closed_schema(form.schema, self._losses.word("format"))
            if changed:
                self._losses.change("format")
            config = self._body.setdefault("output_config", {})
            config["format"] = {"type": "json_schema", "schema": schema}
        else:
            self._losses.emulate("format")
            choice = self._asked.tool_choice
            if tools and choice is not None and choice.mode == "tool":
                return  # the client wants that call, and no answer yet
            name = self._answer_tool = self._blocks.names.free(_ANSWER)
            tools.append(
                {
                    "name": name,
                    "description": form.description or _ANSWER_WORDS,
                    "input_schema": object_schema(form.schema, self._losses.word("format")),
                }
            )
            self._no_thinking()

    # --- turns ------------------------------------------------------------------------------------------------------

    def _turns(self) -> tuple[list[Block], list[Block]]:
        """The system prompt and the messages, neighbours of different roles."""
        system: list[Block] = []
        turns: list[Block] = []
        late: list[Block] = []
        keeps = "system_turns" in self._rules.traits
        for message in self._asked.messages:
            if message.role == "system":
                blocks = self._blocks.texts(message.parts)
                if not turns:
                    system += blocks
                else:
                    late += blocks
                continue
            if message.role == "assistant":
                self._late(turns, late, keeps=keeps)
                late = []
                _add(turns, "assistant", self._blocks.assistant(message.parts))
                continue
            blocks = self._blocks.user(message.parts)
            if not blocks:
                raise wrong("messages", "a list in which no message of the user is blank")
            if keeps and late and any(isinstance(part, ToolResult) for part in message.parts):
                # nothing may stand between calls and their results
                _add(turns, "user", blocks)
                self._late(turns, late, keeps=keeps)
            elif keeps:
                self._late(turns, late, keeps=keeps)
                _add(turns, "user", blocks)
            else:
                first = sum([block["type"] == "tool_result" for block in blocks])
                _add(turns, "user", blocks[:first])
                self._late(turns, late, keeps=keeps)
                _add(turns, "user", blocks[first:])
            late = []
        self._late(turns, late, keeps=keeps)
        if not turns:
            raise wrong("messages", "a list with at least one message that is not of the system")
        self._ending(turns)
        return system, turns

    def _late(self, turns: list[Block], late: list[Block], *, keeps: bool) -> None:
        """A system message in the middle: where the model takes none, the user says it."""
        if not late:
            return
        if keeps:
            _add(turns, "system", late)
        else:
            self._losses.emulate("messages.system")
            _add(turns, "user", late)

    def _ending(self, turns: list[Block]) -> None:
        """The assistant's own words at the end, which the model is to go on with."""
        last = turns[-1]
        if last["role"] == "assistant":
            block = last["content"][-1]
            if block["type"] == "text":
                block["text"] = block["text"].rstrip()
            if "no_prefill" in self._rules.traits:
                raise unsupported("messages", "Ending with the assistant's own words with this model")

    # --- thinking and sampling --------------------------------------------------------------------------------------

    def _reasoning(self, limit: int, turns: list[Block]) -> None:
        asked, traits = self._asked.reasoning, self._rules.traits
        if asked is None:
            return
        adaptive, budget = "adaptive_thinking" in traits, "budget_thinking" in traits
        if asked.enabled is False or (not asked.enabled and asked.effort == "none"):
            if adaptive or budget:
                self._body["thinking"] = {"type": "disabled"}
            return
        if asked.enabled is None and asked.effort is None and asked.budget is None:
            return
        if not adaptive and not budget:
            self._losses.drop("reasoning")
            return
        if turns[-1]["role"] == "assistant" or _thoughtless(turns):
            self._no_thinking(wanted=True)
            return
        if adaptive and not (budget and asked.budget is not None):
            self._adaptive(asked)
        else:
            self._budget(asked, limit)

    def _adaptive(self, asked: Reasoning) -> None:
        effort = asked.effort
        if effort is None and asked.budget is not None:
            self._losses.emulate("reasoning")
            effort = "low" if asked.budget < 2048 else "medium" if asked.budget < 8192 else "high"
        elif effort in ("minimal", "none"):
            self._losses.change("reasoning")
            effort = "low"
        self._thinks = True
        self._body["thinking"] = {"type": "adaptive", "display": "summarized" if asked.shown else "omitted"}
        if effort is not None:
            self._body["output_config"] = {"effort": effort}

    def _budget(self, asked: Reasoning, limit: int) -> None:
        if limit <= _LEAST_BUDGET:
            self._no_thinking(wanted=True)
            return
        budget = asked.budget
        if budget is None:
            self._losses.emulate("reasoning")
            budget = _BUDGETS[asked.effort or "medium"]
        if budget >= limit or budget < _LEAST_BUDGET:
            if asked.budget is not None:
                self._losses.change("reasoning")
            # a fifth at least is left for the answer
            budget = max(_LEAST_BUDGET, min(budget, limit * 4 // 5))
        self._thinks = True
        self._body["thinking"] = {"type": "enabled", "budget_tokens": budget}
        if not asked.shown:
            self._body["thinking"]["display"] = "omitted"

    def _no_thinking(self, *, wanted: bool = False) -> None:
        """Turns thinking off for this request, where it was wanted."""
        if self._thinks or wanted:
            self._losses.change("reasoning")
            self._thinks = False
            self._body["thinking"] = {"type": "disabled"}

    def _sampling(self) -> None:
        asked, body, losses = self._asked, self._body, self._losses
        refuses = "no_sampling" in self._rules.traits
        temperature, top_p, top_k = asked.temperature, asked.top_p, asked.top_k
        if temperature is not None:
            if refuses or self._thinks:
                if temperature != 1:
                    losses.drop("temperature")
                temperature = None
            elif temperature > 1:
                losses.change("temperature")
                temperature = 1
            if temperature is not None:
                body["temperature"] = temperature
        if top_p is not None:
            # many models refuse both, and this is the one that says nothing when it is 1
            if refuses or temperature is not None or (self._thinks and top_p < _LEAST_TOP_P):
                if top_p != 1:
                    losses.drop("top_p")
            else:
                body["top_p"] = top_p
        if top_k is not None:
            if refuses or self._thinks:
                losses.drop("top_k")
            else:
                body["top_k"] = top_k


def _add(turns: list[Block], role: str, blocks: list[Block]) -> None:
    """One more turn, or more of the last one."""
    if not blocks:
        return
    if turns and turns[-1]["role"] == role:
        turns[-1]["content"] += blocks
        if role == "user":
            turns[-1]["content"].sort(key=_after_results)
    else:
        turns.append({"role": role, "content": blocks})


def _after_results(block: Block) -> bool:
    return bool(block["type"] != "tool_result")


def _thoughtless(turns: list[Block]) -> bool:
    """Whether the conversation stands in a loop of tool calls whose thinking is gone: thinking would be refused there."""
    in_loop = False
    for turn in reversed(turns):
        if turn["role"] == "assistant":
            if not in_loop:
                return False
            if turn["content"][0]["type"] in ("thinking", "redacted_thinking"):
                return False
        elif turn["role"] == "user":
            if turn["content"][0]["type"] != "tool_result":
                return in_loop
            in_loop = True
    return in_loop
