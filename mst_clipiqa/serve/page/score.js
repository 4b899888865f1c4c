// The tab "Score": a few images with one prompt, each shown in full.

import { each, scoreOne } from "./api.js";
import { chosen, picker } from "./picker.js";
import { card } from "./results.js";
import { arrange, count, find, occupy } from "./tools.js";

const panel = find("#score");
const form = find("form", panel);
const status = find(".status", panel);
const results = find(".results", panel);
const NONE = "Choose an image first.";
let files = [];
let urls = [];

function show(now) {
  files = now;
  if (status.textContent === NONE) status.textContent = "";
  chosen(find(".chosen", panel), files, (place) => show(files.filter((_, at) => at !== place)));
}

async function run(event) {
  event.preventDefault();
  if (!files.length) {
    status.textContent = NONE;
    find("input[type=file]", panel).focus();
    return;
  }
  const release = occupy(find("button[type=submit]", form));
  const asked = files, prompt = find("#score-prompt").value; // as both may be changed before the answers come
  status.textContent = `Scoring ${count(asked.length, "image")} …`;
  urls.forEach((url) => URL.revokeObjectURL(url));
  urls = asked.map((file) => URL.createObjectURL(file));
  const cards = asked.map(() => null);
  let failed = 0;
  await each(asked, async (file, place) => {
    const result = await scoreOne(file, prompt);
    failed += result.status === "error";
    cards[place] = card(result, { url: urls[place], file, heading: "h2" });
    arrange(results, cards.filter(Boolean));
  }).finally(release);
  const not = failed ? `, ${failed} could not be` : "", hint = failed < asked.length ? " Higher is better." : "";
  status.textContent = `${count(asked.length - failed, "image")} scored${not}.${hint}`;
}

/** Start the tab. */
export function start() {
  picker(find(".drop", panel), (more) => show([...files, ...more]));
  form.addEventListener("submit", run);
  // If the browser cannot show an image, say so instead of showing a broken one.
  results.addEventListener("error", (event) => event.target.tagName === "IMG" && event.target.replaceWith("no preview"), true);
}
