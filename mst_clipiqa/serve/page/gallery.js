// The tab "Gallery": many images, shown as they are scored; can be sorted, and saved as a table or a report.

import { NO_TOKEN, Rejected, call, each, scoreOne } from "./api.js";
import { picker } from "./picker.js";
import { holdsPrompts, readPrompts } from "./prompts.js";
import { card } from "./results.js";
import { arrange, base64, count, find, make, occupy, save, thumbnail } from "./tools.js";

const panel = find("#gallery");
const status = find(".status", panel);
const progress = find("#progress");
const grid = find(".results", panel);
const REDRAW = 400; // milliseconds between redraws of a growing gallery
const SAY = 2000; // milliseconds between status messages, for screen readers

let items = []; // { file, place, result, small, url, card }
let prompts = new Map();
let stopper = null;
let drawn = 0, said = 0, timer = null;

const promptOf = (item) => prompts.get(item.file.name) ?? find("#gallery-prompt").value.trim();
const scored = () => items.filter((item) => item.result);
const unanswered = () => items.filter((item) => item.result?.again);

async function take(files) {
  for (const file of files.filter(holdsPrompts)) {
    try {
      prompts = new Map([...prompts, ...(await readPrompts(file))]);
    } catch (error) {
      say(`${error.message} No file was added.`);
      return;
    }
  }
  const images = files.filter((file) => !holdsPrompts(file));
  items.push(...images.map((file, at) => ({ file, place: items.length + at, result: null })));
  const known = prompts.size ? ` and ${count(prompts.size, "prompt")}` : "";
  say(`${count(items.length, "image")}${known} chosen.`);
  update();
}

function say(sentence) {
  status.textContent = sentence;
  said = performance.now();
}

async function run(event) {
  event.preventDefault();
  const todo = items.filter((item) => !item.result || item.result.again || item.prompt !== promptOf(item));
  if (!todo.length) {
    say(items.length ? "No image is left to score: choose more." : "Choose images first.");
    find("input[type=file]", panel).focus();
    return;
  }
  const release = occupy(find("button[type=submit]", panel));
  const own = (stopper = new AbortController()), { signal } = own;
  for (const item of todo) Object.assign(item, { prompt: promptOf(item), result: null });
  draw();
  const start = performance.now();
  let done = 0;
  try {
    await each(todo, async (item) => {
      const result = await scoreOne(item.file, item.prompt, signal);
      item.small ??= await thumbnail(item.file);
      item.url ??= item.small && URL.createObjectURL(item.small);
      item.result = result;
      item.card = card(result, { url: item.url });
      if (result.again === NO_TOKEN) own.abort(); // the rest would be refused as well
      done += 1;
      soon(() => `${done} of ${todo.length}, ${((1000 * done) / (performance.now() - start)).toFixed(1)} per second.`);
    });
  } catch (error) {
    if (error.name !== "AbortError") throw error;
  } finally {
    stopper = null;
    draw();
    release();
  }
  const failed = scored().filter((item) => item.result.status === "error").length;
  const [first] = unanswered();
  const left = first ? ` ${count(unanswered().length, "image")} ${first.result.again}: "Score all" tries again.` : "";
  say(`${signal.aborted ? "Stopped. " : ""}${count(scored().length - failed, "image")} scored${failed ? `, ${failed} could not be` : ""}.${left}`);
}

/** Redraw and update the status at intervals, not at each image. */
function soon(sentence) {
  if (performance.now() - said > SAY) say(sentence());
  progress.max = items.length;
  progress.value = scored().length;
  if (timer) return;
  timer = setTimeout(draw, Math.max(0, REDRAW - (performance.now() - drawn)));
}

function draw() {
  clearTimeout(timer);
  timer = null;
  drawn = performance.now();
  arrange(grid, ordered().map((item) => item.card));
  update();
}

function ordered() {
  const chosen = find("#order").value;
  const worst = chosen.startsWith("-"), key = chosen.replace("-", "");
  const value = (item) => item.result[key] ?? null;
  return scored().sort((a, b) => {
    if (key === "file") return a.file.name.localeCompare(b.file.name, undefined, { numeric: true });
    if (key === "place" || value(a) === value(b)) return a.place - b.place;
    if (value(a) === null || value(b) === null) return value(a) === null ? 1 : -1; // images without a score come last
    return worst ? value(a) - value(b) : value(b) - value(a);
  });
}

function update() {
  const running = stopper !== null, some = scored().length > 0;
  progress.hidden = !items.length;
  progress.max = Math.max(1, items.length);
  progress.value = scored().length;
  find("button[type=submit]", panel).disabled = running;
  find("#stop").disabled = !running;
  for (const id of ["csv", "report"]) find(`#${id}`).disabled = !some || running;
  find("#clear").disabled = !items.length || running;
}

async function download(format) {
  const rows = ordered();
  const body = { format, rows: rows.map((item) => row(item.result)), title: "Gallery" };
  say(`Making the ${format === "csv" ? "table" : "report"} …`);
  try {
    if (format === "html") body.thumbnails = await Promise.all(rows.map(image));
    const answer = await call("/v1/download", JSON.stringify(body));
    save(await answer.blob(), format === "csv" ? "scores.csv" : "report.html");
    say(`${format === "csv" ? "scores.csv" : "report.html"} is saved.`);
  } catch (error) {
    if (!(error instanceof Rejected)) throw error;
    say(error.message);
  }
}

/** Return a result as a flat row of the table. */
function row(result) {
  const { words, intervals, levels, again, ...flat } = result;
  for (const [target, [low, high]] of Object.entries(intervals)) Object.assign(flat, { [`${target}_low`]: low, [`${target}_high`]: high });
  return flat;
}

const image = async (item) => (item.small?.type === "image/webp" ? base64(item.small) : "");

function clear() {
  for (const item of items) if (item.url) URL.revokeObjectURL(item.url);
  items = [];
  prompts = new Map();
  draw();
  find("input[type=file]", panel).focus();
  say("No images chosen.");
}

/** Start the tab. */
export function start() {
  picker(find(".drop", panel), take);
  find("form", panel).addEventListener("submit", run);
  find("#stop").addEventListener("click", () => stopper?.abort());
  find("#order").addEventListener("change", draw);
  find("#csv").addEventListener("click", () => download("csv"));
  find("#report").addEventListener("click", () => download("html"));
  window.addEventListener("beforeunload", (event) => stopper && event.preventDefault()); // else the scores so far are lost
  find("#clear").addEventListener("click", clear);
}
