// The tab "Compare two": which image is better, by how much, how certain.

import { Rejected, call, check, form as formOf } from "./api.js";
import { chosen, picker } from "./picker.js";
import { card } from "./results.js";
import { find, make, occupy } from "./tools.js";

const panel = find("#compare");
const verdict = find(".verdict", panel);
const results = find(".results", panel);
const sides = ["a", "b"];
const files = { a: null, b: null };
let urls = [];

function show(side, file) {
  files[side] = file;
  chosen(find(`#drop-${side} + .chosen`), file ? [file] : [], () => show(side, null));
}

function say(...sentences) {
  verdict.replaceChildren(...sentences.map((sentence) => make("p", {}, sentence)));
}

async function run(event) {
  event.preventDefault();
  const missing = sides.find((side) => !files[side]);
  if (missing) {
    say(`Choose image ${missing.toUpperCase()} first.`);
    find(`#drop-${missing} input`).focus();
    return;
  }
  const release = occupy(find("button[type=submit]", panel));
  say("Comparing …");
  results.replaceChildren();
  try {
    await check(files.a, files.b);
    const answer = await (await call("/v1/compare", formOf([files.a, files.b], find("#compare-prompt").value))).json();
    urls.forEach((url) => URL.revokeObjectURL(url));
    urls = sides.map((side) => URL.createObjectURL(files[side]));
    say(...answer.sentences);
    results.replaceChildren(...answer.results.map((result, place) =>
      card(result, { url: urls[place], file: files[sides[place]], heading: "h2", label: sides[place].toUpperCase() })));
  } catch (error) {
    if (!(error instanceof Rejected)) throw error;
    say(`Not compared. ${error.message}`);
  } finally {
    release();
  }
}

/** Start the tab. */
export function start() {
  for (const side of sides) picker(find(`#drop-${side}`), ([file]) => show(side, file));
  find("form", panel).addEventListener("submit", run);
}
