/** Verification of webhooks as Standard Webhooks 1.0 describes it (https://www.standardwebhooks.com). */
import { fromBase64, hmacKey, subtle, toBytes } from "./bytes.js";

const PREFIX = "whsec_";
const TOLERANCE_SECONDS = 300;

/** The request is not a webhook that one of the secrets has signed, or it is too old. Answer it with 400. */
export class InvalidWebhook extends Error {
  override readonly name = "InvalidWebhook";
}

/** A verified webhook. */
export interface Webhook<Payload = unknown> {
  /** ID of the message, the same in all attempts to deliver it. Handle each ID once. */
  readonly id: string;
  /** Time of this attempt in Unix seconds. */
  readonly timestamp: number;
  /** The body's JSON value. */
  readonly payload: Payload;
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
export class WebhookVerifier<Payload = unknown> {
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
  async verify(body: string | Uint8Array, headers: WebhookHeaders): Promise<Webhook<Payload>> {
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
      return { id, timestamp: Number(timestamp), payload: JSON.parse(new TextDecoder().decode(bytes)) as Payload };
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
