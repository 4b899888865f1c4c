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

/** Show the image of one side; a verdict on the images before would mislead. */
function show(side, file) {
  files[side] = file;
  say();
  results.replaceChildren();
  chosen(find(`#drop-${side} + .chosen`), file ? [file] : [], () => show(side, null));
}

/** Take one image for a side, or two for both sides. */
function take(side, given) {
  if (given.length === 1) show(side, given[0]);
  else sides.forEach((one, place) => show(one, given[place]));
  if (given.length > 2) say(`Only two images can be compared at a time: the first two of ${given.length} were taken.`);
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
  const pair = sides.map((side) => files[side]); // as others may be chosen before the answer comes
  const release = occupy(find("button[type=submit]", panel));
  say("Comparing …");
  results.replaceChildren();
  try {
    await check(...pair);
    const answer = await (await call("/v1/compare", formOf(pair, find("#compare-prompt").value))).json();
    urls.forEach((url) => URL.revokeObjectURL(url));
    urls = pair.map((file) => URL.createObjectURL(file));
    say(...answer.sentences);
    results.replaceChildren(...answer.results.map((result, place) =>
      card(result, { url: urls[place], file: pair[place], heading: "h2", label: sides[place].toUpperCase() })));
  } catch (error) {
    if (!(error instanceof Rejected)) throw error;
    say(`Not compared. ${error.message}`);
  } finally {
    release();
  }
}

/** Start the tab. */
export function start() {
  for (const side of sides) picker(find(`#drop-${side}`), (given) => take(side, given));
  find("form", panel).addEventListener("submit", run);
}
