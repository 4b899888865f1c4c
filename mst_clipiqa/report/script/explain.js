// Why an image got its score: the explanations in the page, and the levels of the table.
const explained = new Set(data.explained);
const perCent = (thousandths) => `${(thousandths / 10).toFixed(thousandths < 100 ? 1 : 0)} %`;

/** Return the probability of each quality level: name, bar, number. */
function levels(row, found) {
  const shares = (data.levels && data.levels[row]) || (found && found.levels);
  if (!shares) return [];
  const lines = shares.map((share, at) => make("li", {}, make("span", {}, data.level_names[at]),
    make("i", { ariaHidden: "true" }, make("i", { style: { width: `${share / 10}%` } })), make("span", { className: "number" }, perCent(share))));
  return [make("h3", {}, "Probability of each quality level"), make("ul", { className: "levels quality" }, ...lines)];
}
/** Return the maps side by side; a map that is pressed replaces the image until it is pressed again. */
function maps(found, frame, back) {
  const box = make("div", { className: "maps" });
  for (const { stream, words, image } of found.maps) {
    const src = `data:image/webp;base64,${image}`;
    const name = stream === "both" ? "both streams" : `${stream} stream`;
    const button = make("button", { type: "button", ariaPressed: "false", title: "Enlarge" }, make("img", { src, alt: capital(words) }), name);
    button.addEventListener("click", () => {
      const on = button.ariaPressed === "false";
      for (const other of box.children) other.ariaPressed = "false";
      button.ariaPressed = String(on);
      if (on) frame.replaceChildren(make("img", { src, alt: capital(words) }));
      else back();
    });
    box.append(button);
  }
  return [make("h3", {}, `Where ${found.target} is lost`), box,
    make("ul", { className: "said" }, ...found.maps.map(({ words }) => make("li", {}, capital(words)))),
    make("p", { className: "soft" }, "Red, with a frame: where most is lost, in log-odds for quality. Click a map to enlarge it.")];
}
function words(found) {
  return Object.entries(found.words).filter(([, list]) => list.length).map(([name, list]) => {
    const most = Math.max(0.05, ...list.map(([, effect]) => Math.abs(effect)));
    const lines = list.map(([word, effect, attention]) => {
      const width = 50 * Math.abs(effect) / most, left = effect < 0 ? 50 - width : 50;
      const bar = make("i", { className: `effect ${effect < 0 ? "down" : "up"}`, ariaHidden: "true" }, make("i", { style: { left: `${left}%`, width: `${width}%` } }));
      return make("tr", {}, make("td", {}, word), make("td", { className: "number" }, bar, make("span", { className: "change" }, signed(effect))),
        make("td", { className: "number" }, attention === null ? "–" : `${Math.round(100 * attention)} %`));
    });
    const head = ["Word", "Change", "Attention"].map((one, at) => make("th", { scope: "col", className: at ? "number" : "" }, one));
    return make("table", { className: "words-table" }, make("caption", {}, `Effect of each word: ${name} with the word minus ${name} without it`),
      make("thead", {}, make("tr", {}, ...head)), make("tbody", {}, ...lines));
  });
}
/** Return all explanations of a row; `back` shows the image again. */
function why(row, frame, back) {
  const block = explained.has(row) ? byId(`e${row}`) : null;
  const found = block && JSON.parse(block.textContent);
  if (!found) {
    const hint = explained.size && !failed(row) ? [make("p", { className: "soft" }, "Only the best, worst and least certain images have maps and words here; for others, run mst-clipiqa explain.")] : [];
    return [...levels(row, null), ...hint];
  }
  return [...maps(found, frame, back), ...levels(row, found), make("h3", {}, "Coarse and fine stream"),
    make("ul", { className: "said" }, ...found.streams.map((line) => make("li", {}, capital(line)))), ...words(found)];
}
