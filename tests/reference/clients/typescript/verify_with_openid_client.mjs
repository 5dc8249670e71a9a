// Discover Nest with openid-client, use an access token, verify it if it is of RFC 9068, and print its user.
//
// Usage: node verify_with_openid_client.mjs ISSUER CLIENT_ID TOKEN
import { webcrypto } from "node:crypto";

// Node.js 18 has Web Cryptography, but not as a global.
globalThis.crypto ??= webcrypto;
const { allowInsecureRequests: insecure, validateJwtAccessToken } = await import("oauth4webapi");
const { allowInsecureRequests, discovery, fetchProtectedResource, None } = await import("openid-client");

const [issuer, clientId, token] = process.argv.slice(2);
const part = (index) => JSON.parse(Buffer.from(token.split(".")[index], "base64url"));
for (const algorithm of ["oidc", "oauth2"]) {
  const options = { algorithm, execute: [allowInsecureRequests] };
  const configuration = await discovery(new URL(issuer), clientId, undefined, None(), options);
  const server = configuration.serverMetadata();
  if (!server.supportsPKCE()) throw new Error("no PKCE");
  const user = part(1).sub;
  const response = await fetchProtectedResource(
    configuration,
    token,
    new URL(`${issuer}/1/2021-10-06/get_user`),
    "POST",
    JSON.stringify({ user_id: user }),
  );
  if (!response.ok) throw new Error(`refused: ${response.status}`);
  let verified = (await response.json()).id;
  if (part(0).typ === "at+jwt") {
    const request = new Request(issuer, { headers: { authorization: `Bearer ${token}` } });
    verified = (await validateJwtAccessToken(server, request, clientId, { [insecure]: true })).sub;
  }
  if (algorithm === "oauth2") console.log(verified);
}
