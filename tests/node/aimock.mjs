// aimock on loopback: prints its URL, is scripted over HTTP (/__aimock/...), and ends when its standard input does.
import { LLMock } from "@copilotkit/aimock";

const mock = new LLMock({ host: "127.0.0.1", port: 0, logLevel: "warn", journalMaxEntries: 0 });
await mock.start();
console.log(mock.url);
for await (const _ of process.stdin);
await mock.stop();
process.exit(0);
