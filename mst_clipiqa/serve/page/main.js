// The page: its tabs, and the first request to the server.

import { Rejected, enter, info, server } from "./api.js";
import * as compare from "./compare.js";
import * as gallery from "./gallery.js";
import { catchPastes, catchStrays } from "./picker.js";
import * as score from "./score.js";
import { alone, find } from "./tools.js";

const tabs = [...document.querySelectorAll("[role=tab]")];
const entry = find("#entry");
const RETRY = 3000; // milliseconds until a server that could not be reached is tried again
let retry = null;
const panelOf = (tab) => document.getElementById(tab.getAttribute("aria-controls"));

/** Show one tab; the others are reached with the arrow keys, not with Tab. */
function show(chosen) {
  for (const tab of tabs) {
    tab.setAttribute("aria-selected", String(tab === chosen));
    tab.tabIndex = tab === chosen ? 0 : -1;
    panelOf(tab).hidden = tab !== chosen;
  }
}

function startTabs() {
  const named = () => tabs.find((tab) => location.hash === `#/${panelOf(tab).id}`);
  for (const tab of tabs) tab.addEventListener("click", () => {
    if (panelOf(tab).hidden) history.pushState(null, "", `#/${panelOf(tab).id}`); // Back leads to the tab before
    show(tab);
  });
  find("#tabs").addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1, Home: -Infinity, End: Infinity }[event.key];
    if (step === undefined || !alone(event)) return;
    event.preventDefault();
    const here = tabs.indexOf(document.activeElement);
    const next = tabs.at(Number.isFinite(step) ? (here + step) % tabs.length : step > 0 ? -1 : 0);
    next.focus();
    next.click();
  });
  window.addEventListener("hashchange", () => show(named() ?? tabs[0]));
  show(named() ?? tabs[0]);
}

function describe() {
  const scales = Object.entries(info.ranges).map(([name, [low, high]]) => `${name} ${low} to ${high}`).join(", ");
  const caution = info.calibrated ? "" : " It was not trained on ratings: its scores only rank images.";
  find("#model").textContent = `Model ${info.model}: ${scales}; higher is better.${caution}`;
}

function trouble(sentence) {
  const notice = find("#trouble");
  if (notice.textContent !== sentence) notice.textContent = sentence; // not said again at each try
  notice.hidden = !sentence;
}

/** Fetch the server's description; while the server cannot be reached, try again now and then. */
async function begin(token) {
  clearTimeout(retry);
  try {
    await enter(token);
  } catch (error) {
    if (!(error instanceof Rejected)) throw error;
    if (error.status !== 401) {
      trouble(error.message);
      retry = setTimeout(begin, RETRY);
    } else if (token) trouble("That is not this server's token: check it and try again.");
  }
}

function entered() {
  clearTimeout(retry);
  trouble("");
  describe();
  if (!entry.hidden) find("[role=tab][aria-selected=true]").focus();
  entry.hidden = true;
}

/** Ask for the token: the server needs one, or no longer accepts the one that was used. */
function ask({ detail: used }) {
  if (!entry.hidden) {
    if (!document.activeElement.matches("input")) find("#token").focus(); // it may be off screen
    return;
  }
  entry.hidden = false;
  trouble(used ? "The server no longer accepts the token you entered: enter the new one, then try again." : "");
  find("#token").type = "password";
  find("#token").value = "";
  find("#token").focus();
}

server.addEventListener("entered", entered);
server.addEventListener("refused", ask);
entry.addEventListener("submit", (event) => {
  event.preventDefault();
  begin(find("#token").value.trim());
});
window.addEventListener("unhandledrejection", () => trouble("Expected this to work, but the page has a defect: reload it."));
startTabs();
catchStrays();
catchPastes();
for (const tab of [score, compare, gallery]) tab.start();
begin();
