// How do these pages call Nest, and what do they keep between asking for a link and opening it?

const { clientId, redirectUri } = document.body.dataset;
export { clientId, redirectUri };

const HOUR = 3_600_000;

export class Refused extends Error {
  constructor(status, body) {
    const wait = body?.code === "throttled" ? `, there is room again in ${body.meta.retry_after} seconds` : "";
    super((body?.code ?? `status ${status}`) + wait);
    this.status = status;
    this.body = body;
  }
}

/** Calls a method of the RPC API; gives its JSON, or null where it has none. Throws Refused. */
export async function call(method, body, accessToken) {
  const headers = { "content-type": "application/json" };
  if (accessToken) headers.authorization = `bearer ${accessToken}`;
  const answer = await fetch(`/1/2021-10-06/${method}`, { method: "POST", headers, body: JSON.stringify(body) });
  const text = await answer.text();
  const json = text ? JSON.parse(text) : null;
  if (!answer.ok) throw new Refused(answer.status, json);
  return json;
}

export function webSafe(bytes) {
  const base64 = btoa(String.fromCharCode(...bytes));
  return base64.replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}

export function random(count) {
  return webSafe(crypto.getRandomValues(new Uint8Array(count)));
}

/** RFC 7636: the verifier stays in this browser, its SHA-256 goes out. */
export async function challengeOf(verifier) {
  const hash = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(verifier));
  return webSafe(new Uint8Array(hash));
}

// localStorage, not sessionStorage: the link in a mail opens another tab.
export function keepLogin(state, login) {
  for (const key of Object.keys(localStorage).filter((name) => name.startsWith("nest.login."))) {
    if (Date.now() - JSON.parse(localStorage[key]).at > HOUR) localStorage.removeItem(key);
  }
  localStorage.setItem(`nest.login.${state}`, JSON.stringify({ ...login, at: Date.now() }));
}

export function keptLogin(state) {
  return JSON.parse(localStorage.getItem(`nest.login.${state}`) ?? "null");
}

export function forgetLogin(state) {
  localStorage.removeItem(`nest.login.${state}`);
}

/** What an app would know of its device; made up once for this browser. */
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
