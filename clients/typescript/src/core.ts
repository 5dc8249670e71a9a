/** Requests, responses and retries. */
import { randomText } from "./bytes.js";
import type { Operation, OwnerOptions } from "./caller.js";
import { CODES, ClientError, ConnectionFailed, NestError, type Reason, STATUSES, ServerError } from "./errors.js";

/** Bounds of one call. In a session they hold for the call and for a refresh each. */
export interface Retries {
  /** Seconds for all attempts and pauses of a call. 0 makes one attempt. Default: 30. */
  within: number;
  /** Seconds for one attempt. Default: 20. */
  timeout: number;
}

/** How requests are sent. */
export interface Transport {
  readonly url: string;
  readonly retries: Retries;
  readonly fetch: typeof fetch;
  readonly tags: EntityTags;
  /** Wait; rejects when the signal is aborted. */
  readonly sleep: (seconds: number, signal?: AbortSignal) => Promise<void>;
}

/** Responses that Nest does not store: the same key tries again, or returns the missed response. 502 is a proxy's. */
export const RETRIED: ReadonlySet<number> = new Set([429, 502, 503, 504]);
/** A repeat of a query that was too slow would be too slow again. */
const FINAL_CODES: ReadonlySet<string> = new Set(["query_timeout"]);
const FIRST_PAUSE = 0.2;
const LONGEST_PAUSE = 5;
const NOT_MODIFIED = 304;

/** An HTTP request to Nest. */
export interface NestRequest {
  readonly verb: string;
  readonly path: string;
  readonly content: string | undefined;
  readonly headers: Headers;
  readonly idempotencyKey: string | null;
  /** Key of the entity tag, or null if the response has none. */
  readonly tagKey: string | null;
  /** Whether the result is a text instead of a JSON value. */
  readonly text: boolean;
}

interface Answer {
  status: number;
  headers: Headers;
  text: string;
  /** Text that the request's entity tag stands for. */
  known?: string | undefined;
}

/** Return a random idempotency key. */
export function newKey(): string {
  return randomText(24);
}

/**
 * Return the request of an operation.
 *
 * @param authorization Value of the header, or null for an anonymous caller.
 * @param caller Who calls, for entity tags: responses to one caller are not used for another one.
 */
export function requestOf(
  operation: Operation,
  fields: object,
  options: OwnerOptions | undefined,
  authorization: string | null,
  caller: string,
): NestRequest {
  const rest: Record<string, unknown> = { ...fields };
  const path = operation.path.replace(/\{(\w+)\}/g, (_, name: string) => {
    const value = rest[name];
    delete rest[name];
    if (typeof value !== "string" || value === "") throw new TypeError(`\`${name}\` is required.`);
    return encodeURIComponent(value);
  });
  const verb = operation.verb ?? "POST";
  const headers = new Headers({ accept: "application/json" });
  const content = verb === "GET" ? undefined : JSON.stringify(rest);
  if (content !== undefined) headers.set("content-type", "application/json");
  const credential = options?.token === undefined ? authorization : `bearer ${options.token}`;
  if (credential !== null) headers.set("authorization", credential);
  const idempotencyKey = operation.command ? (options?.idempotencyKey ?? newKey()) : null;
  if (idempotencyKey !== null) headers.set("idempotency-key", idempotencyKey);
  const tagKey = operation.tagged ? `${caller} ${path} ${content}` : null;
  return { verb, path, content, headers, idempotencyKey, tagKey, text: operation.text ?? false };
}

/**
 * Send a request until Nest accepts or refuses it, and return the result.
 *
 * All attempts have the same idempotency key, so a command takes effect once. 429 and 503 are repeated after as many
 * seconds as `retry-after` says; 502, 504 and failed connections after growing random pauses.
 *
 * @throws NestError Nest refused the call, or would accept it only after `retries.within`.
 * @throws ConnectionFailed No response arrived.
 */
export async function send(transport: Transport, request: NestRequest, signal?: AbortSignal): Promise<unknown> {
  const { within, timeout } = transport.retries;
  const endsAt = now() + within;
  for (let longest = FIRST_PAUSE; ; longest = Math.min(longest * 2, LONGEST_PAUSE)) {
    const left = within > 0 ? endsAt - now() : timeout;
    let pause = longest / 2 + (Math.random() * longest) / 2;
    let failure: NestError | ConnectionFailed;
    try {
      const answer = await attempt(transport, request, Math.min(timeout, Math.max(left, 0.001)), signal);
      if (answer.status >= 200 && answer.status < 400) return resultOf(transport, request, answer);
      failure = errorOf(answer);
      if (!RETRIED.has(failure.status) || FINAL_CODES.has(failure.code)) throw failure;
      if (failure.retryAfter !== null) pause = Math.max(failure.retryAfter, pause) + Math.random() * FIRST_PAUSE;
    } catch (cause) {
      signal?.throwIfAborted();
      if (cause instanceof NestError) throw cause;
      failure = new ConnectionFailed(`Nest did not respond (${messageOf(cause)}).`, request.idempotencyKey, { cause });
      if (await refusedByBrowser(transport, cause)) {
        failure.message = "The browser did not let this page call Nest: add the page's origin to NEST_CORS_ORIGINS.";
        throw failure;
      }
    }
    if (now() + pause >= endsAt) throw failure;
    await transport.sleep(pause, signal);
  }
}

async function attempt(
  transport: Transport,
  request: NestRequest,
  seconds: number,
  signal: AbortSignal | undefined,
): Promise<Answer> {
  signal?.throwIfAborted();
  const controller = new AbortController();
  const timer = setTimeout(() => controller.abort(new Error("the response took too long")), seconds * 1000);
  const abort = (): void => controller.abort(signal?.reason);
  signal?.addEventListener("abort", abort, { once: true });
  try {
    const kept = request.tagKey === null ? undefined : transport.tags.find(request.tagKey);
    const headers = new Headers(request.headers);
    if (kept !== undefined) headers.set("if-none-match", kept.tag);
    const response = await transport.fetch(transport.url + request.path, {
      method: request.verb,
      headers,
      ...(request.content === undefined ? {} : { body: request.content }),
      redirect: "manual",
      signal: controller.signal,
    });
    return { status: response.status, headers: response.headers, text: await response.text(), known: kept?.text };
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener("abort", abort);
  }
}

/** Whether a request failed although Nest can be reached: the browser refused it for a rule of CORS. */
async function refusedByBrowser(transport: Transport, cause: unknown): Promise<boolean> {
  if (typeof document === "undefined" || !(cause instanceof TypeError)) return false;
  if (new URL(transport.url).origin === location.origin) return false;
  try {
    const headers = (await transport.fetch(`${transport.url}/healthz`, { mode: "no-cors" })).type;
    if (headers !== "opaque") return false;
  } catch {
    return false; // no connection: the call is repeated
  }
  try {
    await transport.fetch(`${transport.url}/healthz`);
    return false; // the origin is allowed: the connection was lost for a moment
  } catch {
    return true;
  }
}

function resultOf(transport: Transport, request: NestRequest, answer: Answer): unknown {
  let text = answer.text;
  if (answer.status === NOT_MODIFIED && answer.known !== undefined) {
    text = answer.known;
  } else if (request.tagKey !== null) {
    transport.tags.keep(request.tagKey, answer.headers.get("etag"), text);
  }
  if (answer.status === 204 || (answer.status === 202 && text === "")) return undefined;
  if (request.text) return text;
  try {
    return JSON.parse(text);
  } catch {
    throw unreadable(answer.status);
  }
}

function unreadable(status: number): NestError {
  return new NestError({ code: `http_${status}`, status, message: "The response is no JSON: check the URL." });
}

/** Return the error of a response: the class of its code, else that of its status. */
export function errorOf(answer: Answer): NestError {
  if (answer.status < 400) return unreadable(answer.status); // 0: a redirect, which browsers do not show
  const body = parsed(answer.text);
  const meta = isRecord(body["meta"]) ? body["meta"] : {};
  const code = typeof body["code"] === "string" && body["code"] ? body["code"] : `http_${answer.status}`;
  const ofStatus = STATUSES[answer.status] ?? (answer.status >= 500 ? ServerError : ClientError);
  const ofCode = Object.hasOwn(CODES, code) ? CODES[code] : undefined;
  const Kind = ofCode && (ofCode === ofStatus || ofCode.prototype instanceof ofStatus) ? ofCode : ofStatus;
  return new Kind({
    code,
    status: answer.status,
    message: text(body["message"]),
    docs: text(body["docs"]),
    requestId: text(meta["request_id"]) || (answer.headers.get("x-request-id") ?? ""),
    retryAfter: retryAfter(answer.headers.get("retry-after"), meta["retry_after"]),
    reasons: Array.isArray(body["reasons"]) ? body["reasons"].filter(isRecord).map(reason) : [],
    meta,
  });
}

function parsed(content: string): Record<string, unknown> {
  try {
    const body: unknown = JSON.parse(content);
    return isRecord(body) ? body : {};
  } catch {
    return {};
  }
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function text(value: unknown): string {
  return typeof value === "string" ? value : "";
}

function reason(part: Record<string, unknown>): Reason {
  return { code: text(part["code"]), message: text(part["message"]), docs: text(part["docs"]) };
}

/** Return the seconds of the header (RFC 9110 section 10.2.3: a number or a date), else those of `meta`. */
function retryAfter(header: string | null, seconds: unknown): number | null {
  if (header !== null && /^\d+$/.test(header.trim())) return Number(header);
  const at = header !== null && /^[A-Z][a-z]+,/.test(header) ? Date.parse(header) : Number.NaN;
  if (!Number.isNaN(at)) return Math.max((at - Date.now()) / 1000, 0);
  return typeof seconds === "number" ? seconds : null;
}

function messageOf(cause: unknown): string {
  if (!(cause instanceof Error)) return String(cause);
  // Node.js says "fetch failed", and the reason in the cause.
  return cause.cause instanceof Error ? `${cause.message}: ${cause.cause.message}` : cause.message;
}

function now(): number {
  return performance.now() / 1000;
}

/** Wait for as many seconds, or until the signal is aborted. */
export function sleep(seconds: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const abort = (): void => {
      clearTimeout(timer);
      reject(signal?.reason);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", abort);
      resolve();
    }, seconds * 1000);
    if (signal?.aborted) abort();
    else signal?.addEventListener("abort", abort, { once: true });
  });
}

/** Responses with entity tags, the ones used last: `if-none-match` fetches them again only if they have changed. */
export class EntityTags {
  readonly #kept = new Map<string, { tag: string; text: string }>();

  constructor(
    /** Most responses to keep. */
    readonly size = 32,
    /** Longest response to keep, in characters. */
    readonly longest = 262_144,
  ) {}

  find(key: string): { tag: string; text: string } | undefined {
    return this.#kept.get(key);
  }

  keep(key: string, tag: string | null, text: string): void {
    this.#kept.delete(key);
    if (tag === null || text.length > this.longest) return;
    this.#kept.set(key, { tag, text });
    const [oldest] = this.#kept.keys();
    if (this.#kept.size > this.size && oldest !== undefined) this.#kept.delete(oldest);
  }
}
