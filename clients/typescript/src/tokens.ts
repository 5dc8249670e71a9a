/** Tokens of a session, and the stores that keep them. */
import { randomText } from "./bytes.js";
import { StoreLocked } from "./errors.js";
import { pageStorage, type TextStorage } from "./login.js";
import type * as models from "./models.js";

/** Tokens of one session, a JSON object. */
export interface Tokens {
  /** JWT for the header `authorization`. */
  readonly accessToken: string;
  /** Token for the next refresh. */
  readonly refreshToken: string;
  /** Expiry of the access token in Unix seconds, by the clock of this machine. */
  readonly expiresAt: number;
  /** ID of the user. */
  readonly userId: string;
  /** ID of the client. */
  readonly clientId: string;
  /** Idempotency key of a refresh that was begun and whose response has not been stored, or null. */
  readonly refreshKey: string | null;
}

/** Return the tokens of a response that has just arrived. */
export function tokensOf(view: models.TokenView): Tokens {
  return {
    accessToken: view.access_token,
    refreshToken: view.refresh_token,
    expiresAt: Date.now() / 1000 + view.expires_in,
    userId: view.user_id,
    clientId: view.client_id,
    refreshKey: null,
  };
}

type Awaitable<Value> = Value | Promise<Value>;

/** Storage for the tokens of one session. A store of your own needs `load` and `save`. */
export interface TokenStore {
  /** Return the tokens, or null if there are none. */
  load(): Awaitable<Tokens | null>;
  /** Replace the tokens durably; null removes them. */
  save(tokens: Tokens | null): Awaitable<void>;
  /**
   * Run an action while no other user of the store runs one. Default: a lock within this process.
   *
   * @param seconds Longest time to wait for the lock.
   * @throws StoreLocked The lock was not released in time.
   */
  lock?<Result>(action: () => Promise<Result>, seconds: number): Promise<Result>;
  /** Call a listener after others, such as other tabs, have changed the tokens. Return the function that ends it. */
  subscribe?(listener: () => void): () => void;
}

/** A lock within this process: actions run one after another. */
export class Mutex {
  #last: Promise<unknown> = Promise.resolve();

  /** Run an action after the earlier ones. */
  async run<Result>(action: () => Promise<Result>, seconds: number): Promise<Result> {
    const before = this.#last;
    let release = (): void => {};
    const mine = new Promise<void>((resolve) => (release = resolve));
    this.#last = before.then(() => mine);
    let timer: ReturnType<typeof setTimeout> | undefined;
    const late = new Promise<never>((_, reject) => {
      timer = setTimeout(() => reject(locked()), seconds * 1000);
    });
    try {
      await Promise.race([before, late]);
      clearTimeout(timer);
      return await action();
    } finally {
      clearTimeout(timer);
      release();
    }
  }
}

/** Return the error of a lock that was not released in time. */
export function locked(): StoreLocked {
  return new StoreLocked("The lock of the token store was not released.");
}

const mutexes = new WeakMap<TokenStore, Mutex>();

/** Run an action with the lock of a store. */
export function withLock<Result>(store: TokenStore, action: () => Promise<Result>, seconds: number): Promise<Result> {
  if (store.lock !== undefined) return store.lock(action, seconds);
  const mutex = mutexes.get(store) ?? new Mutex();
  mutexes.set(store, mutex);
  return mutex.run(action, seconds);
}

/** Token store in memory, for one page or process. */
export class MemoryStore implements TokenStore {
  #tokens: Tokens | null;

  constructor(tokens: Tokens | null = null) {
    this.#tokens = tokens;
  }

  load(): Tokens | null {
    return this.#tokens;
  }

  save(tokens: Tokens | null): void {
    this.#tokens = tokens;
  }
}

const LEASE_SECONDS = 10;
const RENEWAL_SECONDS = 2;
/** Time after which a tab sees what another one has written: in Chromium and others each is a process of its own. */
const SETTLE_MILLISECONDS = 60;

/**
 * Token store of a browser, in `localStorage`, which all tabs of the origin share.
 *
 * Tabs take turns with the Web Locks API. Where it is missing, a lease in `localStorage` takes its place.
 * Scripts of the origin can read the tokens, as they can use any other session that the page has: keep foreign scripts
 * out with a Content-Security-Policy.
 */
export class LocalStorageStore implements TokenStore {
  constructor(
    /** Key in the storage. Apps of one origin need different ones. */
    readonly key = "nest.tokens",
    private readonly storage: () => TextStorage | null = pageStorage,
  ) {}

  /** Return the tokens, or null if there are none that this package has written. */
  load(): Tokens | null {
    const text = this.storage()?.getItem(this.key);
    return text ? readTokens(text) : null;
  }

  save(tokens: Tokens | null): void {
    const storage = this.storage();
    if (storage === null) throw new Error("There is no localStorage: use this store in a browser.");
    if (tokens === null) storage.removeItem(this.key);
    else storage.setItem(this.key, JSON.stringify(tokens));
  }

  async lock<Result>(action: () => Promise<Result>, seconds: number): Promise<Result> {
    const name = `${this.key}.lock`;
    if (globalThis.navigator?.locks === undefined) return this.#lease(name, action, seconds);
    const controller = new AbortController();
    const timer = setTimeout(() => controller.abort(locked()), seconds * 1000);
    return navigator.locks.request(name, { signal: controller.signal }, async () => {
      clearTimeout(timer);
      await pause(SETTLE_MILLISECONDS);
      return action();
    });
  }

  subscribe(listener: () => void): () => void {
    const changed = (event: StorageEvent): void => {
      if (event.key === this.key || event.key === null) listener(); // null: the storage was cleared
    };
    globalThis.addEventListener?.("storage", changed);
    return () => globalThis.removeEventListener?.("storage", changed);
  }

  /** A lease is taken by writing an ID, and held if the ID is still there after others may have written theirs. */
  async #lease<Result>(name: string, action: () => Promise<Result>, seconds: number): Promise<Result> {
    const storage = this.storage();
    if (storage === null) throw new Error("There is no localStorage: use this store in a browser.");
    const id = randomText(12);
    const endsAt = Date.now() + seconds * 1000;
    const holder = (): string | null => {
      const [other, until] = (storage.getItem(name) ?? "").split(" ");
      return other && Number(until) > Date.now() ? other : null;
    };
    const write = (): void => storage.setItem(name, `${id} ${Date.now() + LEASE_SECONDS * 1000}`);
    for (;;) {
      if (holder() === null) {
        write();
        await pause(SETTLE_MILLISECONDS);
        if (holder() === id) break;
      }
      if (Date.now() > endsAt) throw locked();
      await pause(20 + Math.random() * 40);
    }
    const renewal = setInterval(() => holder() === id && write(), RENEWAL_SECONDS * 1000);
    try {
      return await action();
    } finally {
      clearInterval(renewal);
      if (holder() === id) storage.removeItem(name);
    }
  }
}

/** Return the tokens in a text, or null if it has none. */
export function readTokens(text: string): Tokens | null {
  try {
    const kept = JSON.parse(text);
    const texts = [kept.accessToken, kept.refreshToken, kept.userId, kept.clientId];
    return texts.every((each) => typeof each === "string") && typeof kept.expiresAt === "number" ? kept : null;
  } catch {
    return null;
  }
}

function pause(milliseconds: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}
