// One image.
const viewer = byId("viewer");
let viewed = { rows: [], at: 0, from: null };

function view(rows, at, from) {
  viewed = { rows, at, from };
  show();
  if (!viewer.open) viewer.showModal();
}
function show() {
  const { rows, at } = viewed, row = rows[at];
  byId("viewer-place").replaceChildren(`${(at + 1).toLocaleString("en")} of ${rows.length.toLocaleString("en")}`,
    heard(`: ${label(row)}`));
  // Not disabled: a disabled button loses the focus, and then the arrow keys do nothing.
  byId("viewer-previous").setAttribute("aria-disabled", at === 0);
  byId("viewer-next").setAttribute("aria-disabled", at === rows.length - 1);
  const frame = byId("viewer-image"), image = () => fill(frame, row, coded(data.prompt, row) || data.file[row]);
  image();
  byId("viewer-facts").replaceChildren(...about(row), ...why(row, frame, image), ...original(row));
  byId("viewer-facts").scrollTop = 0;
}
function shares(parts) {
  const bar = make("span", { className: "shares", role: "img" });
  parts.forEach(([, share], at) => bar.append(make("i", { style: { width: `${100 * share}%`, opacity: 1 - at / (parts.length + 1) } })));
  bar.setAttribute("aria-label", parts.map(([name, share]) => `${name} ${Math.round(100 * share)} %`).join(", "));
  return make("span", {}, parts.map(([name, share]) => `${name} ${Math.round(100 * share)} %`).join(", "), bar);
}
function about(row) {
  const terms = make("dl");
  const term = (name, value) => value !== "" && value !== null && value !== undefined && terms.append(make("dt", {}, name), make("dd", {}, value));
  for (const name of TARGETS) {
    const both = data.low_high[name] ? data.low_high[name][row] : [null, null];
    const words = fixed(data[name][row]) + (both[0] === null ? "" : `, 90 % interval ${fixed(both[0])} to ${fixed(both[1])}`);
    term(capital(name) + inScale(name), make("span", {}, words, data[name][row] === null ? null : meterBar(name, row)));
  }
  term("Prompt", foldable(coded(data.prompt, row)));
  term("Generator", coded(data.generator, row));
  term("Status", failed(row) ? make("span", { className: "bad" }, "failed") : "scored");
  term(failed(row) ? "Reason" : "Note", coded(data.reason, row));
  if (data.gate[row] !== null) term("Gate", shares([["coarse stream", data.gate[row]], ["fine stream", 1 - data.gate[row]]]));
  if (data.spread && data.spread[row] !== null) term("Spread", `${fixed(data.spread[row])} (standard deviation of the quality levels)`);
  if (data.familiarity && data.familiarity[row] !== null) term("Familiarity (0 to 1)", fixed(data.familiarity[row]) + (unfamiliar(row) ? " (unlike the training images, so its scores are less certain)" : ""));
  term("Size", data.size[row] && `${data.size[row]} pixels`);
  for (const [name, values] of Object.entries(data.extra)) term(name === "model" ? "Model" : name, foldable(values[row] === null ? "" : String(values[row])));
  return [make("h2", { id: "viewer-name" }, data.file[row]), terms];
}
/** Return a text in its own direction; a long one is cut off until a button is clicked. */
function foldable(text) {
  if (!text) return "";
  const words = make("span", { dir: "auto", style: { display: "block" } }, text);
  if (text.length <= 400) return words;
  words.style.display = "";
  words.className = "clamp";
  const all = make("button", { type: "button" }, "Show all");
  all.addEventListener("click", () => { words.className = ""; words.tabIndex = -1; words.focus(); all.remove(); });
  return make("div", { className: "long" }, words, all);
}
function original(row) {
  const link = data.link[row] && make("a", { href: data.link[row], target: "_blank", rel: "noopener noreferrer" }, "Open the original file");
  return link ? [make("p", {}, link)] : [];
}
function meterBar(name, row) {
  const bar = meter(name, row);
  bar.firstChild.remove();
  bar.style.display = "block";
  return bar;
}
function turn(by) {
  const at = viewed.at + by;
  if (at < 0 || at >= viewed.rows.length) return;
  viewed.at = at;
  show();
}
function buildViewer() {
  byId("viewer-previous").addEventListener("click", () => turn(-1));
  byId("viewer-next").addEventListener("click", () => turn(1));
  byId("viewer-close").addEventListener("click", () => viewer.close());
  viewer.addEventListener("click", (event) => { if (event.target === viewer) viewer.close(); });
  viewer.addEventListener("keydown", (event) => {
    if (!alone(event)) return;
    if (event.key === "ArrowLeft") turn(-1);
    else if (event.key === "ArrowRight") turn(1);
  });
  viewer.addEventListener("close", () => {
    if (viewed.rows === list && shownTab === "images") focusPlace(viewed.at);
    else if (viewed.from) viewed.from.focus();
  });
}
