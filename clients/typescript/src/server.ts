/** For back ends: verification of access tokens and of webhooks, in every runtime with Web Cryptography. */
import { type BearerOptions, bodyOf, checkBearer } from "./bearer.js";
import type { Claims, TokenVerifier } from "./verifier.js";

export { type BearerOptions, checkBearer, type Refusal } from "./bearer.js";
export { type Claims, InvalidToken, KeysUnavailable, TokenVerifier, type TokenVerifierOptions } from "./verifier.js";
export * from "./webhook-events.js";
export {
  InvalidWebhook,
  type UnknownEvent,
  type Webhook,
  type WebhookHeaders,
  WebhookVerifier,
  type WebhookVerifierOptions,
} from "./webhooks.js";

/**
 * Return a handler of `fetch` requests that requires an access token, as in Workers, Deno, Bun and Next.js.
 *
 * A request without a valid token gets 401, one without the feature 403, and 503 if the keys of Nest cannot be read.
 */
export function bearerToken<Rest extends unknown[]>(
  verifier: TokenVerifier,
  handler: (request: Request, claims: Claims, ...rest: Rest) => Response | Promise<Response>,
  options: BearerOptions = {},
): (request: Request, ...rest: Rest) => Promise<Response> {
  return async (request, ...rest) => {
    const { claims, refusal } = await checkBearer(verifier, request.headers.get("authorization"), options);
    if (refusal) return new Response(bodyOf(refusal), { status: refusal.status, headers: refusal.headers });
    return handler(request, claims, ...rest);
  };
}
