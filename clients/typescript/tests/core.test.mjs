// Requests, retries and errors.
import assert from "node:assert/strict";
import test from "node:test";
import { Client, errors, VERSION } from "@nest/client";
import { FakeNest, json, refusal } from "./fake-nest.mjs";

/** Return a client whose pauses pass at once, with the fake Nest and the pauses. */
function fakeClient({ faults = [], within = 60, ...options } = {}) {
  const fake = new FakeNest();
  fake.faults = faults;
  const client = new Client("http://nest.test/", { fetch: fake.fetch, retries: { within }, ...options });
  const pauses = [];
  Object.assign(client.transport, { sleep: async (seconds) => void pauses.push(seconds) });
  return { client, fake, pauses };
}

const disconnected = () => new TypeError("fetch failed", { cause: new Error("ECONNREFUSED") });

for (const [name, fault, shortest] of [
  ["429", () => refusal(429, "throttled", { retry_after: 7 }), 7],
  ["503", () => refusal(503, "unavailable", { retry_after: 5 }), 5],
  ["504", () => refusal(504, "reply_timeout"), 0.1],
  ["502 of a proxy", () => new Response("<h1>Bad Gateway</h1>", { status: 502 }), 0.1],
  ["503 of a proxy", () => new Response("busy", { status: 503, headers: { "retry-after": "3" } }), 3],
  ["no connection", disconnected, 0.1],
]) {
  test(`a command is repeated after ${name} with the same key`, async () => {
    const { client, fake, pauses } = fakeClient({ faults: [fault()] });
    await client.command("do_x");
    assert.equal(pauses.length, 1);
    assert.ok(pauses[0] >= shortest && pauses[0] <= shortest + 0.3, String(pauses[0]));
    const keys = fake.requests.map((each) => each.headers["idempotency-key"]);
    assert.equal(keys.length, 2);
    assert.equal(new Set(keys).size, 1);
    assert.match(keys[0], /^[\x21-\x7e]{32,255}$/);
  });
}

for (const [status, code] of [
  [400, "invalid_email"],
  [401, "unauthorized"],
  [409, "token_used"],
  [500, "unknown"],
  [504, "query_timeout"],
]) {
  test(`${status} ${code} is thrown at once`, async () => {
    const { client, pauses } = fakeClient({ faults: [refusal(status, code)] });
    await assert.rejects(client.query("get_x"), { code, status });
    assert.deepEqual(pauses, []);
  });
}

test("a wait beyond the bound is thrown at once", async () => {
  const { client, pauses } = fakeClient({ faults: [refusal(429, "throttled", { retry_after: 61 })] });
  await assert.rejects(client.query("get_x"), (error) => error instanceof errors.Throttled && error.retryAfter === 61);
  assert.deepEqual(pauses, []);
});

test("retries of zero seconds make one attempt", async () => {
  const { client, fake } = fakeClient({ faults: [disconnected()], within: 0 });
  await assert.rejects(client.command("do_x"), (error) => {
    assert.ok(error instanceof errors.ConnectionFailed);
    assert.match(error.message, /ECONNREFUSED/);
    assert.equal(error.idempotencyKey, fake.requests[0].headers["idempotency-key"]);
    return true;
  });
});

test("pauses grow and end", async () => {
  const { client, pauses } = fakeClient({ faults: Array.from({ length: 10 }, disconnected) });
  await client.query("get_x");
  assert.ok(pauses[0] <= 0.2 && pauses[3] > 0.2 && pauses[8] > pauses[3] && pauses[8] <= 5);
});

test("an attempt ends after its timeout", async () => {
  const hang = (_, { signal }) => new Promise((_, reject) => signal.addEventListener("abort", () => reject(signal.reason)));
  const client = new Client("http://nest.test", { fetch: hang, retries: { within: 0, timeout: 0.01 } });
  await assert.rejects(client.query("get_x"), { name: "ConnectionFailed", message: /took too long/ });
});

test("a signal ends a call, also in a pause", async () => {
  const controller = new AbortController();
  const fake = new FakeNest();
  fake.faults = [refusal(503, "unavailable", { retry_after: 20 })];
  const client = new Client("http://nest.test", { fetch: fake.fetch });
  setTimeout(() => controller.abort(new Error("left")), 10);
  await assert.rejects(client.query("get_x", {}, { signal: controller.signal }), { message: "left" });
  await assert.rejects(client.query("get_x", {}, { signal: controller.signal }), { message: "left" });
  assert.equal(fake.requests.length, 1);
});

test("an error has the fields of the response", async () => {
  const { client } = fakeClient({ faults: [refusal(401, "unauthorized", { reason: "token_expired" })] });
  const error = await client.query("get_x").catch((caught) => caught);
  assert.equal(error.constructor, errors.Unauthorized);
  assert.ok(error instanceof errors.UnauthorizedError && error instanceof errors.ClientError);
  assert.deepEqual(
    [error.name, error.code, error.explanation, error.docs, error.status, error.requestId, error.retryAfter],
    ["Unauthorized", "unauthorized", "Do this.", "/reference#error-unauthorized", 401, "r1", null],
  );
  assert.equal(error.reasons[0].code, "token_expired");
  assert.equal(error.message, "401 unauthorized (token_expired): Do this.");
});

for (const [answer, kind, code] of [
  [() => refusal(410, "token_expired"), "TokenExpired", "token_expired"],
  [() => refusal(409, "a_code_of_tomorrow"), "ConflictError", "a_code_of_tomorrow"],
  [() => refusal(418, "a_status_of_tomorrow"), "ClientError", "a_status_of_tomorrow"],
  [() => refusal(507, "a_status_of_tomorrow"), "ServerError", "a_status_of_tomorrow"],
  [() => refusal(401, "token_expired"), "UnauthorizedError", "token_expired"],
  [() => refusal(404, "constructor"), "NotFoundError", "constructor"],
  [() => json([1], { status: 404 }), "NotFoundError", "http_404"],
  [() => json({ code: "x", meta: 1, reasons: [1] }, { status: 403 }), "ForbiddenError", "x"],
  [() => new Response("<html>", { status: 200 }), "NestError", "http_200"],
  [() => new Response(null, { status: 301, headers: { location: "/" } }), "NestError", "http_301"],
]) {
  test(`${code} is a ${kind}`, async () => {
    const error = await fakeClient({ faults: [answer()] }).client.query("get_x").catch((caught) => caught);
    assert.deepEqual([error.constructor, error.code], [errors[kind], code]);
  });
}

for (const [header, seconds] of [
  ["0", 0],
  ["120", 120],
  [new Date(Date.now() + 90_000).toUTCString(), 90],
  ["soon", null],
  ["-1", null],
  ["Fri, 99 Nov 2026 00:00:00 GMT", null],
]) {
  test(`retry-after ${header} is ${seconds}`, async () => {
    const answer = refusal(409, "x", { headers: { "retry-after": header } });
    const error = await fakeClient({ faults: [answer] }).client.query("get_x").catch((caught) => caught);
    if (seconds === null) assert.equal(error.retryAfter, null);
    else assert.ok(Math.abs(error.retryAfter - seconds) < 2, String(error.retryAfter));
  });
}

test("fields left out are not sent, null and times are", async () => {
  const { client, fake } = fakeClient();
  await client.query("get_x", { a: undefined, b: null, c: new Date(0), d: "ü" });
  assert.deepEqual(fake.requests[0].body, { b: null, c: "1970-01-01T00:00:00.000Z", d: "ü" });
  assert.equal(fake.requests[0].path, `/1/${VERSION}/get_x`);
  assert.ok(!("idempotency-key" in fake.requests[0].headers));
});

test("an internal key is sent, and does not show", async () => {
  const { client, fake } = fakeClient({ internalKey: "secret-key" });
  await client.listClients();
  assert.equal(fake.requests[0].headers["authorization"], "internal secret-key");
  assert.ok(!JSON.stringify(client).includes("secret-key"));
});

test("a route without a version gets its parameters in the path", async () => {
  const { client, fake } = fakeClient();
  await client.phoneRegister({ code: "12 34", nonce: "a/b", first_name: "Ada" });
  await client.accountsUsersIslogged({ token: "t" });
  await client.accountsAppownerUpdate({ id: "o" }, { token: "owner" });
  const [register, logged, update] = fake.requests;
  assert.deepEqual([register.path, register.body], ["/register/12%2034/a%2Fb", { first_name: "Ada" }]);
  assert.deepEqual([logged.method, logged.path, logged.body], ["GET", "/users/islogged/t", undefined]);
  assert.equal(update.headers["authorization"], "bearer owner");
  await assert.rejects(client.phoneRegister({ code: "", nonce: "n" }), TypeError);
});

test("plans are fetched again only if they have changed", async () => {
  const { client, fake } = fakeClient();
  const first = await client.listPlans();
  first.plans.push("mine");
  assert.deepEqual(await client.listPlans(), { plans: [] });
  assert.deepEqual(fake.requests.map((each) => each.headers["if-none-match"]), [undefined, '"plans-1"']);
});

for (const url of ["nest.example.com", "ftp://nest.example.com", "", "https://nest.example.com?x=1"]) {
  test(`${url || "an empty text"} is no address of a Nest`, () => {
    assert.throws(() => new Client(url), /address of a Nest/);
  });
}

for (const retries of [{ within: -1 }, { within: Number.NaN }, { within: Infinity }, { timeout: 0 }]) {
  test(`retries ${JSON.stringify(retries)} are refused`, () => {
    assert.throws(() => new Client("http://nest.test", { retries }), RangeError);
  });
}
