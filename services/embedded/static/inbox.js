// The inbox without reloads: links and forms of the page load their result in place, and server-sent events update the
// list. Everything else is the server's HTML, which works without this script too.

import { enableCopying } from "./copy.js";

const TYPING_MILLISECONDS = 200;
const GATHER_MILLISECONDS = 80;
const CLOCK_MILLISECONDS = 30_000;

const element = (id) => document.getElementById(id);
const rows = () => [...document.querySelectorAll("#arrivals a")];
const chosenId = () => new URLSearchParams(location.search).get("mail");

// Times

function showTimes() {
  const now = new Date();
  for (const time of document.querySelectorAll("main time")) {
    const at = new Date(time.dateTime);
    const seconds = Math.round((now - at) / 1000);
    time.title = at.toLocaleString();
    if (!time.closest("#arrivals")) time.textContent = at.toLocaleString();
    else if (seconds < 60) time.textContent = "just now";
    else if (seconds < 3600) time.textContent = `${Math.floor(seconds / 60)} min ago`;
    else if (at.toDateString() === now.toDateString()) time.textContent = at.toLocaleTimeString([], { timeStyle: "short" });
    else time.textContent = at.toLocaleDateString([], { day: "numeric", month: "short" });
  }
}

// Loading

let newest = Promise.resolve(); // the last load, whose result alone is shown
let goneId = null; // an open mail that was, or may have been, deleted, and is still shown

/** Load a page of the inbox and show its parts; `push` adds it to the history. Return whether it is still wanted. */
function load(url, { push = false, parts = ["list", "pane"], options = {} } = {}) {
  const loading = (async () => {
    const response = await fetch(url, options);
    const page = new DOMParser().parseFromString(await response.text(), "text/html");
    if (loading !== newest || !page.getElementById("list")) return false;
    if (push) history.pushState(null, "", response.url);
    document.title = page.title;
    document.body.classList.toggle("chosen", page.body.classList.contains("chosen"));
    for (const part of [...parts, "unread"]) replace(part, page.getElementById(part));
    if (element("search") !== document.activeElement) element("search").value = page.getElementById("search").value;
    prepare();
    return true;
  })();
  newest = loading;
  return loading;
}

/** Load the list again. The open mail stays, because somebody may be reading it, unless it is gone. */
async function loadList() {
  const gone = goneId;
  const shown = await load(location.href, { parts: gone && gone === chosenId() ? ["list", "pane"] : ["list"] });
  if (shown && gone === goneId) goneId = null;
}

function replace(id, fresh) {
  const old = element(id);
  const focused = old.contains(document.activeElement) ? document.activeElement.id : "";
  const scrolled = element("scroll")?.scrollTop ?? 0;
  // A question stays open, with its present number of arrivals.
  const asking = document.querySelector("#list details[open]") !== null;
  old.replaceWith(fresh);
  if (id === "list") {
    element("scroll").scrollTop = scrolled;
    if (asking && element("delete-all")) element("delete-all").open = true;
  }
  if (focused) element(focused)?.focus({ preventScroll: true });
}

function prepare() {
  showTimes();
  enableCopying(element("pane"));
  const tools = element("tools");
  if (!tools) return;
  tools.hidden = false;
  for (const view of ["width", "theme"]) show(view, localStorage.getItem(`nest.inbox.${view}`));
}

// How an HTML mail is shown

function show(view, value) {
  const buttons = [...document.querySelectorAll(`[data-view="${view}"]`)];
  if (!buttons.some((button) => button.value === value)) return;
  for (const button of buttons) {
    button.setAttribute("aria-pressed", String(button.value === value));
    element("mail").classList.toggle(button.value, button.value === value);
  }
}

// Clicks, forms and the history

document.addEventListener("click", (event) => {
  const view = event.target.closest("[data-view]");
  if (view) {
    localStorage.setItem(`nest.inbox.${view.dataset.view}`, view.value);
    show(view.dataset.view, view.value);
    return;
  }
  const link = event.target.closest("a[data-swap]");
  if (!link || event.button || event.metaKey || event.ctrlKey || event.shiftKey) return;
  event.preventDefault();
  open(link);
});

async function open(link) {
  const inList = link.closest("#arrivals");
  const back = link.classList.contains("back");
  const before = chosenId();
  if (!(await load(link.href, { push: true }))) return;
  if (back) focusRow(before);
  // On a phone the list is gone now, and so is the focus.
  else if (inList && !element("list").checkVisibility()) element("pane").focus();
}

document.addEventListener("submit", async (event) => {
  const form = event.target;
  if (form.id === "search-form") {
    event.preventDefault();
    search();
  } else if ("delete" in form.dataset) {
    event.preventDefault();
    const next = neighbour(chosenId());
    form.closest("details").open = false;
    await load(form.action, { push: true, options: { method: "POST" } });
    if (form.closest("#delete-one")) focusRow(next);
  }
});

addEventListener("popstate", () => load(location.href));

let typing = 0;
element("search-form").addEventListener("input", () => {
  clearTimeout(typing);
  typing = setTimeout(search, TYPING_MILLISECONDS);
});

async function search() {
  clearTimeout(typing);
  const query = new URLSearchParams(location.search);
  query.set("search", element("search").value);
  query.delete("shown");
  history.replaceState(null, "", `/dev/inbox?${query}`);
  await loadList();
}

// Keyboard

function focusRow(id) {
  const row = (id && element(`arrival-${id}`)) || rows()[0];
  row?.focus();
}

/** ID of the arrival that takes the place of this one in the list when it is deleted. */
function neighbour(id) {
  const all = rows();
  const at = all.findIndex((row) => row.id === `arrival-${id}`);
  return (all[at + 1] ?? all[at - 1])?.id.replace("arrival-", "");
}

function move(step) {
  const all = rows();
  const current = all.findIndex((row) => row === document.activeElement);
  const chosen = all.findIndex((row) => row.ariaCurrent);
  const from = current >= 0 ? current : chosen;
  all[Math.min(Math.max(from + step, 0), all.length - 1)]?.focus();
}

async function askToDelete() {
  const row = document.activeElement.closest?.("#arrivals a");
  if (row && !row.ariaCurrent) await load(row.href, { push: true });
  const question = element("delete-one");
  if (!question) return;
  question.open = true;
  question.querySelector("button").focus();
}

function goBack() {
  const question = document.querySelector("details.confirm[open]");
  if (question) {
    question.open = false;
    question.querySelector("summary").focus();
  } else if (document.activeElement === element("search") && element("search").value) {
    element("search").value = "";
    search();
  } else if (chosenId()) {
    open(document.querySelector("#pane .back"));
  }
}

const KEYS = {
  j: () => move(1),
  ArrowDown: () => move(1),
  k: () => move(-1),
  ArrowUp: () => move(-1),
  Delete: askToDelete,
  Backspace: askToDelete,
  "/": () => element("search").focus(),
  Escape: goBack,
};

document.addEventListener("keydown", (event) => {
  if (event.altKey || event.ctrlKey || event.metaKey) return;
  const typed = event.target.matches("input, textarea, select");
  // Arrows scroll what has the focus: a source, the pane, a table.
  const scrolls = event.key.startsWith("Arrow") && event.target.closest("#pane, #api");
  if ((typed && event.key !== "Escape") || scrolls || !(event.key in KEYS)) return;
  event.preventDefault();
  KEYS[event.key]();
});

// Events

let lastChange = document.body.dataset.lastChange;
let source = null;
let gathering = 0;
const fresh = new Set();

/** Follow the inbox. A hidden tab does not, because browsers open six connections to a host for all tabs together. */
function follow() {
  if (document.hidden) {
    source?.close();
    source = null;
    return;
  }
  if (source) return;
  source = new EventSource(`/dev/inbox/events?last_event_id=${encodeURIComponent(lastChange)}`);
  source.onopen = () => { element("live").textContent = "New mails appear here."; };
  source.onerror = () => {
    const ended = source?.readyState === EventSource.CLOSED;
    element("live").textContent = ended ? "No live updates: reload the page." : "Nest does not respond, trying again.";
  };
  for (const name of ["arrived", "read", "deleted", "reset"]) source.addEventListener(name, take);
}

function take(event) {
  lastChange = event.lastEventId;
  const data = JSON.parse(event.data);
  if (event.type === "arrived") {
    fresh.add(data.id);
    element("news").textContent = `${data.kind === "text" ? "Text" : "Mail"} to ${data.to}: ${data.subject || "arrived"}`;
  }
  if (event.type === "reset" || (event.type === "deleted" && data.ids.includes(chosenId()))) goneId = chosenId();
  clearTimeout(gathering);
  gathering = setTimeout(refresh, GATHER_MILLISECONDS);
}

/** Show changes, after what a person has just clicked: a load that overtook it would cancel it. */
async function refresh() {
  let before;
  do {
    before = newest;
    await before.catch(() => {});
  } while (before !== newest);
  try {
    await loadList();
  } catch {
    return; // Nest has stopped. After its next start the stream reports `reset`.
  }
  for (const id of fresh) element(`arrival-${id}`)?.classList.add("fresh");
  fresh.clear();
}

document.addEventListener("visibilitychange", follow);
prepare();
setInterval(showTimes, CLOCK_MILLISECONDS);
follow();
