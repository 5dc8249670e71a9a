// The test kit, attached to a running Nest whose data folder is in NEST_TEST_DATA.
import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test from "node:test";
import { CardRefused, CARDS, LocalNest, NestDidNotStart, TimedOut } from "@nest/client/testing";
import { newEmail } from "./helpers.mjs";

const DATA = process.env.NEST_TEST_DATA;
const DAY = 86_400_000;
const nest = await LocalNest.attach(DATA);
const userOf = async (session) => (await session.tokens()).userId;

/** A program that behaves as `nest up --child`, with the access to the running Nest. */
const CHILD = `
import { copyFileSync, writeFileSync } from "node:fs";
const folder = process.argv[process.argv.indexOf("--data") + 1];
copyFileSync(${JSON.stringify(join(DATA, "operator.json"))}, folder + "/operator.json");
writeFileSync(folder + "/settings", Object.keys(process.env).filter((name) => name.startsWith("NEST_")).join());
console.log(JSON.stringify({ client_id: "client_demo" }));
process.stdin.on("end", () => process.exit()).resume();
`;

test("a person is logged in with one call", async () => {
  const email = newEmail();
  const session = await nest.logIn(email);
  assert.equal((await session.getUser()).identifiers[0].identifier_value, email);
  assert.equal(await userOf(await nest.logIn(email)), await userOf(session));
});

test("mails are returned once in their order", async () => {
  const email = newEmail();
  const login = { clientId: nest.clientId, redirectUri: nest.redirectUri };
  await nest.client.startLogin(email, login);
  await nest.client.startLogin(email, login);
  const first = await nest.mail(email);
  const second = await nest.mail(email, { subject: "Kit" });
  assert.deepEqual((await nest.messages(email)).map((each) => each.id), [second.id, first.id]);
  assert.match(first.code, /^[0-9]{6}$/);
  assert.throws(() => first.link("other"), RangeError);
  await assert.rejects(nest.mail(email, { seconds: 0.1 }), TimedOut);
});

test("a text has its code", async () => {
  const number = `+4930${String(Math.floor(Math.random() * 1e7)).padStart(7, "0")}`;
  await fetch(`${nest.url}/init`, { method: "POST", body: JSON.stringify({ phone_number: number }) });
  assert.match((await nest.text(number)).code, /^[0-9]{6}$/);
});

test("a plan lives with the clock and the card", async () => {
  const session = await nest.logIn();
  const user = await userOf(session);
  const status = async (expected) =>
    nest.until(async () => (await session.getCustomerState()).status === expected, `the plan is ${expected}`);
  await nest.subscribe(session);
  await status("trialing");
  const before = await nest.stripe.now();
  await nest.stripe.endTrial(user);
  assert.ok((await nest.stripe.now()) - before > 14 * DAY);
  await status("active");
  await nest.stripe.declineCard(user);
  await nest.stripe.renew(user);
  await status("past_due");
  await nest.stripe.withWebhooks({ shuffled: 0.2, copies: 2 }, () => nest.stripe.acceptCard(user));
  await status("active");
  assert.equal((await nest.stripe.dispute(user)).object, "dispute");
  await nest.stripe.cancel(user, { now: true });
  await status("none");
});

test("a checkout says why a card is refused", async () => {
  const session = await nest.logIn();
  await assert.rejects(nest.subscribe(session, { card: CARDS.declined, trial: false }), CardRefused);
  const [{ price_id }] = (await nest.client.listPlans()).plans[0].prices;
  const page = await session.createCheckout({
    items: [{ price_id }],
    success_url: nest.redirectUri,
    cancel_url: nest.redirectUri,
  });
  const card = CARDS.needsAuthentication;
  await assert.rejects(nest.stripe.pay(page.url, { card, authenticate: false }), /authenticate/);
  assert.equal(await nest.stripe.pay(page.url, { card }), nest.redirectUri);
  await assert.rejects(nest.stripe.subscription("user_unknown"), /has no subscription/);
});

test("a Nest is started, used and stopped", async () => {
  const program = join(await mkdtemp(join(tmpdir(), "child-")), "nest.mjs");
  await writeFile(program, CHILD);
  process.env.NEST_SECRET = "of this process";
  const started = await LocalNest.start({ command: [process.execPath, program], environment: { NEST_MINE: "1" } });
  assert.ok(await userOf(await started.logIn()));
  const settings = (await readFile(join(started.folder, "settings"), "utf8")).split(",").sort();
  const own = ["NEST_LIMIT_MAGIC_LINKS_PER_ADDRESS", "NEST_LIMIT_TEXTS_PER_NUMBER", "NEST_TRIAL_ONCE_PER_CARD"];
  assert.deepEqual(settings, [...own, "NEST_MINE"].sort());
  await started.close();
  assert.ok(!existsSync(started.folder));
});

test("a failed start shows the last lines", async () => {
  const program = "console.error('settings are missing'); process.exit(1)";
  const start = LocalNest.start({ command: [process.execPath, "-e", program, "--"] });
  await assert.rejects(start, (error) => error instanceof NestDidNotStart && /settings are missing/.test(error.message));
  await assert.rejects(LocalNest.start({ command: ["/nowhere"] }), /can't be run/);
  const empty = await mkdtemp(join(tmpdir(), "empty-"));
  await assert.rejects(LocalNest.attach(empty), /no Nest has run in/);
  await rm(empty, { recursive: true });
});
