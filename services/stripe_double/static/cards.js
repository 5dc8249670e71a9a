// Turns the listed test cards into buttons that fill in the card number.

const field = document.querySelector("input[name=card]");
for (const number of field ? document.querySelectorAll("[data-card]") : []) {
  const button = Object.assign(document.createElement("button"), {
    type: "button",
    className: "link mono",
    textContent: number.textContent,
  });
  button.addEventListener("click", () => {
    field.value = button.textContent;
    field.focus();
  });
  number.replaceChildren(button);
}
