// Verify an access token with jose, as a resource server does, and print its user.
//
// Usage: node verify_with_jose.mjs ISSUER CLIENT_ID TOKEN
import { webcrypto } from "node:crypto";

// Node.js 18 has Web Cryptography, but not as a global.
globalThis.crypto ??= webcrypto;
const { createRemoteJWKSet, decodeProtectedHeader, jwtVerify } = await import("jose");

const [issuer, audience, token] = process.argv.slice(2);
const metadata = await (await fetch(`${issuer}/.well-known/openid-configuration`)).json();
const { typ } = decodeProtectedHeader(token);
const { payload } = await jwtVerify(token, createRemoteJWKSet(new URL(metadata.jwks_uri)), {
  algorithms: metadata.id_token_signing_alg_values_supported,
  issuer,
  audience,
  typ,
  requiredClaims: ["sub", "jti", "iat", "exp", ...(typ === "at+jwt" ? ["client_id"] : [])],
});
console.log(payload.sub);
