/** Check of a request's bearer token, for the middleware of frameworks. */
import { type Claims, InvalidToken, KeysUnavailable, type TokenVerifier } from "./verifier.js";

/** Options of a check. */
export interface BearerOptions {
  /** Key of a feature that the user must have in the claim `ent`; without it 403. */
  feature?: string;
}

/** Refusal of a request, for the response. */
export interface Refusal {
  readonly status: 401 | 403 | 503;
  readonly headers: Readonly<Record<string, string>>;
  readonly message: string;
}

/**
 * Return the claims of a request's bearer token, or the refusal of the request.
 *
 * A request without a token gets 401, one with an invalid token 401 with `error="invalid_token"` (RFC 6750), and 503 if
 * the keys of Nest cannot be read.
 */
export async function checkBearer(
  verifier: TokenVerifier,
  authorization: string | null | undefined,
  options: BearerOptions = {},
): Promise<{ claims: Claims; refusal?: undefined } | { claims?: undefined; refusal: Refusal }> {
  const token = /^bearer +([^\s,]+) *$/i.exec(authorization ?? "")?.[1];
  if (token === undefined) return refused(401, "An access token is required.", { "www-authenticate": "Bearer" });
  let claims: Claims;
  try {
    claims = await verifier.verify(token);
  } catch (error) {
    if (error instanceof InvalidToken) {
      return refused(401, error.message, { "www-authenticate": 'Bearer error="invalid_token"' });
    }
    if (error instanceof KeysUnavailable) return refused(503, error.message, { "retry-after": "5" });
    throw error;
  }
  if (options.feature !== undefined && !claims.features?.has(options.feature)) {
    return refused(403, `The feature ${options.feature} is required.`, {});
  }
  return { claims };
}

function refused(status: Refusal["status"], message: string, headers: Record<string, string>): { refusal: Refusal } {
  return { refusal: { status, message, headers: { "content-type": "application/json", ...headers } } };
}

/** Return the body of a refusal. */
export function bodyOf(refusal: Refusal): string {
  return JSON.stringify({ detail: refusal.message });
}
