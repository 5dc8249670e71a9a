// Buttons that copy a text: `data-copy="<id of an element>"` or `data-copy-text="<text>"`. They need JavaScript, and so
// are hidden without it.

const DONE_MILLISECONDS = 1500;

export function enableCopying(root = document) {
  for (const button of root.querySelectorAll("[data-copy], [data-copy-text]")) {
    button.hidden = false;
    button.addEventListener("click", () => copy(button));
  }
}

async function copy(button) {
  const source = document.getElementById(button.dataset.copy);
  const text = button.dataset.copyText ?? source.textContent;
  const label = button.textContent;
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
  } catch {
    // Without permission, or on an address other than loopback: select it, so that the person can copy it.
    const shown = source ?? button.previousElementSibling;
    getSelection().selectAllChildren(shown);
    button.textContent = "Selected";
  }
  setTimeout(() => { button.textContent = label; }, DONE_MILLISECONDS);
}
