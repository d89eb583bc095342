// steady on loopback: a mock of the API that the given description describes. It checks each request against that, prints
// its URL, and ends when its standard input does. Arrays and objects in forms are written as the official SDKs write them.
import { spawn } from "node:child_process";
import { createServer } from "node:net";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

const port = await new Promise((resolve) => {
  const server = createServer().listen(0, "127.0.0.1", () => {
    const taken = server.address().port;
    server.close(() => resolve(taken));
  });
});
const forms = ["query-array", "query-object", "form-array", "form-object"].map((each) => `--validator-${each}-format=brackets`);
const program = fileURLToPath(import.meta.resolve(`@stdy/cli-${process.platform}-${process.arch}/bin/steady`));
const options = ["--quiet", "--no-color", "--host", "127.0.0.1", "--port", String(port), ...forms, process.argv[2]];
const mock = spawn(program, options, { stdio: ["ignore", "pipe", "inherit"] });
mock.on("exit", (code) => process.exit(code ?? 1));
for await (const line of createInterface({ input: mock.stdout })) {
  if (line.startsWith("Ready to accept requests")) break;
}
mock.stdout.resume();
console.log(`http://127.0.0.1:${port}`);
for await (const _ of process.stdin);
mock.kill();
