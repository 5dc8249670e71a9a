/** Middleware of Hono. */
import type { MiddlewareHandler } from "hono";
import { type BearerOptions, bodyOf, checkBearer } from "./bearer.js";
import type { Claims, TokenVerifier } from "./verifier.js";

/**
 * Return middleware that requires an access token and sets its claims: `context.get("claims")`.
 *
 * A request without a valid token gets 401, one without the feature 403, and 503 if the keys of Nest cannot be read.
 */
export function bearerToken(
  verifier: TokenVerifier,
  options: BearerOptions = {},
): MiddlewareHandler<{ Variables: { claims: Claims } }> {
  return async (context, next) => {
    const { claims, refusal } = await checkBearer(verifier, context.req.header("authorization"), options);
    if (refusal) return context.newResponse(bodyOf(refusal), refusal.status, refusal.headers);
    context.set("claims", claims);
    return next();
  };
}
