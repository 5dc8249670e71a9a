/** Verification of Nest's webhooks as Standard Webhooks 1.0 describes it (https://www.standardwebhooks.com). */
import { fromBase64, hmacKey, subtle, toBytes } from "./bytes.js";
import { EVENT_TYPES, type WebhookEvent } from "./webhook-events.js";

const PREFIX = "whsec_";
const TOLERANCE_SECONDS = 300;

/** The request is not a webhook that one of the secrets has signed, or it is too old. Answer it with 400. */
export class InvalidWebhook extends Error {
  override readonly name = "InvalidWebhook";
}

/**
 * The payload of a webhook whose type this release does not know, as a later version of Nest may send it.
 *
 * Its `type` is never one of Nest's, so that the type of each known event determines the type of its `data`.
 */
export interface UnknownEvent {
  type: "unknown";
  /** The body's JSON value, with the event's own `type` and `data`. */
  body: unknown;
}

/** A verified webhook. */
export interface Webhook {
  /** ID of the message, the same in all attempts to deliver it. Handle each ID once. */
  readonly id: string;
  /** Time of this attempt in Unix seconds. */
  readonly timestamp: number;
  /** The event: the body's JSON value if its `type` is known. Fields that this release does not know are kept. */
  readonly payload: WebhookEvent | UnknownEvent;
}

/** Headers of a request: those of `fetch`, or those of Node.js. */
export type WebhookHeaders = Headers | Readonly<Record<string, string | readonly string[] | undefined>>;

/** Options of a webhook verifier. */
export interface WebhookVerifierOptions {
  /** Largest age of a signature in seconds, and how far it may be ahead. Default: 300. */
  tolerance?: number;
  /** Unix time in seconds, for tests. */
  clock?: () => number;
}

/** Verifier of webhooks. */
export class WebhookVerifier {
  readonly #secrets: readonly Uint8Array<ArrayBuffer>[];
  readonly #tolerance: number;
  readonly #clock: () => number;

  /** @param secrets One or more secrets, `whsec_<base64>`; with several, secrets can be replaced without a gap. */
  constructor(secrets: string | readonly string[], options: WebhookVerifierOptions = {}) {
    this.#secrets = (typeof secrets === "string" ? [secrets] : secrets).map(secretOf);
    if (this.#secrets.length === 0) throw new TypeError("Give at least one secret.");
    this.#tolerance = options.tolerance ?? TOLERANCE_SECONDS;
    this.#clock = options.clock ?? (() => Date.now() / 1000);
  }

  /**
   * Return the webhook of a request.
   *
   * @param body The body as it arrived, before it is parsed.
   * @param headers The headers, with names in any case.
   * @throws InvalidWebhook A header is missing, the time is out of tolerance, or no signature is right.
   */
  async verify(body: string | Uint8Array, headers: WebhookHeaders): Promise<Webhook> {
    const read = reader(headers);
    const [id, timestamp, signatures] = [read("webhook-id"), read("webhook-timestamp"), read("webhook-signature")];
    if (!/^\d{1,10}$/.test(timestamp)) throw new InvalidWebhook("The timestamp is not in Unix seconds.");
    if (Math.abs(this.#clock() - Number(timestamp)) > this.#tolerance) {
      throw new InvalidWebhook("The timestamp is too old, or ahead.");
    }
    const bytes = typeof body === "string" ? toBytes(body) : body;
    const signed = concatenated(toBytes(`${id}.${timestamp}.`), bytes);
    const given = signatures.split(/\s+/).filter((each) => each.startsWith("v1,"));
    if (!(await this.#anyIsRight(given, signed))) throw new InvalidWebhook("No signature is right.");
    try {
      return { id, timestamp: Number(timestamp), payload: eventOf(JSON.parse(new TextDecoder().decode(bytes))) };
    } catch {
      throw new InvalidWebhook("The body is no JSON.");
    }
  }

  async #anyIsRight(signatures: readonly string[], signed: Uint8Array<ArrayBuffer>): Promise<boolean> {
    for (const secret of this.#secrets) {
      const key = await hmacKey(secret);
      for (const text of signatures) {
        const signature = fromBase64(text.slice("v1,".length));
        if (signature !== null && (await subtle().verify("HMAC", key, signature, signed))) return true;
      }
    }
    return false;
  }
}

function eventOf(body: unknown): WebhookEvent | UnknownEvent {
  const type = (body as { type?: unknown } | null)?.type;
  return (EVENT_TYPES as readonly unknown[]).includes(type) ? (body as WebhookEvent) : { type: "unknown", body };
}

function reader(headers: WebhookHeaders): (name: string) => string {
  const lower = new Map<string, unknown>();
  if (headers instanceof Headers) headers.forEach((value, name) => lower.set(name, value));
  else for (const [name, value] of Object.entries(headers)) lower.set(name.toLowerCase(), value);
  return (name) => {
    const value = lower.get(name);
    if (typeof value !== "string") throw new InvalidWebhook(`The header ${name} is missing.`);
    return value;
  };
}

function concatenated(one: Uint8Array, other: Uint8Array): Uint8Array<ArrayBuffer> {
  const whole = new Uint8Array(one.length + other.length);
  whole.set(one);
  whole.set(other, one.length);
  return whole;
}

function secretOf(secret: string): Uint8Array<ArrayBuffer> {
  const key = fromBase64(secret.startsWith(PREFIX) ? secret.slice(PREFIX.length) : secret);
  if (key === null || key.length === 0) throw new TypeError("A secret of a webhook is `whsec_` and base64.");
  return key;
}
