// The client against a running Nest.
import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test from "node:test";
import { Client, errors, MemoryStore } from "@nest/client";
import { FileStore } from "@nest/client/node";
import { TokenVerifier } from "@nest/client/server";
import { CLIENT_ID, codesTo, INTERNAL_KEY, NEST, newEmail, REDIRECT_URI } from "./helpers.mjs";

const client = new Client(NEST);
const login = { clientId: CLIENT_ID, redirectUri: REDIRECT_URI };

async function logIn(session = client.session()) {
  const email = newEmail();
  const pending = await client.startLogin(email, login);
  const { digits } = await codesTo(email);
  await session.finishLogin(pending, { code: digits });
  return { session, email, pending, digits };
}

test("a person logs in with the link", async () => {
  const email = newEmail();
  const pending = JSON.parse(JSON.stringify(await client.startLogin(email, { ...login, locale: "de" })));
  const { link } = await codesTo(email);
  const session = client.session();
  const tokens = await session.finishLogin(pending, { url: link });
  const user = await session.getUser();
  assert.deepEqual([user.id, user.identifiers[0].identifier_value], [tokens.userId, email]);
  const again = await session.finishLogin(pending, { url: link }); // as after a lost response
  assert.equal(again.refreshToken, tokens.refreshToken);
  const other = await client.startLogin(newEmail(), login);
  await assert.rejects(session.finishLogin(other, { url: link }), errors.StateMismatch);
});

test("a wrong code is an error with the guesses left", async () => {
  const email = newEmail();
  const pending = await client.startLogin(email, login);
  const { digits } = await codesTo(email);
  const wrong = String((Number(digits) + 1) % 1e6).padStart(6, "0");
  await assert.rejects(client.finishLogin(pending, { code: wrong }), (error) => {
    assert.ok(error instanceof errors.IncorrectCode && error instanceof errors.BadRequestError);
    assert.deepEqual([error.status, error.meta.guesses_left], [400, 4]);
    assert.match(error.docs, /^\/reference#error-incorrect_code$/);
    assert.ok(error.explanation && error.requestId);
    return true;
  });
});

test("sessions in several stores of one file share refreshes", async () => {
  const folder = await mkdtemp(join(tmpdir(), "nest-"));
  try {
    const path = join(folder, "tokens.json");
    const { session } = await logIn(client.session(new FileStore(path)));
    const first = await session.tokens();
    const sessions = [0, 1, 2].map(() => client.session(new FileStore(path)));
    await Promise.all([...sessions, ...sessions].map((each) => each.refresh()));
    assert.notEqual((await session.tokens()).accessToken, first.accessToken);
    assert.equal((await session.getUser()).id, first.userId);
    const revoked = client.session({ ...first, refreshToken: "01.forged" });
    await assert.rejects(revoked.getUser(), errors.LoginRequired);
  } finally {
    await rm(folder, { recursive: true });
  }
});

test("a session that was logged out requires a login", async () => {
  const { session } = await logIn();
  const copy = client.session(new MemoryStore(await session.tokens()));
  await session.logOut();
  await assert.rejects(session.getUser(), errors.LoginRequired);
  await assert.rejects(copy.refresh(), errors.LoginRequired);
});

test("the verifier accepts the token", async () => {
  const { session } = await logIn();
  const claims = await new TokenVerifier(NEST, CLIENT_ID).verify(await session.accessToken());
  assert.deepEqual([claims.userId, claims.clientId], [(await session.tokens()).userId, CLIENT_ID]);
});

test("a command that is repeated with its key takes effect once", async () => {
  const backEnd = new Client(NEST, { internalKey: INTERNAL_KEY });
  const fields = { name: "Mine", redirect_uris: ["https://app.example.com/login"] };
  const [one, other] = [await backEnd.createClient(fields, { idempotencyKey: "k".repeat(32) }), await backEnd.createClient(fields, { idempotencyKey: "k".repeat(32) })];
  assert.equal(one.id, other.id);
  await assert.rejects(client.listClients(), errors.AccessDenied);
});

test("news that have not changed are not sent again", async () => {
  const { session } = await logIn();
  const statuses = [];
  const counting = new Client(NEST, {
    fetch: async (...request) => {
      const response = await fetch(...request);
      statuses.push(response.status);
      return response;
    },
  });
  const mine = counting.session(await session.tokens());
  const news = await mine.listNewsItems({ client_id: CLIENT_ID });
  assert.deepEqual(await mine.listNewsItems({ client_id: CLIENT_ID }), news);
  assert.deepEqual(statuses, [200, 304]);
});

test("a phone is registered by the routes without a version", async () => {
  const number = `4179${String(Math.floor(Math.random() * 1e7)).padStart(7, "0")}`;
  const nonce = await client.phoneInit({ phone_number: number });
  assert.match(nonce, /^[0-9a-f]{32}$/);
  await assert.rejects(client.phoneRegister({ code: "x", nonce, first_name: "Ada" }), errors.NestError);
});
