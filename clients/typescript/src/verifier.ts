/** Verification of access tokens by servers, with the public keys of a Nest and without a call for each token. */
import { subtle } from "./bytes.js"; // before jose, which needs Web Cryptography as a global
import { decodeProtectedHeader, errors, importJWK, type JWK, type JWTPayload, jwtVerify, type ProtectedHeaderParameters } from "jose";

/** Age of the keys in seconds at which they are read again. Nest publishes a key for longer than that before it signs. */
const RELOAD_SECONDS = 300;
/** Shortest time between two reads because of an unknown key, so that forged tokens cause few. */
const UNKNOWN_KEY_SECONDS = 5;
/** Age up to which keys are used while they cannot be read again. */
const STALE_SECONDS = 3600;
const READ_SECONDS = 5;
const ALGORITHMS: ReadonlySet<unknown> = new Set(["ES256", "ES512", "EdDSA"]);
/** `typ` of access tokens. Tokens of other types are signed with the same keys (RFC 8725 section 3.11). */
const TYPES: ReadonlySet<string> = new Set(["jwt", "at+jwt", "application/jwt", "application/at+jwt"]);
const LONGEST_TOKEN = 16_384;

/** The token is not a valid access token for this audience. */
export class InvalidToken extends Error {
  override readonly name = "InvalidToken";

  constructor(
    message: string,
    /** Whether the only reason is that the token has expired. */
    readonly expired = false,
  ) {
    super(message);
  }
}

/** The public keys could not be read from Nest. */
export class KeysUnavailable extends Error {
  override readonly name = "KeysUnavailable";
}

/** Claims of a valid access token. */
export interface Claims {
  /** `sub`. */
  readonly userId: string;
  /** `aud`. */
  readonly clientId: string;
  /** `jti`, or an empty string. */
  readonly tokenId: string;
  /** `exp` in Unix seconds. */
  readonly expiresAt: number;
  /** `ent`: keys of the user's features; null if the token has none, which does not mean no feature. */
  readonly features: ReadonlySet<string> | null;
  /** `ent_v`; the higher of two is newer. Null if the token has none. */
  readonly featuresVersion: number | null;
  /** All claims. */
  readonly raw: Readonly<JWTPayload>;
}

/** Options of a token verifier. */
export interface TokenVerifierOptions {
  /** Address to read the keys from, if it is not the issuer. */
  url?: string;
  /** Seconds for which an expired token is accepted. Default: 0. */
  leeway?: number;
  /** Function that reads the keys. Default: the runtime's `fetch`. */
  fetch?: typeof fetch;
  /** Seconds that only grow, for tests. */
  clock?: () => number;
}

interface Key {
  algorithm: string;
  key: Awaited<ReturnType<typeof importJWK>>;
}

/**
 * Verifier of access tokens, for any number of concurrent calls.
 *
 * It checks `typ`, `alg`, the signature, `iss`, `aud` and `exp`. Tokens that were revoked stay valid here until they
 * expire, within an hour.
 */
export class TokenVerifier {
  readonly #issuer: string;
  readonly #audiences: string[];
  readonly #url: string;
  readonly #leeway: number;
  readonly #fetch: typeof fetch;
  readonly #clock: () => number;
  #keys = new Map<string, Key>();
  #readAt = -STALE_SECONDS;
  #triedAt = -STALE_SECONDS;
  #reading: Promise<void> | null = null;

  /**
   * @param issuer `NEST_ISSUER` of the Nest, character by character.
   * @param audience ID of your client, or of several.
   */
  constructor(issuer: string, audience: string | readonly string[], options: TokenVerifierOptions = {}) {
    this.#issuer = issuer;
    this.#audiences = typeof audience === "string" ? [audience] : [...audience];
    if (this.#audiences.length === 0 || !this.#audiences.every((each) => typeof each === "string" && each !== "")) {
      throw new TypeError("`audience` is the ID of at least one client.");
    }
    this.#url = `${(options.url ?? issuer).replace(/\/+$/, "")}/.well-known/jwks.json`;
    this.#leeway = options.leeway ?? 0;
    this.#fetch = options.fetch ?? ((...request) => globalThis.fetch(...request));
    this.#clock = options.clock ?? (() => performance.now() / 1000);
  }

  /**
   * Return the claims of an access token.
   *
   * @throws InvalidToken The token is not valid here.
   * @throws KeysUnavailable The keys could not be read from Nest.
   */
  async verify(token: string): Promise<Claims> {
    subtle();
    const kid = keyIdOf(token);
    const key = this.#fresh(kid) ?? (await this.#afterRead(kid));
    let claims: JWTPayload;
    try {
      const { payload } = await jwtVerify(token, key.key, {
        algorithms: [key.algorithm], // the key's, not the token's (RFC 8725 section 3.1)
        issuer: this.#issuer,
        audience: this.#audiences,
        clockTolerance: this.#leeway,
        requiredClaims: ["exp", "iss", "aud", "sub"],
      });
      claims = payload;
    } catch (error) {
      if (error instanceof errors.JWTExpired) throw new InvalidToken("The token has expired.", true);
      if (error instanceof errors.JOSEError) throw new InvalidToken(`The token is invalid: ${error.code}.`);
      throw error;
    }
    return this.#claimsOf(claims);
  }

  #claimsOf(claims: JWTPayload): Claims {
    const { sub, aud, exp, jti, ent, ent_v: version } = claims;
    if (typeof sub !== "string" || typeof exp !== "number") throw new InvalidToken("The token has no user.");
    const audience = [aud].flat().find((each) => each !== undefined && this.#audiences.includes(each));
    return {
      userId: sub,
      clientId: audience ?? "",
      tokenId: typeof jti === "string" ? jti : "",
      expiresAt: exp,
      features: Array.isArray(ent) ? new Set(ent.map(String)) : null,
      featuresVersion: typeof version === "number" ? version : null,
      raw: claims,
    };
  }

  /** Return the key if it may be used without another read. */
  #fresh(kid: string): Key | undefined {
    return this.#clock() - this.#readAt < RELOAD_SECONDS ? this.#keys.get(kid) : undefined;
  }

  async #afterRead(kid: string): Promise<Key> {
    if (this.#reading === null && this.#clock() - this.#triedAt >= UNKNOWN_KEY_SECONDS) {
      this.#triedAt = this.#clock();
      this.#reading = this.#read().finally(() => (this.#reading = null));
    }
    await this.#reading; // one read for all who wait
    if (this.#clock() - this.#readAt >= STALE_SECONDS) {
      throw new KeysUnavailable("The public keys could not be read from Nest.");
    }
    const key = this.#keys.get(kid);
    if (key === undefined) throw new InvalidToken("Nest has no key of this ID.");
    return key;
  }

  /** Read the keys. The keys of the last read stay if there is no response, or one that is no key set. */
  async #read(): Promise<void> {
    const controller = new AbortController();
    const timer = setTimeout(() => controller.abort(), READ_SECONDS * 1000);
    try {
      const response = await this.#fetch(this.#url, { signal: controller.signal });
      if (!response.ok) return;
      const { keys } = (await response.json()) as { keys: JWK[] };
      const usable = keys.filter((each) => ALGORITHMS.has(each.alg) && (each.use ?? "sig") === "sig" && each.kid);
      const imported = usable.map(async (each): Promise<[string, Key]> => {
        return [String(each.kid), { algorithm: String(each.alg), key: await importJWK(each) }];
      });
      this.#keys = new Map(await Promise.all(imported));
      this.#readAt = this.#clock();
    } catch {
      return; // `#afterRead` says whether the keys of the last read can be used
    } finally {
      clearTimeout(timer);
    }
  }
}

/** Return the key ID of a token whose header is acceptable. */
function keyIdOf(token: string): string {
  if (token.length > LONGEST_TOKEN) throw new InvalidToken("The token is too long.");
  let header: ProtectedHeaderParameters;
  try {
    header = decodeProtectedHeader(token);
  } catch {
    throw new InvalidToken("The token is not a JWT.");
  }
  if (!TYPES.has(String(header.typ).toLowerCase())) throw new InvalidToken("The token is not an access token.");
  if (!ALGORITHMS.has(header.alg) || "crit" in header) throw new InvalidToken("The token is not signed as Nest signs.");
  if (typeof header.kid !== "string" || header.kid === "") throw new InvalidToken("The token names no key.");
  return header.kid;
}
