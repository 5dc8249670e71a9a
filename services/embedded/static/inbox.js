// Shows relative times, and adds new arrivals without a reload.

const POLL_MILLISECONDS = 1500;
const list = document.getElementById("arrivals");
let newest = list.querySelector("article")?.id;

function showTimes() {
  for (const time of list.querySelectorAll("time")) {
    const at = new Date(time.dateTime);
    time.title = at.toString();
    const seconds = Math.round((Date.now() - at) / 1000);
    if (seconds < 60) time.textContent = "just now";
    else if (seconds < 3600) time.textContent = `${Math.floor(seconds / 60)} min ago`;
    else time.textContent = at.toLocaleString();
  }
}

async function poll() {
  if (document.hidden) return;
  const after = newest?.replace("arrival-", "") ?? "";
  const page = new DOMParser().parseFromString(await (await fetch(`/dev/inbox?after=${after}`)).text(), "text/html");
  const fresh = [...page.querySelectorAll("#arrivals article")];
  if (!fresh.length) return;
  if (newest) {
    // The articles on the page are kept, because somebody may be reading them.
    for (const article of fresh) article.classList.add("fresh");
    list.prepend(...fresh);
  } else {
    list.replaceChildren(...fresh);
  }
  newest = fresh[0].id;
}

showTimes();
setInterval(() => {
  poll().then(showTimes, () => {}); // If Nest is stopped, the next poll tries again.
}, POLL_MILLISECONDS);
