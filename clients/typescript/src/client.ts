import type { CallOptions, Operation, OwnerOptions } from "./caller.js";
import { EntityTags, requestOf, type Retries, send, sleep, type Transport } from "./core.js";
import { keyOf, type LoginAnswer, newLogin, orderOf, type PendingLogin, redemptionOf } from "./login.js";
import { AllMethods } from "./methods.js";
import type * as models from "./models.js";
import { Session } from "./session.js";
import { MemoryStore, type Tokens, type TokenStore, tokensOf } from "./tokens.js";

/** Options of a client. */
export interface ClientOptions {
  /** Secret of back ends and operators, never of a browser; without it the caller is anonymous. */
  internalKey?: string;
  /** Bounds of one call. */
  retries?: Partial<Retries>;
  /** Function that sends requests, with settings of your own, such as proxies. Default: the runtime's `fetch`. */
  fetch?: typeof fetch;
}

/** Options of a login. */
export interface LoginOptions {
  /** ID of the client. */
  clientId: string;
  /** Target of the link in the mail, one of the client's redirect URIs. */
  redirectUri: string;
  /** The person's device. */
  device?: models.Device;
  /** The person's device, to start a trial with the login (`create_trial_and_magic_link`). */
  trialDevice?: models.TrialDevice;
  /** Language of the mail (RFC 5646). */
  locale?: string;
  signal?: AbortSignal;
}

/**
 * Client of a Nest, for any number of concurrent calls.
 *
 * Its methods are those of Nest. They throw `NestError` and `ConnectionFailed`, and repeat what may be repeated within
 * the bounds of `retries`.
 */
export class Client extends AllMethods {
  /** How requests are sent. */
  readonly transport: Transport;
  readonly #authorization: string | null;

  /** @param url Address of the Nest, such as `https://nest.example.com`. */
  constructor(url: string, options: ClientOptions = {}) {
    super();
    const retries = { within: 30, timeout: 20, ...options.retries };
    if (!(retries.within >= 0 && retries.within < Infinity && retries.timeout > 0 && retries.timeout < Infinity)) {
      throw new RangeError("`within` must be at least 0 and `timeout` more than 0, both finite.");
    }
    // The runtime's `fetch` must be called without a receiver.
    const fetch = options.fetch ?? ((...request: Parameters<typeof globalThis.fetch>) => globalThis.fetch(...request));
    this.transport = { url: base(url), retries, fetch, tags: new EntityTags(), sleep };
    this.#authorization = options.internalKey === undefined ? null : `internal ${options.internalKey}`;
  }

  /** Address of the Nest. */
  get url(): string {
    return this.transport.url;
  }

  protected override async call<Result>(operation: Operation, fields: object, options?: OwnerOptions): Promise<Result> {
    const request = requestOf(operation, fields, options, this.#authorization, "");
    return (await send(this.transport, request, options?.signal)) as Result;
  }

  /** Mail a magic link and a typed code to an address, and return what finishes the login. */
  async startLogin(email: string, options: LoginOptions): Promise<PendingLogin> {
    const { clientId, redirectUri, device, trialDevice, locale, signal } = options;
    if (device !== undefined && trialDevice !== undefined) {
      throw new TypeError("Give either `device` or `trialDevice`.");
    }
    const pending = newLogin(clientId, redirectUri);
    const order = { ...(await orderOf(pending, email)), ...(locale === undefined ? {} : { locale }) };
    const call: CallOptions = signal === undefined ? {} : { signal };
    if (trialDevice !== undefined) await this.createTrialAndMagicLink({ ...order, device: trialDevice }, call);
    else await this.sendMagicLink({ ...order, ...(device === undefined ? {} : { device }) }, call);
    return pending;
  }

  /**
   * Return the tokens of a login, for the URL of the redirect or for the code that the person typed.
   *
   * @throws StateMismatch The URL is not of this login.
   * @throws NestError Nest refused the code. `IncorrectCode` has `guesses_left` in its `meta`.
   */
  async finishLogin(pending: PendingLogin, answer: LoginAnswer): Promise<Tokens> {
    const fields = redemptionOf(pending, answer);
    const idempotencyKey = await keyOf(pending, fields.code);
    return tokensOf(await this.authenticateUser(fields, { idempotencyKey }));
  }

  /** Return a session with the tokens of a store, or with tokens that are kept in memory. */
  session(store: TokenStore | Tokens = new MemoryStore()): Session {
    return new Session(this, "accessToken" in store ? new MemoryStore(store) : store);
  }
}

function base(url: string): string {
  const parsed = tryParse(url);
  if (!parsed || !/^https?:$/.test(parsed.protocol) || parsed.search !== "" || parsed.hash !== "") {
    throw new TypeError("`url` is the address of a Nest, such as `https://nest.example.com`.");
  }
  return url.replace(/\/+$/, "");
}

function tryParse(url: string): URL | null {
  try {
    return new URL(url);
  } catch {
    return null;
  }
}
