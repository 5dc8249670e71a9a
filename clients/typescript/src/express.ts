/** Middleware of Express, and of every other framework with `(request, response, next)`. */
import { type BearerOptions, bodyOf, checkBearer } from "./bearer.js";
import type { Claims, TokenVerifier } from "./verifier.js";

declare global {
  namespace Express {
    interface Request {
      /** Claims of the access token, on routes with `bearerToken`. */
      claims?: Claims;
    }
  }
}

interface Incoming {
  headers: { authorization?: string | undefined };
  claims?: Claims;
}

interface Outgoing {
  statusCode: number;
  setHeader(name: string, value: string): unknown;
  end(body: string): unknown;
}

/**
 * Return middleware that requires an access token and puts its claims into `request.claims`.
 *
 * A request without a valid token gets 401, one without the feature 403, and 503 if the keys of Nest cannot be read.
 */
export function bearerToken(
  verifier: TokenVerifier,
  options: BearerOptions = {},
): (request: Incoming, response: Outgoing, next: (error?: unknown) => void) => Promise<void> {
  return async (request, response, next) => {
    try {
      const { claims, refusal } = await checkBearer(verifier, request.headers.authorization, options);
      if (refusal) {
        response.statusCode = refusal.status;
        for (const [name, value] of Object.entries(refusal.headers)) response.setHeader(name, value);
        response.end(bodyOf(refusal));
        return;
      }
      request.claims = claims;
    } catch (error) {
      next(error);
      return;
    }
    next();
  };
}
