// Views, themes and keys.

const data = JSON.parse(byId("data").textContent);
const VIEWS = ["overview", "samples", "failures"];
let samples = null;

function view(name) {
  for (const one of VIEWS) {
    byId(one).hidden = one !== name;
    byId("tab-" + one).setAttribute("aria-selected", String(one === name));
  }
  if (name === "samples") {
    if (samples === null) samples = new Samples(data);
    else samples.lay();
  }
}

const fromHash = () => view(VIEWS.includes(location.hash.slice(1)) ? location.hash.slice(1) : "overview");

function go(name) {
  history.replaceState(null, "", "#" + name);
  view(name);
}

// Some browsers keep nothing for pages that are files; then the choice lasts as long as the page.
function kept(theme) {
  try {
    if (theme !== undefined) localStorage.setItem("lighter-async-theme", theme);
    return localStorage.getItem("lighter-async-theme");
  } catch {
    return null;
  }
}

function dress(theme) {
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
  const chosen = document.documentElement.dataset.theme;
  const isDark = chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  byId("theme").textContent = isDark ? "Light" : "Dark";
  return isDark;
}

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const dialog = byId("detail"), search = byId("search");
  const isTyping = event.target === search, isControl = event.target.matches("select, button, summary");
  if (event.key === "/" && !isTyping && !dialog.open) {
    event.preventDefault();
    go("samples");
    search.focus();
    search.select();
  } else if (event.key === "Escape" && !dialog.open && isTyping) {
    if (search.value) { search.value = ""; samples.filter(); }
    samples.scroll.focus();
    event.preventDefault();
  } else if (samples !== null && !byId("samples").hidden) {
    if (isTyping && (event.key === "ArrowDown" || event.key === "Enter")) {
      samples.filter();
      samples.scroll.focus();
      event.preventDefault();
    } else if (!isTyping && (dialog.open || !isControl) && samples.step(event.key)) {
      samples.choose(samples.chosen + samples.step(event.key));
      if (dialog.open) samples.open();
      event.preventDefault();
    } else if (event.key === "Enter" && !dialog.open && !isTyping && !isControl) {
      samples.open();
      event.preventDefault();
    }
  }
}

byId("title").append(isolated(data.title));
if (data.failed) byId("tab-failures").append(" (" + countText(data.failed) + ")");
for (const name of VIEWS) byId("tab-" + name).addEventListener("click", () => go(name));
byId("theme").addEventListener("click", () => {
  const theme = dress() ? "light" : "dark";
  kept(theme);
  dress(theme);
});
byId("detail").addEventListener("click", (event) => { if (event.target === byId("detail")) byId("detail").close(); });
byId("detail").addEventListener("close", () => samples.scroll.focus());
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => dress());
addEventListener("keydown", onKey);
addEventListener("hashchange", fromHash);
dress(kept());
drawOverview(data);
drawFailures(data);
fromHash();
requestAnimationFrame(() => setTimeout(() => {
  const opened = Math.round(performance.now());
  document.documentElement.dataset.opened = opened;
  byId("made").textContent = "Made " + timeText(data.made) + ", opened in " + opened + " ms";
}));
