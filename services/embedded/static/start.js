// Requests a magic link and waits for its mail in the inbox.

import { call, challengeOf, clientId, device, random, redirectUri, storeLogin } from "/dev/static/api.js";

const form = document.getElementById("login");
const outcome = document.getElementById("outcome");
const MAIL_MILLISECONDS = 30_000;
const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

function show(failed, ...nodes) {
  outcome.classList.toggle("bad", failed);
  outcome.replaceChildren(...nodes);
  outcome.hidden = false;
}

function link(href, text) {
  return Object.assign(document.createElement("a"), { href, textContent: text });
}

async function waitForLink(email, state) {
  const until = Date.now() + MAIL_MILLISECONDS;
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
  show(false, "Requesting a link…");
  try {
    storeLogin(state, { verifier, email });
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
    show(false, `Waiting for the mail to ${email}…`);
    const found = await waitForLink(email, state);
    if (found) {
      show(false, "The mail has arrived. ", link("/dev/inbox", "Read it in the inbox"), " or ", link(found, "open its link"), ".");
    } else {
      show(true, "No mail has arrived within 30 seconds. See the output of Nest in its terminal.");
    }
  } catch (error) {
    show(true, `Nest refused the request: ${error.message}.`);
  } finally {
    for (const button of buttons) button.disabled = false;
  }
});
