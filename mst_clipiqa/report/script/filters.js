// Images: sort and filter.
const fields = {};
let list = []; // the rows shown, in order
let haystack = null;

function labelled(words, input, wide = false) {
  return make("label", { className: wide ? "wide" : "" }, words, input);
}
function select(name, options) {
  fields[name] = make("select", { name }, ...options.map(([value, words]) => make("option", { value }, words)));
  return fields[name];
}
function range(name) {
  const ends = scale[name];
  const input = (end, value) => {
    const key = `${name}-${end}`;
    fields[key] = make("input", { type: "number", step: "any", name: key, placeholder: String(+value.toFixed(3)) });
    fields[key].setAttribute("aria-label", `${end === "low" ? "lowest" : "highest"} ${name}`);
    return fields[key];
  };
  return make("fieldset", {}, make("legend", {}, `${capital(name)} from, to`),
    make("div", { className: "pair" }, input("low", ends.low), "–", input("high", ends.high)));
}
function sortable() {
  const options = [];
  for (const name of TARGETS) options.push([`${name}-down`, `${capital(name)}, best first`], [`${name}-up`, `${capital(name)}, worst first`]);
  if (data.unsure) options.push(["unsure-down", "Least certain first"]);
  if (data.familiarity) options.push(["familiarity-up", "Least familiar first"]);
  options.push(["row-up", "As in the table"], ["file-up", "File name"]);
  for (const [name, values] of Object.entries(data.extra)) {
    if (values.some((value) => typeof value === "number")) options.push([`extra:${name}-down`, `${name}, highest first`], [`extra:${name}-up`, `${name}, lowest first`]);
  }
  return options;
}
function buildFilters() {
  const form = byId("filters");
  fields.search = make("input", { type: "search", name: "search", placeholder: "words in file, prompt or reason" });
  form.append(labelled("Search", fields.search, true), labelled("Sort", select("sort", sortable())), ...TARGETS.map(range));
  const names = (column) => [["", "all"], ...column.names.map((name, at) => [String(at), name])];
  if (data.generators.length) form.append(labelled("Generator", select("generator", names(data.generator))));
  if (data.prompts.length) {
    const listed = data.prompts.length <= 2000; // of more, only one that is asked for
    const label = labelled("Prompt", select("prompt", listed ? names(data.prompt) : [["", "all"]]));
    label.hidden = data.prompts.length === 1 || !listed;
    form.append(label);
  }
  form.append(labelled("Status", select("status", [["", "all"], ["ok", "scored"], ["error", "failed"], ...(strangers ? [["unfamiliar", "unlike the training images"]] : []), ...(explained.size ? [["why", "explained"]] : [])])));
  const reset = make("button", { type: "reset" }, "Reset");
  const save = make("button", { type: "button" }, "Save list (CSV)");
  save.addEventListener("click", saveList);
  form.append(make("div", { className: "actions" }, reset, save));
  let timer = 0;
  byId("filter-box").open = innerWidth > 700; // on a phone, show the images first
  form.addEventListener("input", () => { clearTimeout(timer); timer = setTimeout(refresh, 80); });
  form.addEventListener("reset", () => setTimeout(refresh));
  form.addEventListener("submit", (event) => { event.preventDefault(); refresh(); });
}
/** Set a filter, to an option that it may not have yet. */
function choose(field, name, value) {
  field.value = value;
  if (field.value !== value) {
    field.append(make("option", { value }, data[name].names[value]));
    field.value = value;
  }
  field.closest("label, fieldset").hidden = false;
}
/** Show the images tab with only these filters. */
function goTo(values) {
  visit("images");
  byId("filters").reset();
  for (const [name, value] of Object.entries(values)) choose(fields[name], name, String(value));
  refresh();
  byId("tab-images").focus();
  scrollTo(0, 0);
}
function passes() {
  haystack ??= data.file.map((file, row) => `${file}\n${coded(data.prompt, row)}\n${coded(data.reason, row)}`.toLowerCase());
  const words = fields.search.value.toLowerCase().split(/\s+/).filter(Boolean);
  const tests = [(row) => words.every((word) => haystack[row].includes(word))];
  for (const name of TARGETS) {
    const [low, high] = ["low", "high"].map((end) => fields[`${name}-${end}`].value);
    if (low !== "") tests.push((row) => data[name][row] !== null && data[name][row] >= +low);
    if (high !== "") tests.push((row) => data[name][row] !== null && data[name][row] <= +high);
  }
  for (const name of ["generator", "prompt"]) {
    const value = fields[name] ? fields[name].value : "";
    if (value !== "") tests.push((row) => data[name].of[row] === +value);
  }
  if (fields.status.value === "why") tests.push((row) => explained.has(row));
  else if (fields.status.value === "unfamiliar") tests.push(unfamiliar);
  else if (fields.status.value) tests.push((row) => failed(row) === (fields.status.value === "error"));
  return (row) => tests.every((test) => test(row));
}
function sorted(rows) {
  const [, name, direction] = /^(.*)-(up|down)$/.exec(fields.sort.value), sign = direction === "up" ? 1 : -1;
  if (name === "row") return rows;
  if (name === "file") return rows.sort((a, b) => (data.file[a] < data.file[b] ? -1 : data.file[a] > data.file[b] ? 1 : a - b));
  const values = name.startsWith("extra:") ? data.extra[name.slice(6)] : data[name];
  const value = (row) => (typeof values[row] === "number" ? values[row] : null);
  return rows.sort((a, b) => {
    const [x, y] = [value(a), value(b)];
    if (x === null || y === null) return (x === null) - (y === null) || a - b; // rows without a value come last
    return sign * (x - y) || a - b;
  });
}
function refresh() {
  list = sorted([...data.ok.keys()].filter(passes()));
  active = 0;
  cards.clear();
  byId("gallery").replaceChildren();
  const order = fields.sort.selectedOptions[0].textContent;
  byId("count").textContent = `${list.length.toLocaleString("en")} of ${count(data.rows, "image")} shown. Order: ${order}.`;
  layout();
}
function saveList() {
  const marked = new Set(data.marked); // texts that need a quote in front, as csv_cell (tables/cells.py) decided
  const cell = (value) => {
    const words = marked.has(value) ? `'${value}` : String(value ?? "");
    return /[",\r\n]/.test(words) ? `"${words.replaceAll('"', '""')}"` : words;
  };
  const lines = ["file,prompt,quality,correspondence"];
  for (const row of list) {
    lines.push([data.prefix + data.file[row], coded(data.prompt, row), data.quality[row], data.correspondence[row]].map(cell).join(","));
  }
  const link = make("a", { href: URL.createObjectURL(new Blob([lines.join("\n") + "\n"], { type: "text/csv" })), download: "list.csv" });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}
