// Finishes a login as an app would: redeems the code with the verifier that this browser kept.

import { Refused, call, clientId, forgetLogin, keptLogin, redirectUri } from "/dev/static/api.js";

const at = (id) => document.getElementById(id);
const query = new URLSearchParams(location.search);
const [code, state] = [query.get("code"), query.get("state")];

function explain(heading, ...lines) {
  at("heading").textContent = heading;
  at("lead").textContent = "";
  at("problem").replaceChildren(...lines.map((line) => Object.assign(document.createElement("p"), { textContent: line })));
}

async function step(text, work) {
  const item = Object.assign(document.createElement("li"), { textContent: text });
  at("steps").append(item);
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
    at("facts").append(
      Object.assign(document.createElement("dt"), { textContent: name }),
      Object.assign(document.createElement("dd"), { textContent: value }),
    );
  }
}

const pretty = (value) => JSON.stringify(value, null, 2);

async function finish(login) {
  const tokens = await step("Redeemed the code for tokens", () =>
    call("authenticate_user", {
      client_id: clientId,
      grant_type: "authorization_code",
      redirect_uri: redirectUri,
      code,
      code_verifier: login.verifier,
    }));
  forgetLogin(state);
  const user = await step("Read the user with the access token", () =>
    call("get_user", { user_id: tokens.user_id }, tokens.access_token));
  const subscription = await step("Asked for the subscription", () =>
    call("get_subscription_status", { user_id: tokens.user_id }, tokens.access_token).catch((error) => {
      if (error instanceof Refused && error.message === "no_active_subscription") return error.body;
      throw error;
    }));

  const [header, claims] = decoded(tokens.access_token);
  at("heading").textContent = `You are logged in as ${login.email}`;
  at("lead").textContent = "The code is used up now: opening the link once more is refused.";
  facts([
    ["user", tokens.user_id],
    ["logged in", new Date(claims.iat * 1000).toLocaleString()],
    ["access until", new Date(tokens.expires_at).toLocaleString()],
    ["refresh token", `${tokens.refresh_token.slice(0, 16)}…`],
    ["subscription", subscription.status ?? "none active"],
  ]);
  at("token").textContent = pretty({ header, claims });
  at("user").textContent = pretty(user);
  at("subscription").textContent = pretty(subscription);
  at("result").hidden = false;
}

const login = state && keptLogin(state);
// The code leaves the address bar and the history before anything else.
if (code) history.replaceState(null, "", "/dev/callback");

if (!code) {
  at("progress").hidden = true;
  explain("No login is under way", "Ask for a magic link on the start page, then open the link of its mail.");
} else if (!login) {
  at("progress").hidden = true;
  explain(
    "This login was begun elsewhere",
    "Only the browser or the program that asked for this link holds the verifier that finishes it. For one begun with curl, the code is:",
    code,
  );
} else {
  finish(login).catch((error) => explain("The login did not finish", `Nest refused it: ${error.message}.`));
}
