// Keeps the list up to date: rows change where they stand; what is new waits behind a button, so that nothing jumps.
const table = document.getElementById("studies");
const fresh = document.getElementById("fresh");
const live = document.getElementById("live");
const pulse = document.getElementById("pulse");
const root = document.body.dataset.root;
const PAUSE = 2000;
let waiting = false;
let last = 0;

function tell(words) {
  fresh.textContent = words;
  if (fresh.hidden) live.textContent = words;
  fresh.hidden = false;
}

function change(here, row) {
  [...row.cells].forEach((cell, n) => {
    const old = here.cells[n];
    if (old.innerHTML !== cell.innerHTML && !old.contains(document.activeElement)) old.replaceChildren(...cell.childNodes);
  });
}

async function look() {
  waiting = false;
  last = Date.now();
  const answer = await fetch(location.href, { headers: { Accept: "text/html" } }).catch(() => null);
  if (!answer?.ok || answer.redirected) return;
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  const shown = new Map([...document.querySelectorAll("tr[data-study]")].map((row) => [row.dataset.study, row]));
  let unknown = 0;
  for (const row of page.querySelectorAll("tr[data-study]")) {
    const here = shown.get(row.dataset.study);
    if (here) change(here, row);
    else unknown += 1;
  }
  const count = page.querySelector(".count strong"), counted = document.querySelector(".count strong");
  const more = Number(count?.textContent) - Number(counted?.textContent);
  if (count && counted) counted.textContent = count.textContent;
  if (unknown && (more > 0 || !table)) tell(`${Math.max(more, 1)} new ${more > 1 ? "studies" : "study"}: show`);
  else if (unknown) tell("The list has changed: show");
}

fresh.addEventListener("click", () => location.reload());
const events = new EventSource(`${root}/api/v1/events?after=${table ? table.dataset.after : "-1"}`);
events.addEventListener("changes", () => {
  if (waiting) return;
  waiting = true;
  setTimeout(look, Math.max(300, PAUSE - (Date.now() - last)));
});
const heard = (words, lost) => { pulse.hidden = false; pulse.textContent = words; pulse.classList.toggle("lost", lost); };
events.addEventListener("open", () => heard("live", false));
// Closed, it was answered and refused: the session is over, or too many listen. Else the browser tries again by itself.
events.addEventListener("error", () => heard(`not live: ${events.readyState === EventSource.CLOSED ? "load the page again" : "the node cannot be reached"}`, true));
addEventListener("pagehide", () => events.close());
