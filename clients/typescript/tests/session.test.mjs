// Sessions: refreshes one at a time among calls, tabs and processes; lost responses; ended sessions.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdtemp, readdir, readFile, rm, stat, utimes, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test from "node:test";
import { Client, errors, LocalStorageStore, MemoryStore } from "@nest/client";
import { FileStore } from "@nest/client/node";
import { FakeNest, refusal, tokens } from "./fake-nest.mjs";

const folder = await mkdtemp(join(tmpdir(), "nest-client-"));
test.after(() => rm(folder, { recursive: true }));
let files = 0;

function fakeStorage() {
  const items = new Map();
  return {
    getItem: (name) => items.get(name) ?? null,
    setItem: (name, text) => void items.set(name, text),
    removeItem: (name) => void items.delete(name),
  };
}

class OwnStore {
  async load() {
    return this.kept ?? null;
  }
  async save(kept) {
    this.kept = kept;
  }
}

const STORES = {
  memory: () => new MemoryStore(),
  file: () => new FileStore(join(folder, `tokens-${(files += 1)}`)),
  "localStorage without Web Locks": () => {
    const storage = fakeStorage();
    return new LocalStorageStore("nest.tokens", () => storage);
  },
  "a store of the app": () => new OwnStore(),
};

function fakeSession(store, { retries = {}, ...options } = {}) {
  const fake = new FakeNest();
  const client = new Client("http://nest.test", { fetch: fake.fetch, retries: { within: 5, timeout: 5, ...retries }, ...options });
  return { fake, client, session: client.session(store) };
}

const EXPIRED = { expiresAt: 0 };

for (const [name, newStore] of Object.entries(STORES)) {
  async function started(changes, options) {
    const store = newStore();
    await store.save(tokens(changes));
    return { store, ...fakeSession(store, options) };
  }

  test(`${name}: an expired token is refreshed before the call`, async () => {
    const { store, fake, session } = await started(EXPIRED);
    await session.query("get_x");
    assert.deepEqual(fake.requests.map((each) => each.path.split("/").at(-1)), ["authenticate_user", "get_x"]);
    const { accessToken, refreshToken, refreshKey } = await store.load();
    assert.deepEqual([accessToken, refreshToken, refreshKey], ["a1", "r1", null]);
  });

  test(`${name}: many calls refresh once`, async () => {
    const { fake, session } = await started(EXPIRED);
    await Promise.all(Array.from({ length: 32 }, () => session.query("get_x")));
    assert.deepEqual([fake.generation, fake.reused, fake.calls("authenticate_user").length], [1, 0, 1]);
  });

  test(`${name}: a lost response is fetched with the same key`, async () => {
    const { store, fake, session } = await started(EXPIRED, { retries: { within: 0 } });
    fake.lost.add(1);
    await assert.rejects(session.refresh(), errors.ConnectionFailed);
    const { refreshKey } = await store.load();
    assert.equal(refreshKey, fake.requests[0].headers["idempotency-key"]);
    await session.refresh();
    assert.equal(fake.requests[1].headers["idempotency-key"], refreshKey);
    assert.deepEqual([fake.generation, fake.reused, (await store.load()).refreshToken], [1, 0, "r1"]);
  });
}

test("a refused token is refreshed, and the command repeated once with its key", async () => {
  const { fake, session } = fakeSession(new MemoryStore(tokens()));
  fake.faults = [refusal(401, "unauthorized", { reason: "token_expired" })];
  await session.command("do_x");
  const keys = fake.calls("do_x").map((each) => each.headers["idempotency-key"]);
  assert.deepEqual([keys.length, new Set(keys).size, fake.generation], [2, 1, 1]);
});

test("newer tokens of another process are taken", async () => {
  const store = new MemoryStore(tokens());
  const { fake, session } = fakeSession(store);
  fake.generation = 1;
  fake.faults = [refusal(401, "unauthorized", { reason: "token_revoked" })];
  const call = session.query("get_x");
  store.save(tokens({ accessToken: "a1", refreshToken: "r1" }));
  await call;
  assert.equal(fake.calls("authenticate_user").length, 0);
});

test("a call is not repeated for another person", async () => {
  const store = new MemoryStore(tokens());
  const { fake, session } = fakeSession(store);
  fake.faults = [refusal(401, "unauthorized", { reason: "token_revoked" })];
  const call = session.query("get_x");
  store.save(tokens({ accessToken: "b0", userId: "user_2" }));
  await assert.rejects(call, errors.LoginRequired);
  assert.deepEqual([fake.requests.length, store.load().userId], [1, "user_2"]);
});

test("older tokens do not replace newer ones if the lock lapsed", async () => {
  const store = new MemoryStore(tokens(EXPIRED));
  store.lock = (action) => action();
  const { fake, session } = fakeSession(store);
  const refresh = session.refresh();
  await new Promise((resolve) => setTimeout(resolve, 1));
  store.save(tokens({ accessToken: "a9", refreshToken: "r9" }));
  assert.equal((await refresh).refreshToken, "r9");
  assert.deepEqual([store.load().refreshToken, fake.generation], ["r9", 1]);
});

for (const [status, code] of [
  [404, "token_not_found"],
  [404, "authorization_not_found"],
  [409, "token_used"],
  [410, "token_expired"],
]) {
  test(`${code} ends the session`, async () => {
    const store = new MemoryStore(tokens(EXPIRED));
    const { fake, session } = fakeSession(store);
    fake.faults = [refusal(status, code)];
    await assert.rejects(session.query("get_x"), (error) => error instanceof errors.LoginRequired && error.cause.code === code);
    assert.equal(store.load(), null);
  });
}

test("another refusal keeps the tokens and drops the key", async () => {
  const store = new MemoryStore(tokens());
  const { fake, session } = fakeSession(store);
  fake.faults = [refusal(403, "client_disabled")];
  await assert.rejects(session.refresh(), errors.ClientDisabled);
  assert.deepEqual([store.load().refreshToken, store.load().refreshKey], ["r0", null]);
  await session.refresh();
  assert.notEqual(fake.requests[0].headers["idempotency-key"], fake.requests[1].headers["idempotency-key"]);
});

test("a token that stays refused ends in an error", async () => {
  const { fake, session } = fakeSession(new MemoryStore(tokens()));
  const { answer } = FakeNest.prototype;
  fake.answer = function (call) {
    return call.path.endsWith("/get_x") ? refusal(401, "unauthorized", { reason: "invalid_token" }) : answer.call(this, call);
  };
  await assert.rejects(session.query("get_x"), errors.Unauthorized);
  assert.deepEqual([fake.calls("get_x").length, fake.generation], [3, 2]);
});

test("a session fills in its user", async () => {
  const { fake, session } = fakeSession(new MemoryStore(tokens()));
  await session.getUser();
  await session.getUser({ user_id: "other" });
  await session.getCustomerState();
  assert.deepEqual(fake.requests.map((each) => each.body), [{ user_id: "user_1" }, { user_id: "other" }, {}]);
});

test("an access token for other servers is fresh", async () => {
  const { session } = fakeSession(new MemoryStore(tokens(EXPIRED)));
  assert.equal(await session.accessToken(), "a1");
});

test("a logout ends the session, removes the tokens and reports it", async () => {
  const store = new MemoryStore(tokens());
  const { fake, session } = fakeSession(store);
  let changes = 0;
  const end = session.subscribe(() => (changes += 1));
  await session.logOut();
  await session.logOut();
  end();
  assert.deepEqual(fake.requests.map((each) => each.body), [{ which: "current", user_id: "user_1" }]);
  assert.deepEqual([store.load(), changes], [null, 1]);
  await assert.rejects(session.query("get_x"), errors.LoginRequired);
});

for (const [name, newStore] of Object.entries(STORES)) {
  test(`${name}: a lock that is not released ends in an error, and is free afterwards`, async () => {
    const store = newStore();
    await store.save(tokens());
    const { session } = fakeSession(store, { retries: { within: 0, timeout: 0.08 } });
    const lock = store.lock?.bind(store);
    if (!lock) return;
    let release;
    const held = lock(() => new Promise((resolve) => (release = resolve)), 1);
    while (!release) await new Promise((resolve) => setTimeout(resolve, 5));
    await assert.rejects(session.refresh(), errors.StoreLocked);
    release();
    await held;
    assert.equal(await lock(async () => "free", 1), "free");
  });
}

test("a file of tokens can be read by its owner only", async () => {
  const path = join(await mkdtemp(join(folder, "file-")), "tokens.json");
  await writeFile(path, "", { mode: 0o644 });
  const store = new FileStore(path);
  await store.save(tokens());
  assert.equal((await stat(path)).mode & 0o777, 0o600);
  assert.deepEqual(await readdir(join(path, "..")), ["tokens.json"]);
  assert.deepEqual((await store.load()).refreshToken, "r0");
  await store.save(null);
  await store.save(null);
  assert.equal(await store.load(), null);
});

for (const content of ["", "{", "[]", '{"secret": 1}', "null"]) {
  test(`a file with ${content || "nothing"} is an error without its content`, async () => {
    const path = join(folder, `other-${(files += 1)}`);
    await writeFile(path, content);
    await assert.rejects(new FileStore(path).load(), (error) => /no tokens/.test(error.message) && !error.message.includes("secret"));
  });
}

test("a lock that a process has left behind is taken", async () => {
  const store = new FileStore(join(folder, `tokens-${(files += 1)}`));
  await writeFile(`${store.path}.lock`, "of nobody");
  const old = new Date(Date.now() - 11_000);
  await utimes(`${store.path}.lock`, old, old);
  assert.equal(await store.lock(async () => "mine", 1), "mine");
  await assert.rejects(stat(`${store.path}.lock`), { code: "ENOENT" });
});

const PROCESS = `
import { Client } from "@nest/client";
import { FileStore } from "@nest/client/node";
const session = new Client(process.argv[1]).session(new FileStore(process.argv[2]));
for (let turn = 0; turn < 5; turn += 1) {
  await session.query("get_x");
  await session.refresh();
}
`;

test("several processes never reuse a refresh token", async () => {
  const fake = new FakeNest();
  const server = createServer(async (request, response) => {
    const body = Buffer.concat(await request.toArray()).toString();
    const answer = await fake.fetch(`http://nest.test${request.url}`, { method: "POST", headers: request.headers, body });
    response.writeHead(answer.status).end(await answer.text());
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  const store = new FileStore(join(folder, "shared"));
  await store.save(tokens());
  const processes = Array.from({ length: 3 }, () =>
    spawn(process.execPath, ["--input-type=module", "-e", PROCESS, `http://127.0.0.1:${server.address().port}`, store.path], {
      cwd: new URL(".", import.meta.url),
      stdio: "inherit",
    }),
  );
  const codes = await Promise.all(processes.map((each) => new Promise((resolve) => each.on("exit", resolve))));
  server.closeAllConnections();
  server.close();
  assert.deepEqual([codes, fake.reused], [[0, 0, 0], 0]);
  assert.equal(JSON.parse(await readFile(store.path, "utf8")).refreshToken, `r${fake.generation}`);
});
