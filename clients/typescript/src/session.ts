/**
 * Calls with the tokens of a store, and their refresh: one at a time among all users of the store.
 *
 * Nest accepts a used refresh token again only while its successor is unused; any other reuse ends the session as
 * stolen. So a refresh holds the lock of the store, and a caller that waited for it uses the newer tokens. Its
 * idempotency key is stored before the request is sent: after a lost response, a closed tab or a crash the next refresh
 * repeats the same request, and gets the same response.
 */
import type { Operation, OwnerOptions } from "./caller.js";
import type { Client } from "./client.js";
import { newKey, requestOf, RETRIED, send } from "./core.js";
import { LoginRequired, NestError, Unauthorized } from "./errors.js";
import type { LoginAnswer, PendingLogin } from "./login.js";
import { UserMethods } from "./methods.js";
import { type Tokens, type TokenStore, tokensOf, withLock } from "./tokens.js";
import type * as models from "./models.js";

/** How long before its expiry an access token is refreshed, so that it does not expire on the way. */
const EARLY_SECONDS = 10;
/** Refusals after which only a new login helps. */
const ENDED: ReadonlySet<string> = new Set([
  "authorization_not_found",
  "malformed_refresh_token",
  "token_expired",
  "token_not_found",
  "token_used",
]);
/** Refreshes of one call. The first one may return a stored response, whose access token has expired since. */
const REFRESHES = 2;

/**
 * Methods of Nest for one user, with the user's access token, for any number of concurrent calls, tabs and processes.
 *
 * Tokens are refreshed shortly before they expire and when Nest refuses them, by one user of the store at a time. Every
 * method throws `LoginRequired` if there are no tokens or Nest has ended the session. A `user_id` that is left out is
 * that of the session.
 */
export class Session extends UserMethods {
  readonly #listeners = new Set<() => void>();
  #refreshing: { accessToken: string; tokens: Promise<Tokens> } | null = null;

  constructor(
    readonly client: Client,
    readonly store: TokenStore,
  ) {
    super();
  }

  /**
   * Return the present tokens, as they are stored.
   *
   * @throws LoginRequired There are none.
   */
  async tokens(): Promise<Tokens> {
    const tokens = await this.store.load();
    if (tokens === null) throw new LoginRequired("There are no tokens: log in.");
    return tokens;
  }

  /**
   * Return an access token that does not expire within seconds, for calls to your own back end.
   *
   * @throws LoginRequired There are no tokens, or the session has ended.
   */
  async accessToken(): Promise<string> {
    return (await this.#fresh()).accessToken;
  }

  /** Finish a login as the client's method does, and store its tokens. */
  async finishLogin(pending: PendingLogin, answer: LoginAnswer): Promise<Tokens> {
    const tokens = await this.client.finishLogin(pending, answer);
    await this.#locked(async () => this.store.save(tokens));
    this.#changed();
    return tokens;
  }

  /** Get new tokens now, for example to see new features in the claim `ent`, and return them. */
  async refresh(): Promise<Tokens> {
    return this.#refreshed(await this.tokens());
  }

  /** End the session in Nest, and remove its tokens from the store. */
  async logOut(): Promise<void> {
    try {
      await this.revokeSessions({ which: "current" });
    } catch (error) {
      if (!(error instanceof LoginRequired)) throw error;
      return;
    }
    await this.#locked(async () => this.store.save(null));
    this.#changed();
  }

  /** Call a listener after each login, refresh and end of the session, also in other tabs. Return what ends it. */
  subscribe(listener: () => void): () => void {
    this.#listeners.add(listener);
    const end = this.store.subscribe?.(listener);
    return () => {
      this.#listeners.delete(listener);
      end?.();
    };
  }

  protected override async call<Result>(operation: Operation, fields: object, options?: OwnerOptions): Promise<Result> {
    // A token that is refused is refreshed, and the call repeated with the same idempotency key and for the same user:
    // it is one command for Nest.
    const idempotencyKey = operation.command ? (options?.idempotencyKey ?? newKey()) : undefined;
    const keyed: OwnerOptions = { ...options, ...(idempotencyKey === undefined ? {} : { idempotencyKey }) };
    let tokens = await this.#fresh();
    const body = this.#ofUser(operation, fields, tokens);
    for (let left = REFRESHES; ; left -= 1) {
      const request = requestOf(operation, body, keyed, `bearer ${tokens.accessToken}`, tokens.userId);
      try {
        return (await send(this.client.transport, request, options?.signal)) as Result;
      } catch (error) {
        if (!(error instanceof Unauthorized) || left === 0) throw error;
      }
      tokens = await this.#refreshed(tokens);
    }
  }

  #ofUser(operation: Operation, fields: object, tokens: Tokens): object {
    return operation.ofUser && (fields as { user_id?: string }).user_id === undefined ? { ...fields, user_id: tokens.userId } : fields;
  }

  async #fresh(): Promise<Tokens> {
    const tokens = await this.tokens();
    return tokens.expiresAt - EARLY_SECONDS <= Date.now() / 1000 ? this.#refreshed(tokens) : tokens;
  }

  /** Whoever holds the lock may be refreshing, within the bounds of a call. */
  #locked<Result>(action: () => Promise<Result>): Promise<Result> {
    const { within, timeout } = this.client.transport.retries;
    return withLock(this.store, action, within + timeout);
  }

  /** Return newer tokens than `used`: those that somebody else has stored by now, or those of a refresh. */
  #refreshed(used: Tokens): Promise<Tokens> {
    // Concurrent calls share a refresh instead of waiting for the lock one after another.
    if (this.#refreshing?.accessToken === used.accessToken) return this.#refreshing.tokens;
    const tokens = this.#locked(() => this.#refresh(used)).finally(() => {
      if (this.#refreshing?.tokens === tokens) this.#refreshing = null;
      this.#changed();
    });
    this.#refreshing = { accessToken: used.accessToken, tokens };
    return tokens;
  }

  async #refresh(used: Tokens): Promise<Tokens> {
    let tokens = await this.tokens();
    if (tokens.userId !== used.userId) {
      throw new LoginRequired("Another person has logged in since: the call is not repeated for that person.");
    }
    if (tokens.accessToken !== used.accessToken) return tokens;
    if (tokens.refreshKey === null) {
      tokens = { ...tokens, refreshKey: newKey() };
      await this.store.save(tokens);
    }
    let fresh: Tokens;
    try {
      fresh = tokensOf(await this.#exchange(tokens));
    } catch (error) {
      if (error instanceof NestError && ENDED.has(error.code)) {
        await this.#replace(tokens, null);
        throw new LoginRequired("The session has ended: log in again.", { cause: error });
      }
      if (error instanceof NestError && !RETRIED.has(error.status)) {
        // Nest stores this refusal under the key, which would return it after its cause is gone.
        await this.#replace(tokens, { ...tokens, refreshKey: null });
      }
      throw error;
    }
    return this.#replace(tokens, fresh);
  }

  /** Store what a refresh of `old` has returned, unless the lock has lapsed and somebody else has stored newer tokens. */
  async #replace<Next extends Tokens | null>(old: Tokens, next: Next): Promise<Next | Tokens> {
    const stored = await this.store.load();
    if (stored !== null && stored.refreshToken !== old.refreshToken) return stored;
    await this.store.save(next);
    return next;
  }

  async #exchange(tokens: Tokens): Promise<models.TokenView> {
    return this.client.authenticateUser(
      { client_id: tokens.clientId, grant_type: "refresh_token", refresh_token: tokens.refreshToken },
      { idempotencyKey: tokens.refreshKey ?? newKey() },
    );
  }

  #changed(): void {
    for (const listener of this.#listeners) listener();
  }
}
