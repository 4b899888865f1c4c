// The overview.
const bounds = ([, low, high]) => (low === null ? "" : `95 % interval ${fixed(low)} to ${fixed(high)}`);

function tile(value, words, more, tint = "") {
  return make("div", { className: `tile ${tint}` }, make("b", {}, value), words,
    more ? make("span", { className: "soft" }, make("br"), more) : null);
}
/** Return what a click does; it is not printed. */
const hint = (words) => make("span", { className: "hint" }, ` ${words}`);
function histogram(name) {
  const ends = scale[name], bins = Math.max(1, Math.round((ends.high - ends.low) / ends.step));
  const counts = new Array(bins).fill(0), lowest = new Array(bins).fill(Infinity), highest = new Array(bins).fill(-Infinity);
  for (const value of data[name]) {
    if (value === null) continue;
    const bin = Math.min(bins - 1, Math.floor(ends.share(value) * bins + 1e-9));
    counts[bin] += 1;
    lowest[bin] = Math.min(lowest[bin], value);
    highest[bin] = Math.max(highest[bin], value);
  }
  const most = Math.max(...counts), places = Math.max(0, -Math.floor(Math.log10(ends.step) + 1e-9)) + 1;
  const bars = counts.map((number, bin) => {
    const low = ends.low + bin * ends.step, high = low + ends.step;
    const words = `${name} ${+low.toFixed(places)} to ${+high.toFixed(places)}: ${count(number, "image")}`;
    const height = number ? `max(2px, ${(100 * number) / most}%)` : "0";
    const bar = make("button", { type: "button", title: words, disabled: !number }, make("span", { style: { height } }));
    bar.setAttribute("aria-label", `${words}. Show its images.`);
    bar.addEventListener("click", () => goTo({ [`${name}-low`]: lowest[bin], [`${name}-high`]: highest[bin] }));
    return bar;
  });
  const middle = (ends.low + ends.high) / 2;
  return make("div", { className: `chart ${name}` }, make("h2", {}, `Images by ${name}${inScale(name)}`),
    rove(make("div", { className: "bars", role: "group", ariaLabel: `Histogram of ${name}, arrow keys move` }, ...bars)),
    make("div", { className: "ends" }, ...[ends.low, middle, ends.high].map((end) => make("span", {}, `${+end.toFixed(places)}`))),
    make("p", { className: "soft" }, `Tallest bar: ${count(most, "image")}.`, hint("Click a bar to see its images.")));
}

const PALETTE = ["#3b82f6", "#e8590c", "#2f9e44", "#ae3ec9", "#0c8599", "#e03131", "#bf7b00", "#7e8792"];
const colour = (row) => PALETTE[data.generators.length > 1 ? Math.max(0, Math.min(data.generator.of[row], 7)) : 0];

function scatter() {
  const rows = [...data.quality.keys()].filter((row) => data.quality[row] !== null && data.correspondence[row] !== null);
  const words = `Correspondence (up) against quality (across) of ${count(rows.length, "image")}` +
    (data.correlation === null ? "" : `; rank correlation ${fixed(data.correlation)}`);
  const canvas = make("canvas", { role: "img", title: "" });
  canvas.setAttribute("aria-label", `${words}. The same scores are in the tab Images.`);
  const legend = make("div", { className: "legend" });
  if (data.generators.length > 1) {
    data.generator.names.slice(0, 8).forEach((name, at) => legend.append(make("span", {},
      make("i", { style: { background: PALETTE[at] } }), at === 7 && data.generator.names.length > 8 ? "others" : name)));
  }
  const across = axis(data.quality, 5), up = axis(data.correspondence, 5), edge = 34;
  let points = [];
  function draw() {
    const { width, height } = canvas.getBoundingClientRect(), ratio = devicePixelRatio || 1;
    if (!width) return;
    canvas.width = width * ratio;
    canvas.height = height * ratio;
    const pen = canvas.getContext("2d"), style = getComputedStyle(canvas);
    pen.scale(ratio, ratio);
    pen.font = `12px ${style.fontFamily}`;
    pen.fillStyle = style.getPropertyValue("--soft");
    pen.strokeStyle = style.getPropertyValue("--line");
    const x = (value) => edge + across.share(value) * (width - edge - 16);
    const y = (value) => height - edge / 1.6 - up.share(value) * (height - edge / 1.6 - 8);
    const ticks = (ends) => Array.from({ length: Math.round((ends.high - ends.low) / ends.step) + 1 }, (_, i) => ends.low + i * ends.step);
    pen.textAlign = "center";
    pen.beginPath();
    for (const tick of ticks(across)) {
      pen.moveTo(x(tick), y(up.low));
      pen.lineTo(x(tick), y(up.high));
      pen.fillText(+tick.toFixed(3), x(tick), height - 5);
    }
    pen.textAlign = "left";
    for (const tick of ticks(up)) {
      pen.moveTo(x(across.low), y(tick));
      pen.lineTo(x(across.high), y(tick));
      pen.fillText(+tick.toFixed(3), 4, y(tick) + 4);
    }
    pen.stroke();
    pen.fillText("↑ correspondence", x(across.low) + 6, y(up.high) + 14);
    pen.textAlign = "right";
    pen.fillText("quality →", x(across.high) - 6, y(up.low) - 6);
    pen.globalAlpha = Math.max(0.25, Math.min(0.9, 60 / Math.sqrt(rows.length)));
    const radius = rows.length > 3000 ? 1.8 : 3;
    points = rows.map((row) => [x(data.quality[row]), y(data.correspondence[row]), row]);
    for (const [left, top, row] of points) {
      pen.fillStyle = colour(row);
      pen.beginPath();
      pen.arc(left, top, radius, 0, 7);
      pen.fill();
    }
  }
  function nearest(event) {
    let best = null, least = 144; // within 12 pixels
    for (const [left, top, row] of points) {
      const distance = (left - event.offsetX) ** 2 + (top - event.offsetY) ** 2;
      if (distance < least) [best, least] = [row, distance];
    }
    return best;
  }
  canvas.addEventListener("mousemove", (event) => {
    const row = nearest(event);
    canvas.title = row === null ? "" : label(row);
  });
  canvas.addEventListener("click", (event) => {
    const row = nearest(event);
    if (row !== null) view([row], 0, null);
  });
  new ResizeObserver(draw).observe(canvas);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  return make("div", { className: "chart" }, make("h2", {}, "Correspondence against quality"), canvas, legend,
    make("p", { className: "soft" }, words + ".", hint("Click a point to see its image.")));
}
function strip({ name, by, rows }) {
  const cards = make("div", { className: "strip", role: "list" });
  rows.forEach((row, at) => cards.append(make("div", { role: "listitem" }, card(row, (node) => view(rows, at, node)))));
  cards.setAttribute("aria-label", name);
  const more = by === "unsure" ? ` (${data.unsure_by})` : "";
  return make("div", {}, make("h2", {}, name, make("span", { className: "soft" }, more)), rove(cards));
}
function buildOverview() {
  const tiles = byId("tiles");
  const of = [["prompt", data.prompts], ["generator", data.generators]].filter(([, lines]) => lines.length);
  tiles.append(tile(data.rows.toLocaleString("en"),
    [data.rows === 1 ? "image" : "images", ...of.map(([word, lines]) => count(lines.length, word))].join(", "),
    failures ? `${failures.toLocaleString("en")} failed` : "none failed"));
  for (const name of TARGETS) tiles.append(tile(fixed(data.overall[name][0]), `mean ${name}${inScale(name)}`, bounds(data.overall[name]), name));
  if (data.unfamiliar) {
    const known = data.familiarity.filter((value) => value !== null).length;
    tiles.append(tile(`${strangers.toLocaleString("en")} of ${known.toLocaleString("en")}`, "unlike the training images", "scores less certain; 5 % are expected"));
  }
  if (!TARGETS.length) {
    byId("strips").append(make("p", {}, "No image has a score, so there is nothing to show here."), ...reasons());
    return;
  }
  byId("charts").append(...TARGETS.map(histogram));
  if (data.quality.filter((value, row) => value !== null && data.correspondence[row] !== null).length > 1) byId("charts").append(scatter());
  byId("strips").append(make("p", { className: "soft key" }, KEY), ...data.strips.map(strip));
  if (!data.unsure) {
    byId("strips").append(make("p", { className: "soft" },
      "Least certain: the table has no uncertainty per image; score with --intervals."));
  }
}
