// Navigation of the reference: links that open their entry, search, tabs of languages, copy buttons.

const LANGUAGE = "nest-reference-language";
const OLDER_VERSION = /_(\d{4})_(\d{2})_(\d{2})$/;
const MAX_RESULTS = 12;
const COPIED_MILLISECONDS = 1500;

document.documentElement.classList.add("scripted");

export function element(tag, properties = {}, ...children) {
  const { dataset = {}, ...rest } = properties;
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(rest)) {
    if (name in made) made[name] = value;
    else made.setAttribute(name, value);
  }
  Object.assign(made.dataset, dataset);
  made.append(...children);
  return made;
}

// Entries

function open(id) {
  const target = document.getElementById(id) ?? document.getElementById(id.replace(OLDER_VERSION, ""));
  if (target === null) return;
  const older = OLDER_VERSION.exec(id);
  if (older && target.id !== id) {
    // An operation of an older version, by its ID in the OpenAPI document.
    const path = `/reference/${older.slice(1).join("-")}`;
    if (location.pathname !== path && !document.querySelector(`.versions a[aria-current][href="${path}"]`)) {
      location.assign(`${path}#${target.id}`);
      return;
    }
  }
  for (let each = target; each; each = each.parentElement) if (each.tagName === "DETAILS") each.open = true;
  target.scrollIntoView({ block: "start" });
  const focused = target.tagName === "DETAILS" ? target.querySelector("summary") : target;
  if (!focused.matches("summary, [tabindex]")) focused.tabIndex = -1;
  focused.focus({ preventScroll: true });
  mark(target.id);
}

function mark(id) {
  for (const link of document.querySelectorAll(".contents a[href^='#']")) {
    if (link.getAttribute("href") === `#${id}`) {
      link.setAttribute("aria-current", "true");
      link.closest("details:not(.contents)")?.setAttribute("open", "");
      const side = link.closest(".side");
      const { top, bottom } = link.getBoundingClientRect();
      if (top < 0 || bottom > window.innerHeight) side.scrollTop += top - window.innerHeight / 3;
    } else link.removeAttribute("aria-current");
  }
}

const hashId = () => decodeURIComponent(location.hash.slice(1));

addEventListener("hashchange", () => open(hashId()));
document.addEventListener("click", (event) => {
  const link = event.target.closest?.("a[href^='#']");
  if (link && link.hash === location.hash) {
    // A link to the present hash causes no `hashchange`.
    event.preventDefault();
    open(hashId());
  }
  if (link?.closest(".contents") && matchMedia("(max-width: 59.99rem)").matches) link.closest(".contents").open = false;
});
for (const entry of document.querySelectorAll("details.entry")) {
  entry.querySelector("summary").addEventListener("click", () => {
    // The address follows what is opened, so that it can be copied.
    if (!entry.open) {
      history.replaceState(null, "", `#${entry.id}`);
      mark(entry.id);
    }
  });
  entry.addEventListener("toggle", () => entry.open && prepare(entry));
}
function prepare(entry) {
  if (entry.dataset.prepared) return;
  entry.dataset.prepared = "true";
  entry.dispatchEvent(new CustomEvent("prepare", { bubbles: true }));
  entry.querySelectorAll(".languages").forEach(addTabs);
  entry.querySelectorAll(".block").forEach(addCopy);
}

// Languages

function language() {
  try {
    return localStorage.getItem(LANGUAGE);
  } catch {
    return null;
  }
}

function choose(id) {
  try {
    localStorage.setItem(LANGUAGE, id);
  } catch {
    // Without storage the choice lasts as long as the page.
  }
  document.querySelectorAll(".languages").forEach((languages) => show(languages, id));
}

function show(languages, id) {
  const sections = [...languages.querySelectorAll(".language")];
  const shown = sections.find((each) => each.dataset.language === id) ?? sections[0];
  for (const section of sections) section.hidden = section !== shown;
  for (const tab of languages.querySelectorAll("[role=tab]")) {
    const selected = tab.dataset.language === shown.dataset.language;
    tab.setAttribute("aria-selected", String(selected));
    tab.tabIndex = selected ? 0 : -1;
  }
}

function addTabs(languages) {
  const owner = languages.closest(".entry").id;
  const list = element("div", { className: "tab-list", role: "tablist", "aria-label": "Language" });
  for (const section of languages.querySelectorAll(".language")) {
    const { language: id, label } = section.dataset;
    section.id = `${owner}-${id}`;
    section.setAttribute("role", "tabpanel");
    section.setAttribute("aria-label", label);
    const tab = element("button", { type: "button", role: "tab", "aria-controls": section.id, dataset: { language: id } }, label);
    tab.addEventListener("click", () => choose(id));
    list.append(tab);
  }
  list.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    const tabs = [...list.children];
    const next = tabs.at((tabs.indexOf(document.activeElement) + step) % tabs.length);
    choose(next.dataset.language);
    next.focus();
  });
  languages.prepend(list);
  show(languages, language());
}

// Copies

export function addCopy(block) {
  const button = element("button", { type: "button", className: "copy quiet small" }, "Copy");
  button.addEventListener("click", async () => {
    const done = await copy(block.querySelector("pre").textContent);
    button.textContent = done ? "Copied" : "Not copied";
    setTimeout(() => (button.textContent = "Copy"), COPIED_MILLISECONDS);
  });
  block.append(button);
}

async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    // Plain http on another host has no clipboard API.
    const area = element("textarea", { value: text, className: "visually-hidden" });
    document.body.append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    return done;
  }
}

// Search

const form = document.querySelector(".search");
const input = document.getElementById("search");
const list = document.getElementById("results");
const found = document.getElementById("found");
const contents = document.querySelector(".contents");
const plain = (text) => text.replace(/([a-z])([A-Z])/g, "$1 $2").toLowerCase().replace(/[_\-./{}]+/g, " ").trim();
const places = [...document.querySelectorAll(".contents a[href^='#']")].map((link) => ({
  href: link.getAttribute("href"),
  name: link.textContent,
  text: link.dataset.text ?? "",
  names: plain(link.textContent),
  words: plain(`${link.textContent} ${link.dataset.text ?? ""}`),
}));
let chosen = 0;

/** Whether all letters of `typed` are in `name` in this order, for words with a letter missing. */
function isWithin(typed, name) {
  let at = 0;
  for (const letter of name) if (letter === typed[at]) at += 1;
  return at === typed.length;
}

function rank(place, typed) {
  if (place.names === typed) return 0;
  if (place.names.startsWith(typed)) return 1;
  if (place.names.includes(typed)) return 2;
  const words = typed.split(" ");
  if (words.every((word) => place.names.includes(word))) return 3;
  if (words.every((word) => place.words.includes(word))) return 4;
  const letters = typed.replaceAll(" ", "");
  return letters.length > 3 && isWithin(letters, place.names.replaceAll(" ", "")) ? 5 : null;
}

function search() {
  const typed = plain(input.value);
  const results = typed
    ? places
        .map((place) => ({ place, rank: rank(place, typed) }))
        .filter((each) => each.rank !== null)
        .sort((one, other) => one.rank - other.rank || one.place.names.length - other.place.names.length)
    : [];
  const shown = results.slice(0, MAX_RESULTS).map(({ place }, index) =>
    element("li", { role: "option", id: `result-${index}`, dataset: { href: place.href } }, element("code", {}, place.name), element("span", {}, place.text.replaceAll("`", "")))
  );
  list.replaceChildren(...shown);
  list.hidden = !typed || shown.length === 0;
  contents.hidden = Boolean(typed);
  input.setAttribute("aria-expanded", String(!list.hidden));
  found.textContent = typed ? `${results.length || "No"} result${results.length === 1 ? "" : "s"}` : "";
  found.classList.toggle("visually-hidden", !typed || results.length > 0);
  if (typed && results.length === 0) found.textContent = "Nothing matches. Search for a part of a method's name, a path, an error code or a word of its description.";
  select(0);
}

function select(index) {
  const options = [...list.children];
  chosen = options.length ? (index + options.length) % options.length : 0;
  options.forEach((option, position) => option.setAttribute("aria-selected", String(position === chosen)));
  if (options.length) {
    input.setAttribute("aria-activedescendant", options[chosen].id);
    options[chosen].scrollIntoView({ block: "nearest" });
  } else input.removeAttribute("aria-activedescendant");
}

function follow(option) {
  const { href } = option.dataset;
  input.value = "";
  search();
  if (location.hash === href) open(hashId());
  else location.hash = href;
}

form.hidden = false;
form.addEventListener("submit", (event) => event.preventDefault());
input.addEventListener("input", search);
input.addEventListener("keydown", (event) => {
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (step) select(chosen + step);
  else if (event.key === "Enter" && list.children.length) follow(list.children[chosen]);
  else if (event.key === "Escape") {
    if (!input.value) input.blur();
    input.value = "";
    search();
  } else return;
  event.preventDefault();
});
list.addEventListener("click", (event) => {
  const option = event.target.closest("[role=option]");
  if (option) follow(option);
});
document.addEventListener("keydown", (event) => {
  const typing = event.target.closest?.("input, textarea, select, [contenteditable]");
  if (event.key !== "/" || typing || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  input.focus();
  input.select();
});

if (location.hash) open(hashId());
