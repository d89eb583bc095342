// The endpoints beside chat by the official JavaScript SDK, at the gateway at argv[2] with the key at argv[3]; prints what it saw.
import OpenAI, { toFile } from "openai";

const [url, key] = process.argv.slice(2);
const openai = new OpenAI({ baseURL: `${url}/v1`, apiKey: key, maxRetries: 0 });
const seen = {};

const vectors = await openai.embeddings.create({ model: "demo-embedding", input: ["two words", "three more words"] });
seen.vectors = [vectors.data.map((each) => each.embedding.length), vectors.usage.prompt_tokens];

const verdict = await openai.moderations.create({ model: "demo-judge", input: "an act of violence" });
seen.flagged = verdict.results[0].flagged;

const picture = await openai.images.generate({ model: "demo-image", prompt: "a red fox" });
seen.picture = Buffer.from(picture.data[0].b64_json, "base64").subarray(1, 4).toString();
seen.events = [];
const drawing = await openai.images.generate({ model: "demo-image", prompt: "a fox", stream: true, partial_images: 1 });
for await (const event of drawing) seen.events.push(event.type);

const speech = await openai.audio.speech.create({ model: "demo-voice", voice: "alloy", input: "Grüße 👋" });
seen.sound = [Buffer.from(await speech.arrayBuffer()).subarray(0, 4).toString(), speech.headers.get("content-type")];

// A form here has its fields in the order they are written in: the file first, and the model after it.
const spoken = await openai.audio.speech.create({ model: "demo-voice", voice: "alloy", input: "Hello", response_format: "wav" });
const words = Buffer.from(await spoken.arrayBuffer());
const long = Buffer.concat([words, Buffer.alloc(600_000)]);
seen.heard = [];
for (const sound of [words, long]) {
  const file = await toFile(sound, "hello.wav");
  seen.heard.push((await openai.audio.transcriptions.create({ file, model: "demo-ear" })).text);
  seen.heard.push(await openai.audio.transcriptions.create({ model: "demo-ear", file, response_format: "text" }));
  let text = "";
  for await (const event of await openai.audio.transcriptions.create({ model: "demo-ear", file, stream: true })) {
    text += event.delta ?? "";
  }
  seen.heard.push(text);
}
const fox = await toFile(Buffer.from(picture.data[0].b64_json, "base64"), "fox.png", { type: "image/png" });
const edited = await openai.images.edit({ image: [fox, fox], model: "demo-image", prompt: "with a hat" });
seen.edited = Buffer.from(edited.data[0].b64_json, "base64").subarray(1, 4).toString();

seen.text = "";
for await (const chunk of await openai.completions.create({ model: "demo", prompt: "two words", stream: true })) {
  seen.text += chunk.choices[0].text;
}
try {
  await openai.audio.speech.create({ model: "demo-voice", voice: { id: "voice_1" }, input: "x" });
} catch (error) {
  seen.refused = [error.constructor.name, error.code];
}
console.log(JSON.stringify(seen));
