// On every page: the keyboard, the questions before orders that cannot be taken back, pictures that cannot be had.
// Everything also works without this.
const root = document.body.dataset.root;
const typing = (target) => target.closest?.("input:not([type=range]):not([type=checkbox]), select, textarea");
const rows = () => [...document.querySelectorAll(".studies tbody tr")];
const allowed = () => localStorage.getItem("keys") !== "off";

function move(by) {
  const all = rows();
  if (!all.length) return;
  const at = all.findIndex((row) => row.contains(document.activeElement));
  const to = all[Math.min(Math.max(at < 0 ? 0 : at + by, 0), all.length - 1)];
  to.querySelector(".open").focus();
  to.scrollIntoView({ block: "nearest" });
}

function mark() {
  for (const row of rows()) row.classList.toggle("now", row.contains(document.activeElement));
}
document.addEventListener("focusin", mark);
document.addEventListener("focusout", () => setTimeout(mark));

// A switch, since a voice that dictates also presses single keys.
function keepSwitch(box) {
  const input = box.querySelector("#single");
  if (!input) return;
  box.querySelector("#switch").hidden = false;
  input.checked = allowed();
  input.addEventListener("change", () => localStorage.setItem("keys", input.checked ? "on" : "off"));
}
keepSwitch(document);

async function showKeys() {
  if (document.querySelector("dialog[open]") || document.querySelector("#single")) return;
  const answer = await fetch(`${root}/keys`).catch(() => null);
  if (!answer?.ok || answer.redirected) return;
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  const dialog = document.createElement("dialog");
  dialog.setAttribute("aria-labelledby", "h-keys");
  dialog.append(...page.querySelector("#keyboard").childNodes);
  const close = document.createElement("button");
  close.textContent = "Close";
  close.autofocus = true;
  close.addEventListener("click", () => dialog.close());
  dialog.append(close);
  const from = document.activeElement;
  dialog.addEventListener("close", () => { dialog.remove(); from?.focus(); });
  document.body.append(dialog);
  keepSwitch(dialog);
  dialog.showModal();
}
document.querySelector("a.keys")?.addEventListener("click", (event) => { event.preventDefault(); showKeys(); });

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || typing(event.target) || !allowed()) return;
  if (document.querySelector("dialog[open]")) return;
  const orders = [...document.querySelectorAll(".orders a")];
  const does = {
    j: () => move(1),
    k: () => move(-1),
    "/": () => document.getElementById("term")?.focus(),
    "?": showKeys,
    u: () => { const back = document.getElementById("back"); if (back) location.href = back.href; },
    o: () => { if (orders.length) location.href = orders[(orders.findIndex((a) => a.ariaCurrent) + 1) % orders.length].href; },
    f: () => { const filters = document.querySelector(".filters"); if (filters) { filters.open = true; filters.querySelector("input:not([type=hidden])").focus(); } },
  }[event.key];
  if (does) { event.preventDefault(); does(); }
});

document.addEventListener("submit", (event) => {
  const question = event.target.dataset.confirm;
  if (question && !confirm(question)) event.preventDefault();
});

// A picture that cannot be had leaves its place empty, without the sign of a broken one.
const leave = (image) => image.classList.add("none");
document.addEventListener("error", (event) => { if (event.target instanceof HTMLImageElement) leave(event.target); }, true);
[...document.images].filter((image) => image.complete && !image.naturalWidth).forEach(leave);

// Back to the list as it was left.
const back = document.getElementById("back");
if (document.querySelector(".asking")) sessionStorage.setItem("list", location.search);
else if (back && sessionStorage.getItem("list")) back.href += sessionStorage.getItem("list").replace(/([?&])said=[^&]*/, "$1");
