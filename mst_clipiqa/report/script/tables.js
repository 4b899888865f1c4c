// Tables.
const PAGE = 200;
const LINKED = ["generator", "prompt"]; // columns by which images can be filtered

/** Build a table that sorts by its headings; columns are {name, value(line), cell(line), number}. */
function table(place, lines, columns, caption, start) {
  let sort = start, limit = PAGE, find = "";
  const body = make("tbody"), heads = make("tr"), status = make("p", { className: "soft", role: "status", tabIndex: -1 });
  const more = make("button", { type: "button" }, `Show ${PAGE} more`);
  const fill = () => {
    const words = find.toLowerCase();
    const found = words ? lines.filter((line) => columns.some((c) => !c.number && String(c.value(line)).toLowerCase().includes(words))) : [...lines];
    if (sort) {
      const { value } = columns[sort.at];
      found.sort((a, b) => {
        const [x, y] = [value(a), value(b)];
        if (x === null || y === null) return (x === null) - (y === null);
        return sort.sign * (x < y ? -1 : x > y ? 1 : 0);
      });
    }
    body.replaceChildren(...found.slice(0, limit).map((line) => make("tr", {},
      ...columns.map((column) => make("td", { className: column.number ? "number" : "" }, column.cell(line))))));
    [...heads.children].forEach((head, at) =>
      head.setAttribute("aria-sort", sort && sort.at === at ? (sort.sign > 0 ? "ascending" : "descending") : "none"));
    more.hidden = found.length <= limit;
    status.textContent = `${Math.min(limit, found.length).toLocaleString("en")} of ${count(lines.length, "row")} shown.`;
    [...heads.children].forEach((head, at) => {
      head.firstChild.textContent = columns[at].name + (sort && sort.at === at ? (sort.sign > 0 ? " ↑" : " ↓") : "");
    });
  };
  columns.forEach((column, at) => {
    const button = make("button", { type: "button" }, column.name);
    button.addEventListener("click", () => {
      sort = { at, sign: sort && sort.at === at ? -sort.sign : column.number ? -1 : 1 };
      fill();
    });
    heads.append(make("th", { scope: "col", className: column.number ? "number" : "" }, button));
  });
  more.addEventListener("click", () => {
    limit += PAGE;
    fill();
    if (more.hidden) status.focus(); // a button that goes away loses the focus
  });
  const field = make("input", { type: "search", placeholder: "words" });
  field.addEventListener("input", () => { find = field.value; fill(); });
  if (lines.length > 20) place.append(make("label", { className: "soft" }, "Search", make("div", { className: "find" }, field)));
  place.append(
    make("div", { className: "scroll" }, make("table", {}, make("caption", {}, make("span", {}, caption)), make("thead", {}, heads), body)),
    make("div", { className: "below" }, status, more));
  fill();
}
function whisker(name, [mean, low, high]) {
  const share = (value) => 100 * scale[name].share(value);
  const line = make("span", { className: `whisker ${name}`, ariaHidden: "true" });
  if (low !== null) line.append(make("i", { style: { left: `${share(low)}%`, width: `${share(high) - share(low)}%` } }));
  line.append(make("b", { style: { left: `${share(mean)}%` } }));
  return line;
}
function meanColumn(name) {
  return {
    name: `Mean ${name}${inScale(name)}`, number: true, value: (line) => line[name][0],
    cell: (line) => {
      const [mean, low, high] = line[name];
      if (mean === null) return "–";
      return make("span", {}, fixed(mean), low === null ? "" : ` (${fixed(low)} to ${fixed(high)})`, whisker(name, line[name]));
    },
  };
}
function summaryTable(kind, lines, caption, place = byId(kind + "s")) {
  const columns = [
    { name: capital(kind), value: (line) => line.name, cell: (line) => {
      if (!LINKED.includes(kind)) return line.name;
      const button = make("button", { type: "button", className: "plain", title: "Show these images" }, clamped(line.name));
      button.addEventListener("click", () => goTo({ [kind]: data[kind].names.indexOf(line.name) }));
      return button;
    } },
    ...TARGETS.map(meanColumn), // before the count: on a phone they are on screen
    { name: "Images", number: true, value: (line) => line.rows, cell: (line) => line.rows.toLocaleString("en") },
  ];
  if (strangers) columns.push({ name: "Unfamiliar", number: true, value: (line) => line.unfamiliar, cell: (line) => line.unfamiliar.toLocaleString("en") });
  if (failures) columns.push({ name: "Failed", number: true, value: (line) => line.failed, cell: (line) => line.failed.toLocaleString("en") });
  table(place, lines, columns, caption, TARGETS.length ? { at: 1, sign: -1 } : null);
}
/** Return a text that may be long, cut after a few lines. */
function clamped(text) {
  return make("span", { className: "clamp", ...foreign(text) }, text);
}
/** Return the reasons why rows failed, the most frequent first. */
function reasons() {
  const often = new Map();
  for (const row of data.ok.keys()) if (failed(row)) often.set(coded(data.reason, row), (often.get(coded(data.reason, row)) || 0) + 1);
  const lines = [...often].sort((a, b) => b[1] - a[1]).slice(0, 20);
  if (!lines.length) return [];
  return [make("h2", {}, "Why rows failed"), make("ul", {}, ...lines.map(([why, n]) => make("li", {}, `${n.toLocaleString("en")} × ${why || "no reason given"}`)))];
}
function failedTable() {
  const lines = [...data.ok.keys()].filter(failed), place = byId("failed");
  if (!lines.length) { place.append(make("p", {}, "No row failed.")); return; }
  place.append(...reasons());
  table(place, lines, [
    { name: "File", value: (row) => data.file[row], cell: (row) => data.file[row] },
    { name: "Reason", value: (row) => coded(data.reason, row), cell: (row) => coded(data.reason, row) },
    { name: "Prompt", value: (row) => coded(data.prompt, row), cell: (row) => clamped(coded(data.prompt, row)) },
  ], "Rows that could not be scored.", null);
}
