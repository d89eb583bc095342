// Both official SDKs ask the upstream at argv[2] and print what they got.
import Anthropic from "@anthropic-ai/sdk";
import OpenAI from "openai";

const url = process.argv[2];
if (!url) throw new Error("aimock.url is missing");
const messages = [{ role: "user", content: "hello" }];

const openai = new OpenAI({ baseURL: `${url}/v1`, apiKey: "k", maxRetries: 0 });
const chat = await openai.chat.completions.create({ model: "some-model", messages });

const anthropic = new Anthropic({ baseURL: url, apiKey: "k", maxRetries: 0 });
const message = await anthropic.messages.create({ model: "some-model", max_tokens: 10, messages });

console.log(`${chat.choices[0].message.content}|${message.content[0].text}`);
