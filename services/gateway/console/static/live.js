"use strict";
// Asks for fresh content every 2 seconds, only while somebody sees the page; conditions of hx-trigger would need eval.
// What has the focus is not replaced, so that a keyboard does not lose its place.
const poll = () => {
  if (document.visibilityState !== "visible") return;
  for (const element of document.querySelectorAll("[data-poll]")) {
    if (!element.contains(document.activeElement)) htmx.trigger(element, "poll");
  }
};
setInterval(poll, 2000);
document.addEventListener("visibilitychange", poll);
