// Requests a magic link and waits for its mail in the inbox.

import { call, challengeOf, clientId, device, random, redirectUri, storeLogin } from "./api.js";
import { enableCopying } from "./copy.js";

const form = document.getElementById("login");
const outcome = document.getElementById("outcome");
const MAIL_SECONDS = 30;

function show(failed, ...nodes) {
  outcome.classList.toggle("bad", failed);
  outcome.replaceChildren(...nodes);
  outcome.hidden = false;
}

function link(href, text) {
  return Object.assign(document.createElement("a"), { href, textContent: text });
}

/** Wait for the mail with this state; return null if there is none after 30 seconds. */
async function waitForMail(email, state) {
  const query = new URLSearchParams({ to: email, search: state, wait: MAIL_SECONDS });
  const [mail] = await (await fetch(`/dev/inbox.json?${query}`)).json();
  return mail && { page: `/dev/inbox?mail=${mail.id}`, link: mail.links.find((each) => each.includes(`state=${state}`)) };
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
    const found = await waitForMail(email, state);
    if (found) {
      show(false, "The mail has arrived. ", link(found.page, "Read it in the inbox"), " or ", link(found.link, "open its link"), ".");
    } else {
      show(true, "No mail has arrived within 30 seconds. See the output of Nest in its terminal.");
    }
  } catch (error) {
    show(true, `Nest refused the request: ${error.message}.`);
  } finally {
    for (const button of buttons) button.disabled = false;
  }
});

enableCopying();
