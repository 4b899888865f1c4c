// Tabs.
const TABS = [["overview", "Overview"], ["images", `Images (${data.rows.toLocaleString("en")})`]];
if (data.by.length) TABS.push(["generators", "Groups"]);
else if (data.generators.length) TABS.push(["generators", `Generators (${data.generators.length})`]);
if (data.prompts.length) TABS.push(["prompts", `Prompts (${data.prompts.length.toLocaleString("en")})`]);
const failures = data.ok.reduce((sum, ok) => sum + (ok ? 0 : 1), 0);
TABS.push(["failed", `Failed (${failures.toLocaleString("en")})`]);
const built = new Set();
let shownTab = "";

function showTab(name, focus = false) {
  if (!TABS.some(([tab]) => tab === name)) name = "overview";
  shownTab = name;
  for (const [tab] of TABS) {
    const button = byId(`tab-${tab}`), selected = tab === name;
    button.setAttribute("aria-selected", selected);
    button.tabIndex = selected ? 0 : -1;
    if (selected && focus) button.focus();
    if (selected) reveal(button);
    byId(tab).hidden = !selected;
  }
  if (!built.has(name)) { built.add(name); build[name](); }
  if (name === "images") layout();
  if (location.hash !== `#/${name}`) history.replaceState(null, "", `#/${name}`); // not an id: the page must not scroll
}
/** Show a tab so that the browser's Back leads to the one before. */
function visit(name) {
  if (name !== shownTab) history.pushState(null, "", `#/${name}`);
  showTab(name);
}
/** Scroll the row of tabs, but not the page, until a tab is in view. */
function reveal(button) {
  const bar = byId("tabs"), room = bar.getBoundingClientRect(), tab = button.getBoundingClientRect();
  bar.scrollLeft += Math.max(0, tab.right - room.right) + Math.min(0, tab.left - room.left);
}
function buildTabs() {
  const bar = byId("tabs");
  for (const [tab, words] of TABS) {
    const button = make("button", { type: "button", id: `tab-${tab}` }, words);
    button.setAttribute("role", "tab");
    button.setAttribute("aria-controls", tab);
    button.addEventListener("click", () => visit(tab));
    bar.append(button);
  }
  bar.addEventListener("keydown", (event) => {
    const at = TABS.findIndex(([tab]) => tab === shownTab), last = TABS.length - 1;
    const to = { ArrowRight: at === last ? 0 : at + 1, ArrowLeft: at ? at - 1 : last, Home: 0, End: last }[event.key];
    if (to === undefined || !alone(event)) return;
    event.preventDefault();
    showTab(TABS[to][0], true);
  });
  window.addEventListener("hashchange", () => showTab(location.hash.slice(2)));
}
