// Registers a client twice with the generated client. The compiler checks that all error codes are handled.

import createClient from "openapi-fetch";
import type { components, paths } from "./api.js";

declare const process: { argv: string[] };

type Conflict = components["schemas"]["CreateClientExplainedConflictError"];

function explain(error: Conflict): string {
  // @ts-expect-error: not a code of this error
  if (error.code === "client_not_found") return "";
  switch (error.code) {
    case "client_already_exists":
      return `exists already, request ${error.meta.request_id}: ${error.message}`;
    case "idempotency_key_reused":
      return "another body";
    default:
      return error.code satisfies never;
  }
}

const [baseUrl, key] = process.argv.slice(2);
const api = createClient<paths>({ baseUrl, headers: { authorization: `internal ${key}` } });
const body = { id: "client_typescript", name: "TypeScript", redirect_uris: ["https://app.example/"] };

const first = await api.POST("/1/2026-12-01/create_client", { body });
console.log(first.data?.version);
const second = await api.POST("/1/2026-12-01/create_client", { body });
if (second.error !== undefined && second.error.code === "client_already_exists") console.log(explain(second.error));

const link = await api.POST("/1/2026-12-01/send_magic_link", {
  body: {
    client_id: "client_unknown",
    redirect_uri: "https://app.example/",
    state: "state",
    code_challenge_method: "S256",
    code_challenge: "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM",
    identifier_type: "email",
    identifier_value: "ada@example.com",
  },
});
switch (link.error?.code) {
  case "client_not_found":
    console.log("no such client");
    break;
  case "throttled":
    console.log(`wait ${link.error.meta.retry_after} s`);
    break;
  default:
    console.log(link.error?.code);
}
