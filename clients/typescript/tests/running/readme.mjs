// The samples of the README: all are checked against the types, and run against a running Nest.
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import test from "node:test";
import { fileURLToPath, pathToFileURL } from "node:url";
import { promisify } from "node:util";
import { transform } from "esbuild";
import { createElement } from "react";
import { renderToString } from "react-dom/server";
import { Webhook } from "standardwebhooks";
import { CLIENT_ID, codesTo, INTERNAL_KEY, NEST, newEmail, REDIRECT_URI } from "./helpers.mjs";

const PACKAGE = fileURLToPath(new URL("../..", import.meta.url));
const DECLARATIONS = `
declare const NEST: string, CLIENT_ID: string, REDIRECT_URI: string, INTERNAL_KEY: string;
declare function ask(question: string): Promise<string>;
declare function handleOnce(id: string, event: import("@nest/client/server").Webhook["payload"]): Promise<void>;
`;
const OPTIONS = { jsx: "react-jsx", rootDir: ".", noEmit: true, skipLibCheck: true, types: ["node", "react"] };

const folder = await mkdtemp(join(PACKAGE, "tests", ".readme-")); // in the package, which it imports
test.after(() => rm(folder, { recursive: true }));

const readme = await readFile(join(PACKAGE, "README.md"), "utf8");
const samples = new Map(); // by heading, with a number for the second and later ones
for (const [, heading, section] of readme.matchAll(/^## (.+)$((?:.|\n)*?)(?=^## |$(?![\s\S]))/gm)) {
  for (const [index, [, kind, code]] of [...section.matchAll(/^```(tsx?)\n((?:.|\n)*?)^```$/gm)].entries()) {
    samples.set(index ? `${heading} ${index + 1}` : heading, { kind, code });
  }
}

let programs = 0;
async function run(name) {
  const { kind, code } = samples.get(name);
  const path = join(folder, `${(programs += 1)}.mjs`);
  await writeFile(path, (await transform(code, { loader: kind, jsx: "automatic" })).code);
  const before = process.cwd();
  const printed = [];
  const { log } = console;
  console.log = (...values) => void printed.push(values.join(" "));
  process.chdir(folder);
  try {
    return { ...(await import(pathToFileURL(path))), printed };
  } finally {
    process.chdir(before);
    console.log = log;
  }
}

Object.assign(globalThis, { NEST, CLIENT_ID, REDIRECT_URI, INTERNAL_KEY });
let accessToken;

test("all samples compile", async () => {
  const types = join(folder, "types");
  await mkdir(types);
  await writeFile(join(types, "globals.d.ts"), DECLARATIONS);
  await writeFile(join(types, "tsconfig.json"), JSON.stringify({ extends: "../../../tsconfig.json", compilerOptions: OPTIONS, include: ["."] }));
  for (const [index, { kind, code }] of [...samples.values()].entries()) await writeFile(join(types, `${index}.${kind}`), code);
  const done = promisify(execFile)(join(PACKAGE, "node_modules/.bin/tsc"), ["--project", types]);
  await done.catch((error) => assert.fail(error.stdout));
  assert.equal(samples.size, 9, [...samples.keys()].join());
});

test("log a person in", async () => {
  globalThis.ask = async () => (await codesTo("taro@example.com")).digits;
  const { printed } = await run("Log a person in");
  assert.deepEqual(printed, ["taro@example.com"]);
  accessToken = JSON.parse(await readFile(join(folder, "tokens.json"), "utf8")).accessToken;
});

test("log a person in, in a browser", async () => {
  const items = new Map();
  const localStorage = {
    getItem: (name) => items.get(name) ?? null,
    setItem: (name, text) => void items.set(name, text),
    removeItem: (name) => void items.delete(name),
  };
  globalThis.window = { localStorage };
  try {
    const email = newEmail();
    const { start, redirected } = await run("Log a person in 2");
    await start(email);
    globalThis.location = { href: (await codesTo(email)).link };
    await redirected();
    assert.ok(JSON.parse(items.get("nest.tokens")).accessToken);
  } finally {
    delete globalThis.window;
    delete globalThis.location;
  }
});

test("React renders on a server", async () => {
  const { App } = await run("React");
  assert.equal(renderToString(createElement(App)), "<p>…</p>");
});

test("errors", async () => {
  const [line] = (await run("Errors and retries")).printed;
  assert.match(line, / \/reference#error-client_not_found \S+$/);
});

test("protect a route", async () => {
  const init = { headers: { authorization: `Bearer ${accessToken}` } };
  const express = (await run("Protect a route")).app.listen(0, "127.0.0.1");
  await new Promise((resolve) => express.on("listening", resolve));
  const hono = (await run("Protect a route 2")).app;
  const { GET } = await run("Protect a route 3");
  const routes = [
    (options) => fetch(`http://127.0.0.1:${express.address().port}/me`, options),
    (options) => hono.request("/me", options),
    (options) => GET(new Request("http://app.test/me", options)),
  ];
  for (const route of routes) {
    assert.equal((await route({})).status, 401);
    const answer = await route(init);
    assert.equal(answer.status, 200);
    assert.match(await answer.text(), /user_/);
  }
  express.closeAllConnections();
  express.close();
});

test("verify webhooks", async () => {
  const handled = [];
  globalThis.handleOnce = async (id, payload) => void handled.push([id, payload]);
  const { POST } = await run("Verify webhooks");
  const post = (secret) => {
    const [body, at] = ['{"type":"user.created"}', new Date()];
    const headers = { "webhook-id": "msg_1", "webhook-timestamp": String(Math.floor(at / 1000)) };
    headers["webhook-signature"] = new Webhook(secret).sign("msg_1", at, body);
    return POST(new Request("http://app.test/", { method: "POST", body, headers }));
  };
  assert.equal((await post("whsec_b2xk")).status, 204);
  assert.equal((await post("whsec_AAAA")).status, 400);
  assert.deepEqual(handled, [["msg_1", { type: "user.created" }]]);

  const { describe } = await run("Verify webhooks 2");
  const trial = { user_id: "user_1", subscription_id: "sub_1", ends_at: "2026-12-05T00:00:00.000Z" };
  assert.equal(describe({ type: "trial.started", data: trial }), "trial of user_1 until 2026-12-05T00:00:00.000Z");
  assert.equal(describe({ type: "user.erased", data: { user_id: "user_1" } }), "forget user_1");
  assert.equal(describe({ type: "user.created", data: {} }), "ignored: user.created");
  assert.equal(describe({ type: "unknown", body: [1] }), "ignored, in full: [1]");
});
