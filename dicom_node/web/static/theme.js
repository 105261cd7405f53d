// Applies the theme that was chosen before the page is drawn; without a choice the system's counts.
(() => {
  const root = document.documentElement;
  const kept = localStorage.getItem("theme");
  if (kept === "light" || kept === "dark") root.dataset.theme = kept;
  const light = () => root.dataset.theme ? root.dataset.theme === "light" : matchMedia("(prefers-color-scheme: light)").matches;
  document.addEventListener("DOMContentLoaded", () => {
    const button = document.getElementById("theme");
    const tell = () => { button.textContent = light() ? "Dark" : "Light"; button.setAttribute("aria-label", `Use the ${light() ? "dark" : "light"} theme`); };
    button.hidden = false;
    tell();
    button.addEventListener("click", () => {
      root.dataset.theme = light() ? "dark" : "light";
      localStorage.setItem("theme", root.dataset.theme);
      tell();
    });
  });
})();
