// Calls of Nest's API, and the data that a login stores in the browser until its link is opened.

const { clientId, redirectUri } = document.body.dataset;
export { clientId, redirectUri };

const HOUR = 3_600_000;

export class Refused extends Error {
  constructor(status, body) {
    const wait = body?.code === "throttled" ? `, try again in ${body.meta.retry_after} seconds` : "";
    super((body?.code ?? `status ${status}`) + wait);
    this.status = status;
    this.body = body;
  }
}

/** Call a method and return its result, or null if it has none. Throws Refused. */
export async function call(method, body, accessToken) {
  const headers = { "content-type": "application/json" };
  if (accessToken) headers.authorization = `bearer ${accessToken}`;
  const response = await fetch(`/1/2021-10-06/${method}`, { method: "POST", headers, body: JSON.stringify(body) });
  const text = await response.text();
  const json = text ? JSON.parse(text) : null;
  if (!response.ok) throw new Refused(response.status, json);
  return json;
}

export function base64url(bytes) {
  const base64 = btoa(String.fromCharCode(...bytes));
  return base64.replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}

export function random(count) {
  return base64url(crypto.getRandomValues(new Uint8Array(count)));
}

/** Return the SHA-256 of a verifier, which itself stays in this browser (RFC 7636). */
export async function challengeOf(verifier) {
  const hash = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(verifier));
  return base64url(new Uint8Array(hash));
}

// localStorage instead of sessionStorage, because the link in a mail opens another tab.
export function storeLogin(state, login) {
  for (const key of Object.keys(localStorage).filter((name) => name.startsWith("nest.login."))) {
    if (Date.now() - JSON.parse(localStorage[key]).at > HOUR) localStorage.removeItem(key);
  }
  localStorage.setItem(`nest.login.${state}`, JSON.stringify({ ...login, at: Date.now() }));
}

export function storedLogin(state) {
  return JSON.parse(localStorage.getItem(`nest.login.${state}`) ?? "null");
}

/** Return a device as an app would send it, generated once for this browser. */
export function device() {
  let known = JSON.parse(localStorage.getItem("nest.device") ?? "null");
  if (!known) {
    const system = navigator.userAgent;
    const platform = system.includes("Mac") ? "mac" : system.includes("Windows") ? "windows" : "linux";
    known = { platform, beak_id: random(12), fingerprint: random(24) };
    localStorage.setItem("nest.device", JSON.stringify(known));
  }
  return known;
}
