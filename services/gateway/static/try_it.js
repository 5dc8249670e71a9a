// Requests from the page to this Nest, with the caller's token. The token is in this tab's session storage and in the
// header `authorization` of these requests, and nowhere else: the page's policy allows requests to this Nest alone.

import { addCopy, element } from "./reference.js";

const CREDENTIALS = { bearer: "nest-reference-token", internal: "nest-reference-key" };
const TIMEOUT_MILLISECONDS = 60_000;

function credential(scheme) {
  return (sessionStorage.getItem(CREDENTIALS[scheme === "internal" ? "internal" : "bearer"]) ?? "").trim();
}

/** The value of the header for the first scheme that the person has given, or null. */
function authorization(schemes) {
  for (const scheme of ["bearer", "owner", "internal"].filter((each) => schemes.includes(each))) {
    const value = credential(scheme);
    if (value) return `${scheme === "internal" ? "internal" : "bearer"} ${value}`;
  }
  return null;
}

// The panel of credentials

function addCredentials(place) {
  const field = (scheme, label, hint) => {
    const input = element("input", { id: `credential-${scheme}`, type: "password", autocomplete: "off", spellcheck: false, value: credential(scheme) });
    input.addEventListener("input", () => {
      if (input.value.trim()) sessionStorage.setItem(CREDENTIALS[scheme], input.value.trim());
      else sessionStorage.removeItem(CREDENTIALS[scheme]);
    });
    return element("div", { className: "grow" }, element("label", { htmlFor: input.id }, label), input, element("p", { className: "hint" }, hint));
  };
  const forget = element("button", { type: "reset", className: "quiet small" }, "Forget both");
  const form = element(
    "form",
    {},
    element(
      "div",
      { className: "row" },
      field("bearer", "Access token", "Of a user, from authenticate_user. On a development machine, a login on the start page fills it in."),
      field("internal", "Internal key", "Of an operator or a back end.")
    ),
    element("p", { className: "hint" }, "They stay in this tab, and go only to this Nest, with the requests that you send below."),
    element("div", { className: "actions" }, forget)
  );
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", (event) => {
    event.preventDefault();
    for (const [scheme, name] of Object.entries(CREDENTIALS)) {
      sessionStorage.removeItem(name);
      document.getElementById(`credential-${scheme}`).value = "";
    }
  });
  const panel = element("details", { className: "card credentials", open: !credential("bearer") && !credential("internal") }, element("summary", {}, "Credentials for requests from this page"), form);
  place.replaceChildren(panel);
}

// A form for each entry

function addForm(place) {
  const { name, verb, path, schemes, optional, command, body } = place.dataset;
  const owner = place.closest(".entry").id;
  const parts = [element("h3", {}, "Try it")];
  const pathFields = [...path.matchAll(/{(\w+)}/g)].map(([, field]) => {
    const input = element("input", { id: `${owner}-${field}`, name: field, required: true, autocomplete: "off", spellcheck: false });
    parts.push(element("div", { className: "field" }, element("label", { htmlFor: input.id }, field), input));
    return input;
  });
  let editor = null;
  const problem = element("p", { className: "error", id: `${owner}-problem`, role: "alert" });
  if (body !== undefined) {
    editor = element("textarea", { id: `${owner}-body`, value: body, spellcheck: false, "aria-describedby": problem.id });
    editor.rows = Math.min(16, body.split("\n").length + 1);
    editor.addEventListener("input", () => validate(editor, problem));
    parts.push(element("div", { className: "field" }, element("label", { htmlFor: editor.id }, "Body, JSON"), editor, problem));
  }
  let key = null;
  if (command === "true") {
    key = element("input", { id: `${owner}-key`, autocomplete: "off", spellcheck: false, placeholder: "none" });
    parts.push(element("div", { className: "field" }, element("label", { htmlFor: key.id }, "Idempotency key"), key));
  }
  const send = element("button", { type: "submit" }, "Send");
  const parameters = element("div", { className: "actions" }, send);
  if (body !== undefined) {
    const reset = element("button", { type: "button", className: "quiet" }, "Restore the example");
    reset.addEventListener("click", () => {
      editor.value = body;
      validate(editor, problem);
    });
    parameters.append(reset);
  }
  const answer = element("div", { className: "answer", "aria-live": "polite" });
  const form = element("form", { noValidate: true }, ...parts, parameters, answer);
  const changes = command === "true" && schemes === "internal";
  let confirmed = !changes;
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const missing = pathFields.find((input) => !input.value);
    if (missing) {
      missing.focus();
      missing.setAttribute("aria-invalid", "true");
      return;
    }
    for (const input of pathFields) input.removeAttribute("aria-invalid");
    if (editor && !validate(editor, problem)) {
      editor.focus();
      return;
    }
    if (!confirmed) {
      // An operator's command changes this Nest for other people too, so it is confirmed once.
      confirmed = true;
      send.textContent = `Send ${name}, which changes this Nest`;
      send.classList.add("danger");
      return;
    }
    // Where anybody may call, only a user's own token makes a difference; an internal key stays here.
    const header = authorization(schemes.split(" ").filter((each) => optional !== "true" || each !== "internal"));
    if (header === null && schemes && optional !== "true") {
      const wanted = schemes.includes("bearer") || schemes.includes("owner") ? "an access token" : "an internal key";
      answer.replaceChildren(element("p", { className: "note warn" }, `Enter ${wanted} at the top of this page first, or send the request without: it will be refused.`));
      if (!form.dataset.warned) {
        form.dataset.warned = "true";
        return;
      }
    }
    const target = pathFields.reduce((text, input) => text.replace(`{${input.name}}`, encodeURIComponent(input.value)), path);
    const headers = new Headers();
    if (header !== null) headers.set("authorization", header);
    if (editor) headers.set("content-type", "application/json");
    if (key?.value) headers.set("idempotency-key", key.value);
    send.disabled = true;
    await show(answer, target, { method: verb, headers, body: editor ? editor.value : undefined });
    send.disabled = false;
    if (changes) {
      confirmed = false;
      send.textContent = "Send";
      send.classList.remove("danger");
    }
  });
  place.replaceChildren(form);
}

function validate(editor, problem) {
  let text = "";
  try {
    const parsed = JSON.parse(editor.value);
    if (parsed === null || typeof parsed !== "object" || Array.isArray(parsed)) text = "The body must be one JSON object.";
    else text = unknownField(editor, parsed);
  } catch (error) {
    text = `The body is not valid JSON: ${error.message}`;
  }
  problem.textContent = text;
  editor.setAttribute("aria-invalid", String(text !== ""));
  return text === "";
}

/** A sentence about the first field that the method does not have; empty if there is none. */
function unknownField(editor, parsed) {
  const rows = [...editor.closest(".columns").querySelectorAll(".texts > .request .name")].map((each) => each.textContent);
  const unknown = Object.keys(parsed).find((name) => !rows.includes(name));
  return unknown === undefined ? "" : `There is no field ${unknown}.`;
}

async function show(answer, target, request) {
  answer.replaceChildren(element("p", { className: "soft" }, "Waiting for the response…"));
  const began = performance.now();
  try {
    const response = await fetch(target, { ...request, credentials: "omit", redirect: "manual", cache: "no-store", signal: AbortSignal.timeout(TIMEOUT_MILLISECONDS) });
    const text = await response.text();
    const milliseconds = Math.round(performance.now() - began);
    answer.replaceChildren(...rendered(response, text, milliseconds));
  } catch (error) {
    const reason = error.name === "TimeoutError" ? "No response has arrived within a minute." : "The request could not be sent. Is this Nest still running?";
    answer.replaceChildren(element("p", { className: "note bad" }, reason));
  }
}

function rendered(response, text, milliseconds) {
  const tone = response.ok ? "good" : response.status < 500 ? "warn" : "bad";
  const line = element(
    "p",
    { className: "line" },
    element("span", { className: `badge ${tone}` }, `${response.status} ${response.statusText}`.trim()),
    element("span", { className: "soft small" }, `${milliseconds} ms`)
  );
  let shown = text;
  let docs = null;
  try {
    const parsed = JSON.parse(text);
    shown = JSON.stringify(parsed, null, 2);
    if (!response.ok && typeof parsed.code === "string") docs = `#error-${parsed.code}`;
  } catch {
    // The body is text, a page, or empty.
  }
  const parts = [line];
  if (docs && document.getElementById(docs.slice(1))) parts.push(element("p", { className: "small" }, element("a", { href: docs }, `What ${docs.slice(7)} means`)));
  if (shown) {
    const block = element("div", { className: "block" }, element("pre", { tabIndex: 0, "aria-label": "Body of the response" }, element("code", {}, shown)));
    addCopy(block);
    parts.push(block);
  } else parts.push(element("p", { className: "soft small" }, "The response has no body."));
  const headers = [...response.headers].map(([name, value]) => `${name}: ${value}`).join("\n");
  parts.push(element("details", {}, element("summary", { className: "small" }, "Headers"), element("pre", { className: "wrap", tabIndex: 0, "aria-label": "Headers of the response" }, element("code", {}, headers))));
  return parts;
}

document.addEventListener("prepare", (event) => event.target.querySelectorAll(".try").forEach(addForm));
// Entries that were opened before this script ran.
for (const entry of document.querySelectorAll(".entry[data-prepared]")) entry.querySelectorAll(".try").forEach(addForm);
addCredentials(document.getElementById("credentials"));
