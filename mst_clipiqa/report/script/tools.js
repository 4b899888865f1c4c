// The data, axes and thumbnails.
const data = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);
const TARGETS = ["quality", "correspondence"].filter((name) => data.overall[name][3] > 0);
const coded = (column, row) => (column.of[row] < 0 ? "" : column.names[column.of[row]]);
const failed = (row) => !data.ok[row];
const unfamiliar = (row) => Boolean(data.unfamiliar && data.unfamiliar[row]);
const strangers = data.unfamiliar ? data.unfamiliar.filter(Boolean).length : 0;

/** Return round ends and a step for an axis over the values, with about `parts` steps. */
function axis(values, parts) {
  let low = Infinity, high = -Infinity;
  for (const value of values) if (value !== null) { low = Math.min(low, value); high = Math.max(high, value); }
  if (low > high) [low, high] = [0, 1];
  if (high - low < 1e-9) high = low + 1;
  const rough = (high - low) / parts, power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 2.5, 5, 10].find((times) => times * power >= rough - 1e-12);
  low = Math.floor(low / step + 1e-9) * step;
  high = Math.max(low + step, Math.ceil(high / step - 1e-9) * step);
  return { low, high, step, share: (value) => Math.min(1, Math.max(0, (value - low) / (high - low))) };
}
/** Return the axis of a target: the model's scale, or else round ends over the scores that occur. */
function scaleOf(name) {
  if (!data.ranges[name]) return axis(data[name], 20);
  const [low, high] = data.ranges[name];
  return { low, high, step: (high - low) / 20, share: (value) => Math.min(1, Math.max(0, (value - low) / (high - low))) };
}
const scale = Object.fromEntries(TARGETS.map((name) => [name, scaleOf(name)]));
// Properties of a text in any language: it runs in its own direction, and a tooltip has all of it.
const foreign = (text) => ({ dir: "auto", title: text });
const inScale = (name) => (data.ranges[name] ? ` (${data.ranges[name].join(" to ")})` : "");

// Thumbnails are in blocks at the end of the file; a block is split when one of its images is first shown.
const blocks = new Map();
function thumbnail(row) {
  const place = data.thumbnail[row], block = Math.floor(place / data.chunk);
  if (!blocks.has(block)) {
    const node = byId(`t${block}`);
    if (!node || (document.readyState === "loading" && !node.nextSibling)) return null; // not loaded yet
    blocks.set(block, node.textContent.split("\n"));
  }
  return blocks.get(block)[place % data.chunk];
}
const waiting = new Map(); // frames on screen whose image has not loaded yet
function fill(frame, row, alt = "") {
  const image = thumbnail(row);
  if (image === null) { waiting.set(frame, [row, alt]); return; }
  if (image) frame.replaceChildren(make("img", { src: `data:image/webp;base64,${image}`, alt, decoding: "async" }));
  else frame.replaceChildren("no image");
}
function fillWaiting() {
  const all = [...waiting];
  waiting.clear();
  for (const [frame, [row, alt]] of all) if (frame.isConnected) fill(frame, row, alt);
}
if (document.readyState === "loading") {
  const timer = setInterval(fillWaiting, 50);
  document.addEventListener("DOMContentLoaded", () => { clearInterval(timer); fillWaiting(); });
}
