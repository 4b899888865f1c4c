// One result as a card: the image, each score as a number, a word and a bar, and notes.

import { info } from "./api.js";
import { explainButton } from "./explain.js";
import { capital, fixed, make } from "./tools.js";

const LEVELS = ["bad", "poor", "fair", "good", "perfect"];
const SHOWS = { "not at all": "does not show it", hardly: "hardly shows it", partly: "partly shows it", mostly: "mostly shows it", fully: "fully shows it" };
const FIXED = new Set(["file", "prompt", "gate", "familiarity", "status", "reason", "width", "height", "model", "granularity", "words", "intervals", "levels"]);

/** Return the names of the scores in a result. */
export const targets = (result) => Object.keys(result).filter((name) => !FIXED.has(name) && name in info.ranges);

/** Return a score in words. */
export function inWords(result, target) {
  const word = result.words[target];
  if (!word) return "";
  return target === "correspondence" ? SHOWS[word] : word;
}

/** Return a card: `url` shows the image, `file` is sent for an explanation. */
export function card(result, { url = null, file = null, heading = "h3", label = "" } = {}) {
  const title = make(heading, { className: "name", title: result.file }, label ? `${label}: ${result.file}` : result.file);
  const frame = make("div", { className: "frame" }, url ? make("img", { src: url, alt: "", decoding: "async" }) : "no preview");
  const parts = [title];
  if (result.status === "error") {
    parts.push(make("p", { className: "bad" }, `Not scored: ${result.reason}.`));
  } else {
    parts.push(...targets(result).map((target) => score(result, target)));
    if (result.levels) parts.push(levels(result.levels));
    parts.push(...facts(result));
    if (result.reason) parts.push(make("p", { className: "soft" }, `Note: ${result.reason}.`));
    if (file) parts.push(explainButton(file, result));
  }
  return make("article", { className: `card ${result.status}` }, frame, make("div", { className: "said" }, ...parts));
}

/** Return one score: a line of text, and a bar that shows the same. */
function score(result, target) {
  const value = result[target];
  const [low, high] = info.ranges[target];
  const line = make("p", { className: "line" }, make("b", {}, capital(target)), " ", make("span", { className: "number" }, fixed(value)));
  if (value === null) {
    if (target === "correspondence" && !result.prompt) line.append(make("span", { className: "soft small" }, " no prompt"));
    return make("div", { className: `score ${target}` }, line);
  }
  const words = inWords(result, target);
  line.append(make("span", { className: "soft" }, ` (${low} to ${high})`), ...(words ? [" · ", make("span", { className: "word" }, words)] : []));
  const share = (x) => 100 * Math.min(1, Math.max(0, (x - low) / (high - low)));
  const bar = make("div", { className: "meter", "aria-hidden": "true" }, make("i", { className: "fill", style: { width: `${share(value)}%` } }));
  const ends = result.intervals[target];
  const parts = [line, bar];
  if (ends) {
    bar.append(make("i", { className: "whisker", style: { left: `${share(ends[0])}%`, width: `${share(ends[1]) - share(ends[0])}%` } }));
    parts.push(make("p", { className: "soft small" }, `90 % interval of the human rating: ${fixed(ends[0])} to ${fixed(ends[1])}.`));
  }
  return make("div", { className: `score ${target}` }, ...parts);
}

/** Return the five quality levels, hidden until opened. */
function levels(shares) {
  const rows = shares.map((share, place) =>
    make("li", {},
      make("span", {}, LEVELS[place]),
      make("span", { className: "meter", "aria-hidden": "true" }, make("i", { className: "fill", style: { width: `${100 * share}%` } })),
      make("span", { className: "number" }, `${(100 * share).toFixed(0)} %`)));
  return make("details", {}, make("summary", {}, "Probability of each quality level"), make("ul", { className: "levels quality" }, ...rows));
}

function facts(result) {
  const size = result.width ? `${result.width} × ${result.height} pixels` : "";
  const known = result.familiarity === null ? "" : `Familiarity: ${fixed(result.familiarity)}`;
  const lines = [make("p", { className: "soft small" }, [size, known].filter(Boolean).join(" · "))];
  if (result.prompt) lines.unshift(make("p", { className: "soft small clamp", title: result.prompt }, "Prompt: ", make("bdi", {}, result.prompt)));
  return lines;
}
