// The official JavaScript SDKs through the gateway at argv[2] with the key at argv[3]; prints what they saw as JSON.
import Anthropic from "@anthropic-ai/sdk";
import OpenAI from "openai";

const [url, key] = process.argv.slice(2);
const messages = [{ role: "user", content: "hello" }];
const parameters = { type: "object", properties: { city: { type: "string" } }, required: ["city"] };
const seen = {};

const openai = new OpenAI({ baseURL: `${url}/v1`, apiKey: key });
const chat = await openai.chat.completions.create({ model: "gpt-test", messages });
seen.chat = [chat.choices[0].message.content, chat.usage.prompt_tokens, typeof chat._request_id];

let text = "";
for await (const chunk of await openai.chat.completions.create({ model: "gpt-test", messages, stream: true })) {
  if (chunk.usage) throw new Error("usage that nobody asked for");
  text += chunk.choices[0].delta.content ?? "";
}
seen.chatStream = text;

const tools = [{ type: "function", function: { name: "weather", description: "The weather", parameters } }];
const helper = openai.chat.completions.stream({ model: "gpt-test", messages: [{ role: "user", content: "tool" }], tools });
const final = await helper.finalChatCompletion();
seen.chatTool = final.choices[0].message.tool_calls[0].function.arguments;

const anthropic = new Anthropic({ baseURL: url, apiKey: key });
const ask = { model: "claude-test", max_tokens: 50, messages };
const message = await anthropic.messages.create(ask);
seen.message = [message.content[0].text, message.usage.input_tokens, typeof message._request_id];
const streamed = await anthropic.messages.stream(ask).finalMessage();
seen.messageStream = [streamed.content[0].text, streamed.usage.output_tokens, streamed.stop_reason];
const used = await anthropic.messages
  .stream({
    ...ask,
    messages: [{ role: "user", content: "tool" }],
    tools: [{ name: "weather", description: "The weather", input_schema: parameters }],
  })
  .finalMessage();
seen.messageTool = used.content.at(-1).input;

const models = [];
for await (const model of openai.models.list()) models.push(model.id);
for await (const model of anthropic.models.list()) models.push(model.id);
seen.models = models;

const fails = async (name, work) => {
  try {
    await work();
    seen[name] = "no error";
  } catch (error) {
    seen[name] = [error.constructor.name, error.status];
  }
};
await fails("wrongKey", () => new OpenAI({ baseURL: `${url}/v1`, apiKey: "ax-no" }).models.list());
await fails("noModel", () => openai.chat.completions.create({ model: "nothing", messages }));
await fails("noModelMessages", () => anthropic.messages.create({ ...ask, model: "nothing" }));
await fails("died", async () => {
  const question = [{ role: "user", content: "die" }];
  for await (const _ of await openai.chat.completions.create({ model: "gpt-test", messages: question, stream: true }));
});
console.log(JSON.stringify(seen));
