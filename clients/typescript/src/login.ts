/** Login by magic link with PKCE (RFC 7636), as values. */
import { hmacKey, randomText, subtle, toBase64Url, toBytes } from "./bytes.js";
import { StateMismatch } from "./errors.js";
import type * as models from "./models.js";

/**
 * A login whose mail was ordered, a JSON object. Keep it where only the ordering device can read it, until the login is
 * finished: in a browser with `PendingLogins`, on a server in the person's web session.
 */
export interface PendingLogin {
  /** ID of the client. */
  readonly clientId: string;
  /** Target of the link in the mail. */
  readonly redirectUri: string;
  /** Value that the redirect returns. */
  readonly state: string;
  /** PKCE verifier, a secret. */
  readonly verifier: string;
}

/** What finishes a login: the URL of the redirect, or the code that the person typed. */
export type LoginAnswer = { url: string | URL; code?: undefined } | { code: string; url?: undefined };

/** Return a login with a random state and a random verifier. */
export function newLogin(clientId: string, redirectUri: string): PendingLogin {
  return { clientId, redirectUri, state: randomText(32), verifier: randomText(48) };
}

/** Return the fields of `send_magic_link` for an address. */
export async function orderOf(pending: PendingLogin, email: string): Promise<models.SendMagicLinkAndCode> {
  const digest = await subtle().digest("SHA-256", toBytes(pending.verifier));
  return {
    client_id: pending.clientId,
    redirect_uri: pending.redirectUri,
    state: pending.state,
    code_challenge_method: "S256",
    code_challenge: toBase64Url(new Uint8Array(digest)),
    identifier_type: "email",
    identifier_value: email,
  };
}

/**
 * Return the code in the URL of the redirect.
 *
 * @throws StateMismatch The URL is not of this login, so somebody else may have made it (RFC 6749 section 10.12).
 */
export function codeIn(pending: PendingLogin, url: string | URL): string {
  const query = new URL(url, pending.redirectUri).searchParams;
  // The redirect URI's own query comes first and may have parameters of the same names.
  if (query.getAll("state").at(-1) !== pending.state) {
    throw new StateMismatch("The redirect is not of this login: order a new magic link.");
  }
  const code = query.getAll("code").at(-1);
  if (!code) throw new StateMismatch("The redirect has no code: order a new magic link.");
  return code;
}

/** Return the fields of `authenticate_user` for the URL of the redirect, or for the typed code. */
export function redemptionOf(pending: PendingLogin, answer: LoginAnswer): models.RedeemGrant & { code: string } {
  return {
    client_id: pending.clientId,
    grant_type: "authorization_code",
    redirect_uri: pending.redirectUri,
    code: answer.url === undefined ? answer.code : codeIn(pending, answer.url),
    code_verifier: pending.verifier,
  };
}

/** Return the idempotency key of a redemption: a repeat after a lost response gets the same tokens. */
export async function keyOf(pending: PendingLogin, code: string): Promise<string> {
  const key = await hmacKey(toBytes(pending.verifier));
  const mac = new Uint8Array(await subtle().sign("HMAC", key, toBytes(code)));
  return Array.from(mac, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Part of `Storage` that this package uses. */
export type TextStorage = Pick<Storage, "getItem" | "setItem" | "removeItem">;

/** Return the page's `localStorage`, or null outside of browsers. */
export function pageStorage(): TextStorage | null {
  return typeof window === "undefined" ? null : window.localStorage;
}

const KEPT_LOGINS = 5;

/**
 * Pending logins of a browser, in `localStorage`: the link in the mail opens another tab, which finishes the login. It
 * keeps the newest five.
 */
export class PendingLogins {
  constructor(
    /** Key in the storage. */
    readonly key = "nest.logins",
    private readonly storage: () => TextStorage | null = pageStorage,
  ) {}

  /** Keep a login. */
  add(pending: PendingLogin): void {
    this.#save([...this.#load(), pending].slice(-KEPT_LOGINS));
  }

  /** Return the login whose redirect a URL is, or null. */
  find(url: string | URL): PendingLogin | null {
    const state = new URL(url).searchParams.getAll("state").at(-1);
    return this.#load().find((each) => each.state === state) ?? null;
  }

  /** Return the newest login, whose code the person may type, or null. */
  newest(): PendingLogin | null {
    return this.#load().at(-1) ?? null;
  }

  /** Forget all logins, after one of them is finished. */
  clear(): void {
    this.storage()?.removeItem(this.key);
  }

  #save(logins: PendingLogin[]): void {
    this.storage()?.setItem(this.key, JSON.stringify(logins));
  }

  #load(): PendingLogin[] {
    try {
      const kept: unknown = JSON.parse(this.storage()?.getItem(this.key) ?? "[]");
      return Array.isArray(kept) ? kept : [];
    } catch {
      return []; // not of this package: the next login replaces it
    }
  }
}
