// A running Nest for tests: `NEST_URL` is the address of `nest up`, `NEST_INTERNAL_KEY` its key.
import { randomBytes } from "node:crypto";

export const NEST = process.env.NEST_URL;
export const CLIENT_ID = process.env.CLIENT_ID;
export const REDIRECT_URI = `${NEST}/dev/callback`;
export const INTERNAL_KEY = process.env.NEST_INTERNAL_KEY;

export function newEmail() {
  return `${randomBytes(8).toString("hex")}@example.com`;
}

/** Return the newest mail to an address, once it has arrived. */
export async function mailTo(email) {
  for (const end = Date.now() + 60_000; Date.now() < end; ) {
    const [mail] = await (await fetch(`${NEST}/dev/inbox.json?to=${encodeURIComponent(email)}`)).json();
    if (mail) return mail;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  throw new Error(`no mail to ${email}`);
}

/** Return the link and the digits of the newest mail to an address. */
export async function codesTo(email) {
  const { text, links } = await mailTo(email);
  return { link: links.find((each) => each.includes("code=")), digits: /^[0-9]{6}$/m.exec(text)[0] };
}
