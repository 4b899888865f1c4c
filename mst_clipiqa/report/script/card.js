// An image as a card.
const KEY = `On each image, ${TARGETS.map((name) => `${name[0].toUpperCase()} is ${name}`).join(" and ")}.`;
const heard = (words) => make("span", { className: "heard" }, words);
function meter(name, row) {
  const value = data[name][row];
  if (value === null) return null;
  const bar = make("i", {}, make("i", { style: { width: `${100 * scale[name].share(value)}%` } }));
  const letter = make("span", { ariaHidden: "true" }, name[0].toUpperCase()); // for the eye; a screen reader says the word
  return make("span", { className: `meter ${name}`, title: `${name} ${fixed(value)}` }, letter, heard(name), ` ${fixed(value)}`, bar);
}
function label(row) {
  const parts = [data.file[row]];
  for (const name of TARGETS) if (data[name][row] !== null) parts.push(`${name} ${fixed(data[name][row])}`);
  if (explained.has(row)) parts.push("explained");
  if (unfamiliar(row)) parts.push("unlike the training images");
  if (failed(row)) parts.push("failed: " + coded(data.reason, row));
  if (coded(data.prompt, row)) parts.push("prompt: " + coded(data.prompt, row));
  return parts.join(", ");
}
/** Return a button that shows an image and its row; its name for screen readers and voice control is what it shows. */
function card(row, open) {
  const frame = make("span", { className: "thumb" });
  const signs = [explained.has(row) && "why", unfamiliar(row) && "unfamiliar"].filter(Boolean).join(" · ");
  const mark = signs ? make("span", { className: "mark" }, signs, explained.has(row) ? heard(" (explained)") : null) : null;
  const words = make("span", { className: "words" },
    failed(row)
      ? make("span", { className: "two-lines bad" }, "failed: " + coded(data.reason, row))
      : make("span", { className: "meters" }, ...TARGETS.map((name) => meter(name, row))),
    make("span", { className: failed(row) ? "line" : "two-lines", ...foreign(coded(data.prompt, row)) }, coded(data.prompt, row) || "no prompt"),
    make("span", { className: "line soft" }, data.file[row]));
  const node = make("button", { type: "button", className: "card", title: data.file[row] }, frame, mark, words);
  node.addEventListener("click", () => open(node));
  fill(frame, row);
  return node;
}

/** Make one button of a row reachable with Tab, and the others with the arrow keys. */
function rove(box) {
  const buttons = [...box.querySelectorAll("button:not(:disabled)")];
  buttons.forEach((button, at) => { button.tabIndex = at ? -1 : 0; });
  box.addEventListener("keydown", (event) => {
    const at = buttons.indexOf(document.activeElement), last = buttons.length - 1;
    const to = { ArrowRight: Math.min(last, at + 1), ArrowLeft: Math.max(0, at - 1), Home: 0, End: last }[event.key];
    if (to === undefined || at < 0 || !alone(event)) return;
    event.preventDefault();
    buttons[at].tabIndex = -1;
    buttons[to].tabIndex = 0;
    buttons[to].focus();
  });
  return box;
}
