// Asks for a magic link and waits for its mail to arrive in the inbox.

import { call, challengeOf, clientId, device, keepLogin, random, redirectUri } from "/dev/static/api.js";

const form = document.getElementById("login");
const outcome = document.getElementById("outcome");
const PATIENCE = 30_000;
const pause = (milliseconds) => new Promise((go) => setTimeout(go, milliseconds));

function show(bad, ...nodes) {
  outcome.classList.toggle("bad", bad);
  outcome.replaceChildren(...nodes);
  outcome.hidden = false;
}

function link(href, text, className = "") {
  const made = document.createElement("a");
  Object.assign(made, { href, textContent: text, className });
  return made;
}

async function arrived(email, state) {
  const until = Date.now() + PATIENCE;
  while (Date.now() < until) {
    const mails = await (await fetch(`/dev/inbox.json?to=${encodeURIComponent(email)}`)).json();
    const found = mails.flatMap((mail) => mail.links).find((each) => each.includes(`state=${state}`));
    if (found) return found;
    await pause(250);
  }
  return null;
}

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const method = event.submitter.value;
  const email = form.email.value.trim();
  const [verifier, state] = [random(32), random(12)];
  const buttons = [...form.querySelectorAll("button")];
  for (const button of buttons) button.disabled = true;
  show(false, "Asking for a link…");
  try {
    keepLogin(state, { verifier, email });
    await call(method, {
      client_id: clientId,
      redirect_uri: redirectUri,
      state,
      code_challenge_method: "S256",
      code_challenge: await challengeOf(verifier),
      identifier_type: "email",
      identifier_value: email,
      device: device(),
    });
    show(false, `A mail to ${email} is on its way…`);
    const found = await arrived(email, state);
    if (found) {
      show(false, "The mail has arrived. ", link("/dev/inbox", "Read it in the inbox"), " or ", link(found, "open its link"), ".");
    } else {
      show(true, "No mail has come in half a minute; the terminal that runs Nest may say why.");
    }
  } catch (error) {
    show(true, `That was refused: ${error.message}.`);
  } finally {
    for (const button of buttons) button.disabled = false;
  }
});
