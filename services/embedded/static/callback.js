// Completes a login as an app would: redeems the authorization code with the stored verifier.

import { Refused, call, clientId, redirectUri, storeLogin, storedLogin } from "./api.js";

const element = (id) => document.getElementById(id);
const query = new URLSearchParams(location.search);
const [code, state] = [query.get("code"), query.get("state")];

function explain(heading, ...lines) {
  element("heading").textContent = heading;
  element("introduction").textContent = "";
  element("problem").replaceChildren(...lines.map((line) => Object.assign(document.createElement("p"), { textContent: line })));
}

async function step(text, work) {
  const item = Object.assign(document.createElement("li"), { textContent: text });
  element("steps").append(item);
  try {
    const result = await work();
    item.className = "done";
    return result;
  } catch (error) {
    item.className = "failed";
    item.textContent = `${text}: ${error.message}`;
    throw error;
  }
}

function decoded(token) {
  return token.split(".").slice(0, 2).map((part) => {
    const bytes = Uint8Array.from(atob(part.replaceAll("-", "+").replaceAll("_", "/")), (c) => c.charCodeAt(0));
    return JSON.parse(new TextDecoder().decode(bytes));
  });
}

function facts(pairs) {
  for (const [name, value] of pairs) {
    element("facts").append(
      Object.assign(document.createElement("dt"), { textContent: name }),
      Object.assign(document.createElement("dd"), { textContent: value }),
    );
  }
}

const pretty = (value) => JSON.stringify(value, null, 2);

async function complete(login) {
  const tokens = await step("Redeemed the code for tokens", () =>
    call("authenticate_user", {
      client_id: clientId,
      grant_type: "authorization_code",
      redirect_uri: redirectUri,
      code,
      code_verifier: login.verifier,
    }));
  storeLogin(state, { email: login.email, used: true });
  // The reference sends requests with this token, from this tab.
  sessionStorage.setItem("nest-reference-token", tokens.access_token);
  const user = await step("Read the user with the access token", () =>
    call("get_user", { user_id: tokens.user_id }, tokens.access_token));
  const subscription = await step("Read the subscription", () =>
    call("get_subscription_status", { user_id: tokens.user_id }, tokens.access_token).catch((error) => {
      if (error instanceof Refused && error.message === "no_active_subscription") return error.body;
      throw error;
    }));

  const [header, claims] = decoded(tokens.access_token);
  element("heading").textContent = `You are logged in as ${login.email}`;
  element("introduction").textContent = "The code is used: Nest refuses the link if you open it again.";
  facts([
    ["user", tokens.user_id],
    ["logged in", new Date(claims.iat * 1000).toLocaleString()],
    ["access until", new Date(tokens.expires_at).toLocaleString()],
    ["refresh token", `${tokens.refresh_token.slice(0, 16)}…`],
    ["subscription", subscription.status ?? "none active"],
  ]);
  element("token").textContent = pretty({ header, claims });
  element("user").textContent = pretty(user);
  element("subscription").textContent = pretty(subscription);
  element("result").hidden = false;
  element("next").hidden = false;
}

/** Heading and text for the refusals that a person can cause by the way the link was opened. */
const REFUSALS = {
  token_used: ["This link was already used", "A link logs in once."],
  authorization_not_found: ["This link was replaced", "A newer link has logged this address in."],
  token_expired: ["This link has expired", "A link works for some minutes."],
  token_not_found: ["This link is not complete", "A part of it is missing. Open it as a whole."],
};

function explainRefusal(code) {
  element("progress").hidden = true;
  explain(...(REFUSALS[code] ?? ["The login failed", `Nest refused it: ${code}.`]));
  element("another").hidden = false;
}

const login = state && storedLogin(state);
// First remove the code from the address bar and the history.
if (code) history.replaceState(null, "", "/dev/callback");

if (!code) {
  element("progress").hidden = true;
  explain("No login in progress", "Request a magic link on the start page, then open the link in the mail.");
} else if (!login) {
  element("progress").hidden = true;
  explain(
    "This login was started elsewhere",
    "Only the browser or program that requested this link has the verifier that completes the login. For a request by curl, the code is:",
    code,
  );
} else if (login.used) {
  explainRefusal("token_used");
} else {
  complete(login).catch((error) => explainRefusal(error.message));
}
