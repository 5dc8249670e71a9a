// What the theme makes when the page is shown, for keyboards and screen readers: wide tables can be scrolled, and the copy
// button of a code block is no landmark.
function reach() {
  for (const box of document.querySelectorAll(".md-typeset__scrollwrap")) {
    if (box.scrollWidth > box.clientWidth) box.tabIndex = 0;
    else box.removeAttribute("tabindex");
  }
  for (const bar of document.querySelectorAll("nav.md-code__nav:not([role])")) bar.setAttribute("role", "none");
}
new MutationObserver(reach).observe(document.querySelector(".md-content"), { childList: true, subtree: true });
addEventListener("resize", reach);
reach();
