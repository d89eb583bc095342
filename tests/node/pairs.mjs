// The official JavaScript SDKs in each chat dialect, on an upstream of each: what argv[4] names, through the gateway at
// argv[2] with the key at argv[3]; prints what they saw as JSON, by `client>upstream`.
import Anthropic from "@anthropic-ai/sdk";
import OpenAI from "openai";

const [url, key, what] = process.argv.slice(2);
const openai = new OpenAI({ baseURL: `${url}/v1`, apiKey: key, maxRetries: 0 });
const anthropic = new Anthropic({ baseURL: url, apiKey: key, maxRetries: 0 });
const dialects = ["chat", "responses", "messages"];
const parameters = { type: "object", properties: { city: { type: "string" } }, required: ["city"] };
const described = { name: "weather", description: "The weather" };

// Each client: ask (whole or streamed, put together by the SDK), and of a reply its text, calls, stop, tokens in and out,
// the turn that gives it back exactly as the SDK has it, and the turn that answers its calls.
const clients = {
  chat: {
    ask: async (model, messages, streamed, more) => {
      const body = { model, messages, tools: [{ type: "function", function: { ...described, parameters } }], ...more };
      if (!streamed) return openai.chat.completions.create(body);
      return openai.chat.completions.stream({ ...body, stream_options: { include_usage: true } }).finalChatCompletion();
    },
    thinking: { reasoning_effort: "medium" },
    text: (reply) => reply.choices[0].message.content ?? "",
    calls: (reply) => (reply.choices[0].message.tool_calls ?? []).map((c) => [c.id, c.function.name, c.function.arguments]),
    stop: (reply) => reply.choices[0].finish_reason,
    tokens: (reply) => [reply.usage.prompt_tokens, reply.usage.completion_tokens],
    back: (reply) => [reply.choices[0].message],
    results: (calls) => calls.map(([id]) => ({ role: "tool", tool_call_id: id, content: "-3 °C" })),
  },
  responses: {
    ask: async (model, input, streamed, more) => {
      const body = { model, input, tools: [{ type: "function", ...described, parameters, strict: false }], ...more };
      return streamed ? openai.responses.stream(body).finalResponse() : openai.responses.create(body);
    },
    thinking: { reasoning: { effort: "medium", summary: "auto" }, include: ["reasoning.encrypted_content"] },
    text: (reply) => reply.output_text,
    calls: (reply) => reply.output.filter((i) => i.type === "function_call").map((i) => [i.call_id, i.name, i.arguments]),
    stop: (reply) => reply.status,
    tokens: (reply) => [reply.usage.input_tokens, reply.usage.output_tokens],
    back: (reply) => reply.output,
    results: (calls) => calls.map(([id]) => ({ type: "function_call_output", call_id: id, output: "-3 °C" })),
  },
  messages: {
    ask: async (model, messages, streamed, more) => {
      const body = { model, messages, max_tokens: 3000, tools: [{ ...described, input_schema: parameters }], ...more };
      return streamed ? anthropic.messages.stream(body).finalMessage() : anthropic.messages.create(body);
    },
    thinking: { thinking: { type: "adaptive", display: "summarized" }, output_config: { effort: "medium" } },
    text: (reply) => reply.content.map((block) => block.text ?? "").join(""),
    calls: (reply) => reply.content.filter((b) => b.type === "tool_use").map((b) => [b.id, b.name, JSON.stringify(b.input)]),
    stop: (reply) => reply.stop_reason,
    tokens: (reply) => [reply.usage.input_tokens, reply.usage.output_tokens],
    back: (reply) => [{ role: "assistant", content: reply.content }],
    results: (calls) => [
      { role: "user", content: calls.map(([id]) => ({ type: "tool_result", tool_use_id: id, content: "-3 °C" })) },
    ],
  },
};
const user = (content) => ({ role: "user", content });
const outcome = async (work) => {
  try {
    await work();
    return "no error";
  } catch (error) {
    return [error.constructor.name, error.status ?? null];
  }
};

// A text, a call and what follows its answer, and an answer that breaks off.
async function talk(client, model, streamed) {
  const seen = [];
  const show = (reply) =>
    seen.push([client.text(reply), client.calls(reply).map(([, ...call]) => call), client.stop(reply), client.tokens(reply)]);
  show(await client.ask(model, [user("hello")], streamed));
  const history = [user("weather")];
  const called = await client.ask(model, history, streamed);
  show(called);
  history.push(...client.back(called), ...client.results(client.calls(called)), user("thanks"));
  show(await client.ask(model, history, streamed));
  if (streamed) seen.push(await outcome(() => client.ask(model, [user("die")], true)));
  return seen;
}

// Four turns of an upstream that thinks, each given back.
async function think(client, model, streamed) {
  const history = [user("The weather?")];
  const seen = [];
  for (let turn = 0; turn < 4; turn++) {
    const reply = await client.ask(model, history, streamed, client.thinking);
    seen.push(client.text(reply));
    const calls = client.calls(reply);
    history.push(...client.back(reply), ...(calls.length ? client.results(calls) : [user("Why?")]));
  }
  return seen;
}

const all = {};
for (const name of dialects)
  for (const upstream of dialects)
    for (const streamed of [false, true]) {
      const work = what === "think" ? think : talk;
      all[`${name}>${upstream}${streamed ? " streamed" : ""}`] = await work(clients[name], `on-${upstream}`, streamed);
    }
console.log(JSON.stringify(all));
