// Programs that must compile, and mistakes that must not: `tsc --project tests`.
import { Client, errors, LocalStorageStore, type models, type TokenStore } from "@nest/client";
import { FileStore } from "@nest/client/node";
import {
  bearerToken,
  TokenVerifier,
  type UnknownEvent,
  type UserErasedEvent,
  type WebhookEvent,
  WebhookVerifier,
} from "@nest/client/server";
import { bearerToken as honoBearer } from "@nest/client/hono";
import { useCustomerState, useUser } from "@nest/client/react";
import { Hono } from "hono";

const client = new Client("https://nest.example.com", { internalKey: "k", retries: { within: 10 } });
const session = client.session(new LocalStorageStore());
const verifier = new TokenVerifier("https://nest.example.com", ["a", "b"]);

export async function program(): Promise<string | null> {
  const user: models.UserView = await session.getUser();
  const plans = await client.listPlans();
  const made = await client.createClient({ name: "Demo", redirect_uris: ["https://a.example"] }, { idempotencyKey: "k" });
  await client.listAuditEntries({ since: new Date() });
  await session.setMarketingConsent({ level: "none" });
  const nonce: string = await client.phoneInit({ phone_number: "+41 79 123 45 67" });

  // @ts-expect-error -- the user is required without a session
  await client.getUser();
  // @ts-expect-error -- a value that Nest does not know
  await session.setMarketingConsent({ level: "some" });
  // @ts-expect-error -- a field that Nest does not know
  await session.getUser({ user: "x" });
  // @ts-expect-error -- the code or the URL
  await session.finishLogin({ clientId: "", redirectUri: "", state: "", verifier: "" }, {});
  // @ts-expect-error -- a signal is no option of this kind
  await client.listClients({}, { timeout: 1 });

  try {
    await session.refresh();
  } catch (error) {
    if (error instanceof errors.PriceNotFound) return error.code satisfies "price_not_found";
    if (error instanceof errors.NestError) return error.code;
  }
  return `${user.identifiers[0]?.identifier_value} ${plans.plans.length} ${made.id} ${nonce}`;
}

export const stores: TokenStore[] = [
  new FileStore("tokens.json"),
  { load: async () => null, save: async (tokens) => void tokens?.accessToken },
];
export const handler: (request: Request) => Promise<Response> = bearerToken(verifier, (_, claims) => Response.json(claims.userId));
export const app = new Hono().get("/", honoBearer(verifier), (context) => context.text(context.get("claims").userId));

export async function webhooks(): Promise<unknown> {
  const webhook = await new WebhookVerifier("whsec_AAAA").verify("", {});
  // @ts-expect-error -- the fields depend on the type
  webhook.payload.data.user_id;
  switch (webhook.payload.type) {
    case "user.erased":
      return erased(webhook.payload);
    case "payment.refunded":
      // @ts-expect-error -- a field of another type
      webhook.payload.data.failure;
      return webhook.payload.data.amount_refunded satisfies number;
    // @ts-expect-error -- a type that Nest does not know
    case "user.deleted":
      return null;
    case "unknown":
      return webhook.payload.body;
    default:
      return webhook.payload.timestamp satisfies string;
  }
}

export function erased(event: UserErasedEvent): string {
  return event.data.user_id;
}

export const events: (WebhookEvent | UnknownEvent)[] = [
  { type: "consent.changed", timestamp: "", data: { user_id: "", level: "none", source: "" } },
  { type: "unknown", body: { type: "user.deleted" } },
  // @ts-expect-error -- data of another type
  { type: "webhook.test", timestamp: "", data: { user_id: "" } },
  // @ts-expect-error -- an event of an unknown type is in `body`
  { type: "user.deleted", timestamp: "", data: {} },
];
export const Component = (): string => `${useUser().data?.id} ${useCustomerState().data?.features.length}`;
