// For back ends: verification of tokens and webhooks, and middleware of frameworks.
import assert from "node:assert/strict";
import test from "node:test";
import express from "express";
import { Hono } from "hono";
import { exportJWK, generateKeyPair, SignJWT } from "jose";
import { Webhook } from "standardwebhooks";
import { bearerToken, InvalidToken, InvalidWebhook, KeysUnavailable, TokenVerifier, WebhookVerifier } from "@nest/client/server";
import { bearerToken as expressBearer } from "@nest/client/express";
import { bearerToken as honoBearer } from "@nest/client/hono";

const ISSUER = "https://nest.test";
const CLIENT = "client_1";

async function newKey(alg, kid) {
  const pair = await generateKeyPair(alg, alg === "EdDSA" ? { crv: "Ed25519" } : {});
  return { alg, kid, privateKey: pair.privateKey, jwk: { ...(await exportJWK(pair.publicKey)), alg, kid, use: "sig" } };
}

const KEYS = {
  ES256: await newKey("ES256", "k1"),
  ES512: await newKey("ES512", "k2"),
  EdDSA: await newKey("EdDSA", "k3"),
};
const UNKNOWN = await newKey("ES256", "k9");
const RS256 = await newKey("RS256", "k4");

function token({ key = KEYS.ES256, header = {}, claims = {}, without } = {}) {
  const now = Math.floor(Date.now() / 1000);
  const all = { iss: ISSUER, aud: CLIENT, sub: "user_1", jti: "t1", iat: now, exp: now + 3600, ent: ["export"], ent_v: 3, ...claims };
  delete all[without];
  return new SignJWT(all).setProtectedHeader({ alg: key.alg, kid: key.kid, typ: "JWT", ...header }).sign(key.privateKey);
}

class KeyServer {
  keys = [...Object.values(KEYS), RS256].map((each) => each.jwk);
  reads = 0;
  away = false;
  time = 0;

  verifier(audience = CLIENT, options = {}) {
    return new TokenVerifier(ISSUER, audience, { clock: () => this.time, fetch: this.fetch, ...options });
  }

  fetch = async (url) => {
    this.reads += 1;
    this.url = url;
    if (this.away) throw new TypeError("fetch failed");
    return new Response(JSON.stringify({ keys: this.keys }));
  };
}

for (const key of Object.values(KEYS)) {
  for (const typ of ["JWT", "at+jwt", "application/at+jwt"]) {
    test(`a token signed with ${key.alg} of type ${typ} is valid`, async () => {
      const server = new KeyServer();
      const claims = await server.verifier().verify(await token({ key, header: { typ } }));
      assert.deepEqual(
        [claims.userId, claims.clientId, claims.tokenId, [...claims.features], claims.featuresVersion, claims.raw.sub],
        ["user_1", CLIENT, "t1", ["export"], 3, "user_1"],
      );
      assert.equal(server.url, `${ISSUER}/.well-known/jwks.json`);
    });
  }
}

const past = Math.floor(Date.now() / 1000) - 10;
for (const [name, change] of [
  ["a type of another purpose", { header: { typ: "phone+jwt" } }],
  ["no type", { header: { typ: undefined } }],
  ["another algorithm", { key: RS256 }],
  ["critical extensions", { header: { crit: ["b64"], b64: true } }],
  ["no key ID", { header: { kid: undefined } }],
  ["the ID of another key", { header: { kid: "k2" } }],
  ["an unknown key", { key: UNKNOWN }],
  ["a key of the same ID", { key: { ...UNKNOWN, kid: "k1" } }],
  ["another issuer", { claims: { iss: "https://nest.test/" } }],
  ["another audience", { claims: { aud: "client_2" } }],
  ["no audience", { without: "aud" }],
  ["no expiry", { without: "exp" }],
  ["no user", { without: "sub" }],
  ["an expiry in the past", { claims: { exp: past } }],
  ["a start in the future", { claims: { nbf: past + 600 } }],
]) {
  test(`a token with ${name} is invalid`, async () => {
    const verified = new KeyServer().verifier().verify(await token(change));
    await assert.rejects(verified, (error) => error instanceof InvalidToken && error.expired === (change.claims?.exp === past));
  });
}

for (const text of ["", "x", "a.b.c", "eyJhbGciOiJub25lIn0.e30.", `${"a".repeat(20_000)}.b.c`]) {
  test(`${text.slice(0, 20) || "an empty text"} is no token, and causes no read`, async () => {
    const server = new KeyServer();
    await assert.rejects(server.verifier().verify(text), InvalidToken);
    assert.equal(server.reads, 0);
  });
}

test("a token for one of several clients is valid, and an expired one within the leeway", async () => {
  const verifier = new KeyServer().verifier(["client_0", CLIENT], { leeway: 60, url: "http://inside.test/" });
  assert.equal((await verifier.verify(await token({ claims: { exp: past } }))).clientId, CLIENT);
  assert.throws(() => new TokenVerifier(ISSUER, ""), TypeError);
  assert.throws(() => new TokenVerifier(ISSUER, []), TypeError);
});

test("keys are read once for all who wait, again after five minutes, and used for an hour while Nest is away", async () => {
  const server = new KeyServer();
  const verifier = server.verifier();
  const valid = await token();
  await Promise.all(Array.from({ length: 8 }, () => verifier.verify(valid)));
  assert.equal(server.reads, 1);
  server.time = 299;
  await verifier.verify(valid);
  assert.equal(server.reads, 1);
  server.time = 301;
  await verifier.verify(valid);
  assert.equal(server.reads, 2);
  server.away = true;
  server.time = 3800;
  await verifier.verify(valid);
  server.time = 3902;
  await assert.rejects(verifier.verify(valid), KeysUnavailable);
  server.away = false;
  server.time = 3908;
  await verifier.verify(valid);
});

test("an unknown key causes one read in five seconds", async () => {
  const server = new KeyServer();
  const verifier = server.verifier();
  const forged = await token({ key: UNKNOWN });
  for (let turn = 0; turn < 5; turn += 1) await assert.rejects(verifier.verify(forged), InvalidToken);
  assert.equal(server.reads, 1);
  server.keys = [...server.keys, UNKNOWN.jwk];
  server.time = 6;
  assert.equal((await verifier.verify(forged)).userId, "user_1");
});

const CASES = [
  ["no token", async () => undefined, 401, "Bearer"],
  ["another scheme", async () => "Basic eDp5", 401, "Bearer"],
  ["an invalid token", async () => "Bearer x.y.z", 401, 'Bearer error="invalid_token"'],
  ["a token without the feature", async () => `Bearer ${await token({ claims: { ent: [] } })}`, 403, null],
  ["a valid token", async () => `bearer ${await token()}`, 200, null],
];

async function checkAnswer(answer, status, challenge) {
  assert.deepEqual([answer.status, answer.headers.get("www-authenticate")], [status, challenge]);
  if (status === 200) assert.equal(await answer.text(), "user_1");
  else assert.match((await answer.json()).detail, /\.$/);
}

const header = (authorization) => (authorization ? { headers: { authorization } } : {});

test("routes of Express, Hono and fetch handlers require a token", async () => {
  const verifier = new KeyServer().verifier();
  const options = { feature: "export" };

  const app = express();
  app.get("/me", expressBearer(verifier, options), (request, response) => void response.send(request.claims.userId));
  const server = app.listen(0, "127.0.0.1");
  await new Promise((resolve) => server.on("listening", resolve));
  const hono = new Hono().get("/me", honoBearer(verifier, options), (context) => context.text(context.get("claims").userId));
  const handler = bearerToken(verifier, (_request, claims) => new Response(claims.userId), options);

  for (const [, authorization, status, challenge] of CASES) {
    const init = header(await authorization());
    await checkAnswer(await fetch(`http://127.0.0.1:${server.address().port}/me`, init), status, challenge);
    await checkAnswer(await hono.request("/me", init), status, challenge);
    await checkAnswer(await handler(new Request("http://app.test/me", init)), status, challenge);
  }
  server.closeAllConnections();
  server.close();
});

test("routes answer 503 while the keys cannot be read", async () => {
  const server = new KeyServer();
  server.away = true;
  const handler = bearerToken(server.verifier(), () => new Response("no"));
  const answer = await handler(new Request("http://app.test/me", header(`Bearer ${await token()}`)));
  assert.deepEqual([answer.status, answer.headers.get("retry-after")], [503, "5"]);
});

const SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const OTHER = `whsec_${Buffer.from("another secret of a webhook").toString("base64")}`;
const BODY = '{"type": "user.created", "data": {"name": "Zoë"}}';

function signed({ secret = SECRET, body = BODY, at = new Date(), id = "msg_1" } = {}) {
  const signature = new Webhook(secret).sign(id, at, body);
  return { "webhook-id": id, "webhook-timestamp": String(Math.floor(at / 1000)), "webhook-signature": signature };
}

test("webhooks that the package standardwebhooks has signed are valid", async () => {
  for (const secrets of [SECRET, [OTHER, SECRET], SECRET.replace("whsec_", "")]) {
    const webhook = await new WebhookVerifier(secrets).verify(BODY, signed());
    assert.deepEqual([webhook.id, webhook.payload], ["msg_1", JSON.parse(BODY)]);
  }
  const verifier = new WebhookVerifier([SECRET]);
  const headers = signed();
  headers["Webhook-Signature"] = `v1,AAAA v1a,xyz ${headers["webhook-signature"]}`;
  delete headers["webhook-signature"];
  assert.equal((await verifier.verify(new TextEncoder().encode(BODY), new Headers(headers))).id, "msg_1");
  assert.equal((await verifier.verify(Buffer.from(BODY), headers)).id, "msg_1");
});

for (const [name, body] of [
  ["a type that is unknown", { type: "user.deleted", data: { user_id: "user_1" } }],
  ["a type that is no text", { type: ["user.created"] }],
  ["no type", { test: 1 }],
  ["no object", null],
]) {
  test(`a webhook with ${name} has an unknown event`, async () => {
    const text = JSON.stringify(body);
    const { payload } = await new WebhookVerifier(SECRET).verify(text, signed({ body: text }));
    assert.deepEqual(payload, { type: "unknown", body });
  });
}

for (const [name, change] of [
  ["another body", { body: `${BODY} ` }],
  ["a secret of somebody else", { headers: signed({ secret: OTHER }) }],
  ["an age of six minutes", { headers: signed({ at: new Date(Date.now() - 360_000) }) }],
  ["a time six minutes ahead", { headers: signed({ at: new Date(Date.now() + 360_000) }) }],
  ["another ID", { headers: { ...signed(), "webhook-id": "msg_2" } }],
  ["no signature", { headers: { ...signed(), "webhook-signature": undefined } }],
  ["a signature that is no base64", { headers: { ...signed(), "webhook-signature": "v1,%%%" } }],
  ["a signature of another version", { headers: { ...signed(), "webhook-signature": signed()["webhook-signature"].replace("v1", "v2") } }],
  ["a timestamp that is none", { headers: { ...signed(), "webhook-timestamp": "1e9" } }],
  ["a body that is no JSON", { body: "hello", headers: signed({ body: "hello" }) }],
]) {
  test(`a webhook with ${name} is invalid`, async () => {
    await assert.rejects(new WebhookVerifier([SECRET]).verify(change.body ?? BODY, change.headers ?? signed()), InvalidWebhook);
  });
}

test("secrets that are none are refused", () => {
  for (const secrets of [[], "", "whsec_", "whsec_%%%"]) assert.throws(() => new WebhookVerifier(secrets), TypeError);
});
