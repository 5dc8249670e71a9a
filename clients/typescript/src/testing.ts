/**
 * A Nest for tests in Node.js: its mails and texts, a person's login in one call, and its Stripe account with a clock to
 * move.
 *
 * `LocalNest.start` runs a Nest of its own, with Kafka, MongoDB and a Stripe double, in a temporary folder. It needs the
 * command `nest` of the Python package `nest[embedded]`. `LocalNest.attach` uses one that runs already.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Client } from "./client.js";
import type { Session } from "./session.js";
import { StripeDouble } from "./stripe-double.js";

export * from "./stripe-double.js";

/** Limit of a start. A warm one takes about three seconds, the first one on a machine downloads Apache Kafka. */
const START_SECONDS = 120;
const STOP_SECONDS = 20;
const WAIT_SECONDS = 10;
const POLL_MILLISECONDS = 50;
const LOG_LINES = 20;
/** Tests log in with one address as often as they like, and everybody has a trial with the same test card. */
const SETTINGS = {
  NEST_LIMIT_MAGIC_LINKS_PER_ADDRESS: "1000/1s",
  NEST_LIMIT_TEXTS_PER_NUMBER: "1000/1s",
  NEST_TRIAL_ONCE_PER_CARD: "false",
};

/** Nest did not start, or none runs in the folder; the message says what to do. */
export class NestDidNotStart extends Error {
  override readonly name = "NestDidNotStart";
}

/** What a test waited for did not happen in time. */
export class TimedOut extends Error {
  override readonly name = "TimedOut";
}

/** A mail or text in the inbox. */
export class Message {
  /** ID in the inbox. */
  readonly id: string;
  readonly kind: "mail" | "text";
  /** Addresses separated by commas, or a phone number. */
  readonly to: string;
  readonly sender: string;
  /** Empty for a text. */
  readonly subject: string;
  /** The text, of a mail its plain-text part. */
  readonly text: string;
  /** HTML part; empty without one. */
  readonly html: string;
  /** All URLs, in order. */
  readonly links: readonly string[];

  constructor(arrival: Pick<Message, "id" | "kind" | "to" | "sender" | "subject" | "text" | "html" | "links">) {
    ({ id: this.id, kind: this.kind, to: this.to, sender: this.sender, subject: this.subject } = arrival);
    ({ text: this.text, html: this.html, links: this.links } = arrival);
  }

  /**
   * The code of six digits: in a mail it stands alone in a line.
   *
   * @throws RangeError There is none.
   */
  get code(): string {
    const pattern = this.kind === "mail" ? /^[0-9]{6}$/gm : /(?<![0-9])[0-9]{6}(?![0-9])/g;
    const code = this.text.match(pattern)?.at(-1);
    if (code === undefined) throw new RangeError(`there is no code in "${this.subject || this.text}"`);
    return code;
  }

  /**
   * Return the first link that contains a text.
   *
   * @throws RangeError There is none.
   */
  link(part: string): string {
    const link = this.links.find((each) => each.includes(part));
    if (link === undefined) throw new RangeError(`no link contains "${part}": ${this.links.join(", ")}`);
    return link;
  }
}

/** How a Nest is started. */
export interface StartOptions {
  /** The command `nest`, in words. Default: that of the variable `NEST_COMMAND`, else `nest` on the PATH. */
  command?: readonly string[];
  /** Data folder, which is kept. Default: a temporary one, which is removed. */
  folder?: string;
  /** Settings of Nest, such as `{ NEST_CORS_ORIGINS: "https://app.example" }`. Those of this process are not passed on. */
  environment?: Record<string, string>;
}

/** Whom `logIn` logs in. */
export interface LocalLogin {
  /** ID of the app's client. Default: the demo client. */
  clientId?: string;
  /** A redirect URI of that client. Default: that of the demo client. */
  redirectUri?: string;
}

interface Access {
  url: string;
  internal_key: string;
  environment: Record<string, string>;
}

/** A Nest on this machine. */
export class LocalNest {
  /** URL of its API, without a slash at the end. */
  readonly url: string;
  /** A redirect URI of the demo client, `<url>/dev/callback`. */
  readonly redirectUri: string;
  /** Anonymous client. */
  readonly client: Client;
  /** Secret of back ends and operators. */
  readonly internalKey: string;
  /** Client with that key. */
  readonly operator: Client;
  /** Its Stripe account. */
  readonly stripe: StripeDouble;
  readonly #close: () => Promise<void>;
  readonly #seen = new Set<string>();

  private constructor(
    /** Its data folder. */
    readonly folder: string,
    /** ID of the client that `logIn` uses. */
    readonly clientId: string,
    access: Access,
    close: () => Promise<void>,
  ) {
    this.url = access.url;
    this.redirectUri = `${access.url}/dev/callback`;
    this.internalKey = access.internal_key;
    this.client = new Client(access.url);
    this.operator = new Client(access.url, { internalKey: access.internal_key });
    const { NEST_STRIPE_API_BASE: base = "", NEST_STRIPE_API_KEY: key = "" } = access.environment;
    this.stripe = new StripeDouble(base, key);
    this.#close = close;
  }

  /**
   * Start a Nest and wait until it is ready: about three seconds, more at the first time on a machine. It stops with this
   * process, even if that is killed.
   *
   * @throws NestDidNotStart With the last lines of its output.
   */
  static async start(options: StartOptions = {}): Promise<LocalNest> {
    const [program = "nest", ...words] = options.command ?? process.env["NEST_COMMAND"]?.split(" ") ?? ["nest"];
    const folder = options.folder ?? (await mkdtemp(join(tmpdir(), "nest-")));
    const inherited = Object.entries(process.env).filter(([name]) => !name.startsWith("NEST_"));
    const nest = spawn(
      program,
      [...words, "up", "--child", "--data", folder, "--port", String(await freePort())],
      {
        stdio: ["pipe", "pipe", "pipe"],
        env: { ...Object.fromEntries(inherited), ...SETTINGS, ...options.environment },
        detached: true,
      },
    );
    const close = async (): Promise<void> => {
      await stop(nest);
      if (options.folder === undefined) await rm(folder, { recursive: true, force: true });
    };
    try {
      const ready = JSON.parse(await readyLine(nest, program)) as { client_id: string };
      return new LocalNest(folder, ready.client_id, await accessOf(folder), close);
    } catch (error) {
      await close();
      throw error;
    }
  }

  /**
   * Use the Nest that runs with a data folder, such as the `.nest` of `make run`. Closing does not stop it.
   *
   * @param clientId ID of the client that `logIn` uses. Default: the demo client.
   * @throws NestDidNotStart None has run there.
   */
  static async attach(folder: string, clientId = "client_demo"): Promise<LocalNest> {
    if (!existsSync(join(folder, "operator.json"))) {
      throw new NestDidNotStart(`no Nest has run in ${folder}: start one with make run`);
    }
    return new LocalNest(folder, clientId, await accessOf(folder), async () => {});
  }

  /** Stop Nest if it was started here. */
  close(): Promise<void> {
    return this.#close();
  }

  /** Return the mails and texts in the inbox, newest first; with `to` those to this address or phone number. */
  async messages(to?: string): Promise<Message[]> {
    const query = new URLSearchParams(to === undefined ? {} : { to });
    const response = await fetch(`${this.url}/dev/inbox.json?${query}`);
    if (!response.ok) throw new Error(`the inbox responds with status ${response.status}`);
    return ((await response.json()) as Message[]).map((each) => new Message(each));
  }

  /**
   * Wait for a mail to an address, and return it. Each mail is returned once, the oldest one first.
   *
   * @param options `subject`: a part of the subject. `seconds`: how long to wait.
   * @throws TimedOut None has arrived.
   */
  mail(to: string, options: { subject?: string; seconds?: number } = {}): Promise<Message> {
    return this.#next("mail", to, options.subject ?? "", options.seconds);
  }

  /** Wait for a text to a phone number, and return it, as `mail` does. */
  text(to: string, options: { seconds?: number } = {}): Promise<Message> {
    return this.#next("text", to, "", options.seconds);
  }

  /**
   * Log a person in by magic link, and return the session.
   *
   * @param email Address. Default: a new one. An unknown one is registered.
   */
  async logIn(email = `${randomBytes(6).toString("hex")}@example.com`, options: LocalLogin = {}): Promise<Session> {
    const { clientId = this.clientId, redirectUri = this.redirectUri } = options;
    for (const known of await this.messages(email)) this.#seen.add(known.id);
    const session = this.client.session();
    const pending = await this.client.startLogin(email, { clientId, redirectUri });
    await session.finishLogin(pending, { url: (await this.mail(email)).link("code=") });
    return session;
  }

  /**
   * Subscribe a person on the checkout page, and wait until Nest lets the person use the plan.
   *
   * @param options `priceId`: default the first price of `listPlans`. `card`: number of a test card. `trial`: whether the
   *   subscription may begin with a trial; default yes.
   * @throws CardRefused The card was declined, or needs an authentication.
   * @throws RangeError No plan is on sale.
   * @throws TimedOut Nest does not know of the subscription in time.
   */
  async subscribe(session: Session, options: { priceId?: string; card?: string; trial?: boolean } = {}): Promise<void> {
    const priceId = options.priceId ?? (await this.client.listPlans()).plans[0]?.prices[0]?.price_id;
    if (priceId === undefined) throw new RangeError("no plan is on sale: create a product with a recurring price");
    const page = await session.createCheckout({
      items: [{ price_id: priceId }],
      success_url: this.redirectUri,
      cancel_url: this.redirectUri,
      trial: options.trial ?? true,
    });
    await this.stripe.pay(page.url, options.card === undefined ? {} : { card: options.card });
    await this.until(async () => (await session.getCustomerState()).entitled, "the subscription is active");
  }

  /**
   * Call a function until it returns a true value, and return that. Nest handles webhooks and events after it has
   * accepted them, so a test waits for their effects.
   *
   * @param what The condition in words, for the error.
   * @throws TimedOut It did not.
   */
  async until<Result>(
    check: () => Result | Promise<Result>,
    what = "what is expected",
    seconds = WAIT_SECONDS,
  ): Promise<Result> {
    for (const end = Date.now() + seconds * 1000; ; ) {
      const found = await check();
      if (found) return found;
      if (Date.now() > end) throw new TimedOut(`not within ${seconds} seconds: ${what}`);
      await new Promise((resolve) => setTimeout(resolve, POLL_MILLISECONDS));
    }
  }

  async #next(kind: string, to: string, subject: string, seconds = WAIT_SECONDS): Promise<Message> {
    const find = async (): Promise<Message | undefined> =>
      (await this.messages(to))
        .filter((each) => each.kind === kind && each.subject.includes(subject) && !this.#seen.has(each.id))
        .at(-1);
    const found = (await this.until(find, `a ${kind} to ${to} arrives`, seconds)) as Message;
    this.#seen.add(found.id);
    return found;
  }
}

async function accessOf(folder: string): Promise<Access> {
  return JSON.parse(await readFile(join(folder, "operator.json"), "utf8")) as Access;
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as { port: number };
  server.close();
  await once(server, "close");
  return port;
}

/** Read the line of JSON that `nest up --child` prints. */
function readyLine(nest: ChildProcess, program: string): Promise<string> {
  return new Promise((resolve, reject) => {
    let output = "";
    let errors = "";
    const timer = setTimeout(() => fail("it takes too long"), START_SECONDS * 1000);
    const fail = (reason: string): void => {
      clearTimeout(timer);
      const lines = errors.trimEnd().split("\n").slice(-LOG_LINES);
      reject(new NestDidNotStart([`Nest did not start: ${reason}`, ...lines].join("\n")));
    };
    nest.on("error", () => fail(`${program} can't be run; name the command in NEST_COMMAND`));
    // When its outputs are closed too, so that the last lines are complete.
    nest.on("close", (code) => fail(`exit code ${code}`));
    nest.stderr?.setEncoding("utf8").on("data", (text: string) => (errors = (errors + text).slice(-100_000)));
    nest.stdout?.setEncoding("utf8").on("data", (text: string) => {
      output += text;
      if (!output.includes("\n")) return;
      clearTimeout(timer);
      resolve(output);
    });
  });
}

/** Stop Nest by the end of its input, and kill it if that takes too long. */
async function stop(nest: ChildProcess): Promise<void> {
  if (nest.pid === undefined || nest.exitCode !== null || nest.signalCode !== null) return;
  const exited = once(nest, "exit");
  nest.stdin?.end();
  const timer = setTimeout(() => nest.kill("SIGKILL"), STOP_SECONDS * 1000);
  await exited;
  clearTimeout(timer);
}
