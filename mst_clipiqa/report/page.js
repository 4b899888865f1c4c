"use strict";
// The script of the report. Everything foreign (names, prompts, reasons) goes on screen through textContent.
(() => {
  // ---------------------------------------------------------------- data and small tools
  const data = JSON.parse(document.getElementById("data").textContent);
  const byId = (id) => document.getElementById(id);
  const TARGETS = ["quality", "correspondence"].filter((name) => data.overall[name][3] > 0);
  const count = (n, one, many = one + "s") => `${n.toLocaleString("en")} ${n === 1 ? one : many}`;
  const fixed = (value) => (value === null || value === undefined ? "–" : value.toFixed(2));
  const capital = (word) => word[0].toUpperCase() + word.slice(1);
  const coded = (column, row) => (column.of[row] < 0 ? "" : column.names[column.of[row]]);
  const failed = (row) => !data.ok[row];

  /** Make an element: properties, then children, where a string is text and never markup. */
  function make(tag, properties = {}, ...children) {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(properties)) {
      if (name === "style") Object.assign(node.style, value);
      else if (name in node) node[name] = value;
      else node.setAttribute(name, value);
    }
    node.append(...children.filter((child) => child !== null));
    return node;
  }

  /** Return round ends and a step for an axis over the values, so that about `parts` steps cover them. */
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
  const scale = Object.fromEntries(TARGETS.map((name) => [name, axis(data[name], 20)]));

  // Thumbnails stand in blocks at the end of the file: a block is split when one of its pictures is first shown.
  const blocks = new Map();
  function thumbnail(row) {
    const place = data.thumbnail[row], block = Math.floor(place / data.chunk);
    if (!blocks.has(block)) {
      const node = byId(`t${block}`);
      if (!node || (document.readyState === "loading" && !node.nextSibling)) return null; // still on its way
      blocks.set(block, node.textContent.split("\n"));
    }
    return blocks.get(block)[place % data.chunk];
  }
  const waiting = new Map(); // frames that are on screen before their picture has arrived
  function fill(frame, row, alt = "") {
    const image = thumbnail(row);
    if (image === null) { waiting.set(frame, [row, alt]); return; }
    if (image) frame.replaceChildren(make("img", { src: `data:image/webp;base64,${image}`, alt, decoding: "async" }));
    else frame.replaceChildren("no picture");
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

  // ---------------------------------------------------------------- a picture as a card
  function meter(name, row) {
    const value = data[name][row];
    if (value === null) return null;
    const bar = make("i", {}, make("i", { style: { width: `${100 * scale[name].share(value)}%` } }));
    return make("span", { className: `meter ${name}` }, `${name[0].toUpperCase()} ${fixed(value)}`, bar);
  }
  function label(row) {
    const parts = [data.file[row]];
    for (const name of TARGETS) if (data[name][row] !== null) parts.push(`${name} ${fixed(data[name][row])}`);
    if (failed(row)) parts.push("failed: " + coded(data.reason, row));
    if (coded(data.prompt, row)) parts.push("prompt: " + coded(data.prompt, row));
    return parts.join(", ");
  }
  function card(row, open) {
    const frame = make("span", { className: "thumb" });
    const words = make("span", { className: "words" },
      failed(row)
        ? make("span", { className: "line bad" }, "failed: " + coded(data.reason, row))
        : make("span", { className: "meters" }, ...TARGETS.map((name) => meter(name, row))),
      make("span", { className: "line" }, coded(data.prompt, row) || "no prompt"),
      make("span", { className: "line soft" }, data.file[row]));
    const node = make("button", { type: "button", className: "card", title: data.file[row] }, frame, words);
    node.setAttribute("aria-label", label(row));
    node.addEventListener("click", () => open(node));
    fill(frame, row);
    return node;
  }

  /** Let Tab reach one button of a row, and the arrow keys the others. */
  function rove(box) {
    const buttons = [...box.querySelectorAll("button:not(:disabled)")];
    buttons.forEach((button, at) => { button.tabIndex = at ? -1 : 0; });
    box.addEventListener("keydown", (event) => {
      const at = buttons.indexOf(document.activeElement), last = buttons.length - 1;
      const to = { ArrowRight: Math.min(last, at + 1), ArrowLeft: Math.max(0, at - 1), Home: 0, End: last }[event.key];
      if (to === undefined || at < 0) return;
      event.preventDefault();
      buttons[at].tabIndex = -1;
      buttons[to].tabIndex = 0;
      buttons[to].focus();
    });
    return box;
  }

  // ---------------------------------------------------------------- tabs
  const TABS = [["overview", "Overview"], ["pictures", `Pictures (${data.rows.toLocaleString("en")})`]];
  if (data.generators.length) TABS.push(["generators", `Generators (${data.generators.length})`]);
  if (data.prompts.length) TABS.push(["prompts", `Prompts (${data.prompts.length.toLocaleString("en")})`]);
  const failures = data.ok.reduce((sum, ok) => sum + (ok ? 0 : 1), 0);
  TABS.push(["failed", `Failed (${failures.toLocaleString("en")})`]);
  const built = new Set();
  let shownTab = "";

  function showTab(name, focus = false) {
    if (!TABS.some(([tab]) => tab === name)) name = "overview";
    shownTab = name;
    for (const [tab] of TABS) {
      const button = byId(`tab-${tab}`), selected = tab === name;
      button.setAttribute("aria-selected", selected);
      button.tabIndex = selected ? 0 : -1;
      if (selected && focus) button.focus();
      byId(tab).hidden = !selected;
    }
    if (!built.has(name)) { built.add(name); build[name](); }
    if (name === "pictures") layout();
    if (location.hash !== `#/${name}`) history.replaceState(null, "", `#/${name}`); // no id: it must not scroll
  }
  function buildTabs() {
    const bar = byId("tabs");
    for (const [tab, words] of TABS) {
      const button = make("button", { type: "button", id: `tab-${tab}` }, words);
      button.setAttribute("role", "tab");
      button.setAttribute("aria-controls", tab);
      button.addEventListener("click", () => showTab(tab));
      bar.append(button);
    }
    bar.addEventListener("keydown", (event) => {
      const at = TABS.findIndex(([tab]) => tab === shownTab), last = TABS.length - 1;
      const to = { ArrowRight: at === last ? 0 : at + 1, ArrowLeft: at ? at - 1 : last, Home: 0, End: last }[event.key];
      if (to === undefined) return;
      event.preventDefault();
      showTab(TABS[to][0], true);
    });
    window.addEventListener("hashchange", () => showTab(location.hash.slice(2)));
  }

  // ---------------------------------------------------------------- overview
  const bounds = ([, low, high]) => (low === null ? "" : `95 % interval ${fixed(low)} to ${fixed(high)}`);

  function tile(value, words, more, tint = "") {
    return make("div", { className: `tile ${tint}` }, make("b", {}, value), words,
      more ? make("span", { className: "soft" }, make("br"), more) : null);
  }
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
      const words = `${name} ${+low.toFixed(places)} to ${+high.toFixed(places)}: ${count(number, "picture")}`;
      const height = number ? `max(2px, ${(100 * number) / most}%)` : "0";
      const bar = make("button", { type: "button", title: words, disabled: !number }, make("span", { style: { height } }));
      bar.setAttribute("aria-label", `${words}. Show them.`);
      bar.addEventListener("click", () => goTo({ [`${name}-low`]: lowest[bin], [`${name}-high`]: highest[bin] }));
      return bar;
    });
    const middle = (ends.low + ends.high) / 2;
    return make("div", { className: `chart ${name}` }, make("h2", {}, `${capital(name)}: how many pictures`),
      rove(make("div", { className: "bars", role: "group", ariaLabel: `Histogram of ${name}, arrow keys move` }, ...bars)),
      make("div", { className: "ends" }, ...[ends.low, middle, ends.high].map((end) => make("span", {}, fixed(end)))),
      make("p", { className: "soft" }, `Tallest bar: ${count(most, "picture")}. A bar opens its pictures.`));
  }

  const PALETTE = ["#3b82f6", "#e8590c", "#2f9e44", "#ae3ec9", "#0c8599", "#e03131", "#f08c00", "#868e96"];
  const colour = (row) => PALETTE[data.generators.length > 1 ? Math.max(0, Math.min(data.generator.of[row], 7)) : 0];

  function scatter() {
    const rows = [...data.quality.keys()].filter((row) => data.quality[row] !== null && data.correspondence[row] !== null);
    const words = `Quality (across) against correspondence (up) of ${count(rows.length, "picture")}` +
      (data.correlation === null ? "" : `; rank correlation ${fixed(data.correlation)}`);
    const canvas = make("canvas", { role: "img", title: "" });
    canvas.setAttribute("aria-label", `${words}. The same scores are in the tab Pictures.`);
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
    return make("div", { className: "chart" }, make("h2", {}, "Quality against correspondence"), canvas, legend,
      make("p", { className: "soft" }, words + "."));
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
    tiles.append(tile(data.rows.toLocaleString("en"), data.rows === 1 ? "picture" : "pictures",
      failures ? `${failures.toLocaleString("en")} failed` : "none failed"));
    for (const name of TARGETS) tiles.append(tile(fixed(data.overall[name][0]), `mean ${name}`, bounds(data.overall[name]), name));
    if (data.prompts.length) tiles.append(tile(data.prompts.length.toLocaleString("en"), data.prompts.length === 1 ? "prompt" : "prompts"));
    if (data.generators.length) tiles.append(tile(data.generators.length, data.generators.length === 1 ? "generator" : "generators"));
    byId("charts").append(...TARGETS.map(histogram));
    if (TARGETS.length === 2) byId("charts").append(scatter());
    byId("strips").append(...data.strips.map(strip));
    if (!data.unsure && TARGETS.length) {
      byId("strips").append(make("p", { className: "soft" },
        "Least sure: the table does not say how sure one score is beside another."));
    }
  }

  // ---------------------------------------------------------------- pictures: filters
  const fields = {};
  let list = []; // the rows on show, in order
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
    if (data.unsure) options.push(["unsure-down", "Least sure first"]);
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
    if (data.prompts.length > 1 && data.prompts.length <= 2000) form.append(labelled("Prompt", select("prompt", names(data.prompt))));
    form.append(labelled("Status", select("status", [["", "all"], ["ok", "scored"], ["error", "failed"]])));
    const reset = make("button", { type: "reset" }, "Reset");
    const save = make("button", { type: "button" }, "Save list (CSV)");
    save.addEventListener("click", saveList);
    form.append(make("div", { className: "actions" }, reset, save));
    let timer = 0;
    byId("filter-box").open = innerWidth > 700; // on a phone the pictures come first
    form.addEventListener("input", () => { clearTimeout(timer); timer = setTimeout(refresh, 80); });
    form.addEventListener("reset", () => setTimeout(refresh));
    form.addEventListener("submit", (event) => { event.preventDefault(); refresh(); });
  }
  /** Show the pictures tab with these filters and no others. */
  function goTo(values) {
    showTab("pictures");
    byId("filters").reset();
    for (const [name, value] of Object.entries(values)) {
      if (fields[name]) fields[name].value = value;
      else fields.search.value = name === "prompt" ? data.prompt.names[value] : value;
    }
    refresh();
    byId("tab-pictures").focus();
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
    if (fields.status.value) tests.push((row) => failed(row) === (fields.status.value === "error"));
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
      if (x === null || y === null) return (x === null) - (y === null) || a - b; // those without a value come last
      return sign * (x - y) || a - b;
    });
  }
  function refresh() {
    list = sorted([...data.ok.keys()].filter(passes()));
    active = 0;
    cards.clear();
    byId("gallery").replaceChildren();
    const order = fields.sort.selectedOptions[0].textContent;
    byId("count").textContent = `${list.length.toLocaleString("en")} of ${count(data.rows, "picture")} shown. Order: ${order}.`;
    layout();
  }
  function saveList() {
    // A quote before what a spreadsheet would run, as the tables of the command line have it.
    const cell = (value) => {
      const words = typeof value === "string" && /^'*[=+\-@\t\r\n＝＋－＠]/.test(value) ? `'${value}` : String(value ?? "");
      return /[",\r\n]/.test(words) ? `"${words.replaceAll('"', '""')}"` : words;
    };
    const lines = ["file,prompt,quality,correspondence"];
    for (const row of list) {
      lines.push([data.file[row], coded(data.prompt, row), data.quality[row], data.correspondence[row]].map(cell).join(","));
    }
    const link = make("a", { href: URL.createObjectURL(new Blob([lines.join("\n") + "\n"], { type: "text/csv" })), download: "list.csv" });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  }

  // ---------------------------------------------------------------- pictures: only the cards on screen exist
  const cards = new Map(); // place in the list -> list item
  let active = 0; // the place that Tab reaches; arrows move it
  const grid = { columns: 1, width: 0, height: 0, gap: 12 };

  function layout() {
    const gallery = byId("gallery"), room = gallery.clientWidth;
    if (!room) return;
    grid.columns = Math.max(2, Math.floor((room + grid.gap) / (190 + grid.gap)));
    grid.width = (room - grid.gap * (grid.columns - 1)) / grid.columns;
    grid.height = grid.width + 4.7 * parseFloat(getComputedStyle(document.documentElement).fontSize);
    gallery.style.height = `${Math.ceil(list.length / grid.columns) * (grid.height + grid.gap)}px`;
    for (const [place, item] of cards) position(item, place);
    render();
  }
  function position(item, place) {
    const left = (place % grid.columns) * (grid.width + grid.gap);
    const top = Math.floor(place / grid.columns) * (grid.height + grid.gap);
    Object.assign(item.style, { width: `${grid.width}px`, height: `${grid.height}px`, transform: `translate(${left}px, ${top}px)` });
  }
  function render() {
    const gallery = byId("gallery"), step = grid.height + grid.gap, spare = 2;
    if (!grid.width || shownTab !== "pictures") return;
    const above = -gallery.getBoundingClientRect().top;
    const first = Math.max(0, Math.floor(above / step) - spare) * grid.columns;
    const last = Math.min(list.length, (Math.ceil((above + innerHeight) / step) + spare) * grid.columns);
    for (const [place, item] of cards) {
      if ((place < first || place >= last) && !item.contains(document.activeElement)) { item.remove(); cards.delete(place); }
    }
    let next = gallery.firstChild;
    for (let place = first; place < last; place += 1) {
      while (next && next.place < place) next = next.nextSibling;
      if (cards.has(place)) continue;
      const item = make("div", { role: "listitem" }, card(list[place], (node) => { activate(place); view(list, place, node); }));
      item.place = place;
      item.setAttribute("aria-setsize", list.length);
      item.setAttribute("aria-posinset", place + 1);
      position(item, place);
      cards.set(place, item);
      gallery.insertBefore(item, next);
    }
    mark(first, last);
  }
  /** Let Tab reach one card: the active one, or the first on screen while that is far away. */
  function mark(first, last) {
    const reachable = cards.has(active) ? active : Math.min(first + 2 * grid.columns, Math.max(first, last - 1));
    for (const [place, item] of cards) item.firstChild.tabIndex = place === reachable ? 0 : -1;
  }
  function activate(place) {
    active = place;
    for (const [other, item] of cards) item.firstChild.tabIndex = other === place ? 0 : -1;
  }
  function focusPlace(place) {
    const top = byId("gallery").getBoundingClientRect().top + scrollY;
    const row = Math.floor(place / grid.columns) * (grid.height + grid.gap) + top;
    if (row < scrollY + 8) scrollTo(0, row - 8);
    else if (row + grid.height > scrollY + innerHeight) scrollTo(0, row + grid.height - innerHeight + 16);
    active = place;
    render();
    if (!cards.has(place)) return;
    activate(place);
    cards.get(place).firstChild.focus({ preventScroll: true });
  }
  function galleryKeys(event) {
    const item = event.target.closest("[role=listitem]");
    if (!item || !list.length || event.altKey || event.ctrlKey || event.metaKey) return;
    const page = grid.columns * Math.max(1, Math.floor(innerHeight / (grid.height + grid.gap)));
    const by = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: grid.columns, ArrowUp: -grid.columns, PageDown: page, PageUp: -page };
    let to = { Home: 0, End: list.length - 1 }[event.key];
    if (event.key in by) to = item.place + by[event.key];
    if (to === undefined) return;
    event.preventDefault();
    focusPlace(Math.max(0, Math.min(list.length - 1, to)));
  }
  function buildPictures() {
    buildFilters();
    byId("gallery").addEventListener("keydown", galleryKeys);
    let asked = false;
    const soon = (work) => () => {
      if (asked) return;
      asked = true;
      requestAnimationFrame(() => { asked = false; work(); });
    };
    addEventListener("scroll", soon(render), { passive: true });
    addEventListener("resize", soon(layout));
    refresh();
  }

  // ---------------------------------------------------------------- one picture
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
      make("span", { className: "heard" }, `: ${label(row)}`));
    byId("viewer-previous").disabled = at === 0;
    byId("viewer-next").disabled = at === rows.length - 1;
    fill(byId("viewer-picture"), row, coded(data.prompt, row) || data.file[row]);
    byId("viewer-facts").replaceChildren(...about(row));
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
      const words = fixed(data[name][row]) + (both[0] === null ? "" : ` (90 % interval ${fixed(both[0])} to ${fixed(both[1])})`);
      term(capital(name), make("span", {}, words, data[name][row] === null ? null : meterBar(name, row)));
    }
    term("Prompt", coded(data.prompt, row));
    term("Generator", coded(data.generator, row));
    term("Status", failed(row) ? make("span", { className: "bad" }, "failed") : "scored");
    term(failed(row) ? "Reason" : "Note", coded(data.reason, row));
    if (data.gate[row] !== null) term("Gate", shares([["coarse view", data.gate[row]], ["fine view", 1 - data.gate[row]]]));
    term("Size", data.size[row]);
    for (const [name, values] of Object.entries(data.extra)) term(name === "model" ? "Model" : name, values[row] === null ? "" : String(values[row]));
    const link = data.link[row] && make("a", { href: data.link[row], target: "_blank", rel: "noopener noreferrer" }, "Open the original file");
    return [make("h2", { id: "viewer-name" }, data.file[row]), terms, ...(link ? [make("p", {}, link)] : [])];
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
      if (event.key === "ArrowLeft") turn(-1);
      else if (event.key === "ArrowRight") turn(1);
    });
    viewer.addEventListener("close", () => {
      if (viewed.rows === list && shownTab === "pictures") focusPlace(viewed.at);
      else if (viewed.from) viewed.from.focus();
    });
  }

  // ---------------------------------------------------------------- tables
  const PAGE = 200;

  /** Build a table that sorts by its heads; columns are {name, value(line), cell(line), number, up}. */
  function table(place, lines, columns, caption, start) {
    let sort = start, limit = PAGE, find = "";
    const body = make("tbody"), heads = make("tr"), status = make("p", { className: "soft", role: "status" });
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
    more.addEventListener("click", () => { limit += PAGE; fill(); });
    const field = make("input", { type: "search", placeholder: "words" });
    field.addEventListener("input", () => { find = field.value; fill(); });
    if (lines.length > 20) place.append(make("label", { className: "soft" }, "Search", make("div", { className: "find" }, field)));
    place.append(
      make("div", { className: "scroll" }, make("table", {}, make("caption", {}, caption), make("thead", {}, heads), body)),
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
      name: `Mean ${name}`, number: true, value: (line) => line[name][0],
      cell: (line) => {
        const [mean, low, high] = line[name];
        if (mean === null) return "–";
        return make("span", {}, fixed(mean), low === null ? "" : ` (${fixed(low)} to ${fixed(high)})`, whisker(name, line[name]));
      },
    };
  }
  function summaryTable(kind, lines, caption) {
    const columns = [
      { name: capital(kind), value: (line) => line.name, cell: (line) => {
        const button = make("button", { type: "button", className: "plain", title: "Show its pictures" }, line.name);
        button.addEventListener("click", () => goTo({ [kind]: data[kind].names.indexOf(line.name) }));
        return button;
      } },
      { name: "Pictures", number: true, value: (line) => line.rows, cell: (line) => line.rows.toLocaleString("en") },
      ...TARGETS.map(meanColumn),
    ];
    if (failures) columns.push({ name: "Failed", number: true, value: (line) => line.failed, cell: (line) => line.failed.toLocaleString("en") });
    table(byId(kind + "s"), lines, columns, caption, TARGETS.length ? { at: 2, sign: -1 } : null);
  }
  function failedTable() {
    const lines = [...data.ok.keys()].filter(failed), place = byId("failed");
    if (!lines.length) { place.append(make("p", {}, "No row failed.")); return; }
    const reasons = new Map();
    for (const row of lines) reasons.set(coded(data.reason, row), (reasons.get(coded(data.reason, row)) || 0) + 1);
    const often = [...reasons].sort((a, b) => b[1] - a[1]);
    place.append(make("h2", {}, "Why"), make("ul", {}, ...often.slice(0, 20).map(([why, n]) => make("li", {}, `${n.toLocaleString("en")} × ${why || "no reason given"}`))));
    table(place, lines, [
      { name: "File", value: (row) => data.file[row], cell: (row) => data.file[row] },
      { name: "Reason", value: (row) => coded(data.reason, row), cell: (row) => coded(data.reason, row) },
      { name: "Prompt", value: (row) => coded(data.prompt, row), cell: (row) => coded(data.prompt, row) },
    ], "Rows that could not be scored.", null);
  }

  // ---------------------------------------------------------------- start
  const HOW = "Means with 95 % bootstrap intervals in brackets; pictures of one prompt are resampled together.";
  const build = {
    overview: buildOverview,
    pictures: buildPictures,
    generators: () => summaryTable("generator", data.generators, HOW),
    prompts: () => summaryTable("prompt", data.prompts,
      "Means with 95 % bootstrap intervals over the prompt's pictures in brackets; with few pictures these are too narrow."),
    failed: failedTable,
  };
  const models = data.extra.model ? [...new Set(data.extra.model.filter(Boolean))] : [];
  byId("summary").textContent = `${count(data.rows, "picture")}${failures ? `, ${failures.toLocaleString("en")} of them failed` : ""}` +
    (models.length ? `; scored by ${models.join(", ")}` : "");
  buildTabs();
  buildViewer();
  showTab(location.hash.slice(2));
})();
