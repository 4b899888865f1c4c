// Images: only the cards on screen exist.
const cards = new Map(); // place in the list -> list item
let active = 0; // the place that Tab reaches; the arrow keys move it
const WORDS = 5.4; // rem: the height of .words in page.css
const grid = { columns: 1, width: 0, height: 0, gap: 12 };
const PRINTED = 200; // images on paper
let printing = false;

function layout() {
  const gallery = byId("gallery"), room = gallery.clientWidth;
  if (!room) return;
  grid.columns = Math.max(2, Math.floor((room + grid.gap) / (190 + grid.gap)));
  grid.width = (room - grid.gap * (grid.columns - 1)) / grid.columns;
  grid.height = grid.width + WORDS * parseFloat(getComputedStyle(document.documentElement).fontSize);
  gallery.style.height = `${Math.ceil(list.length / grid.columns) * (grid.height + grid.gap)}px`;
  for (const [place, item] of cards) position(item, place);
  gallery.dataset.more = list.length > PRINTED ? `Only the first ${PRINTED} images are printed.` : "";
  render();
}
function position(item, place) {
  const left = (place % grid.columns) * (grid.width + grid.gap);
  const top = Math.floor(place / grid.columns) * (grid.height + grid.gap);
  Object.assign(item.style, { width: `${grid.width}px`, height: `${grid.height}px`, transform: `translate(${left}px, ${top}px)` });
}
function render() {
  const gallery = byId("gallery"), step = grid.height + grid.gap, spare = 2;
  if (!grid.width || shownTab !== "images") return;
  const above = -gallery.getBoundingClientRect().top;
  const first = printing ? 0 : Math.max(0, Math.floor(above / step) - spare) * grid.columns;
  const last = Math.min(list.length, printing ? PRINTED : (Math.ceil((above + innerHeight) / step) + spare) * grid.columns);
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
/** Make one card reachable with Tab: the active one, or the first on screen if that is far away. */
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
  if (!item || !list.length || !alone(event)) return;
  const page = grid.columns * Math.max(1, Math.floor(innerHeight / (grid.height + grid.gap)));
  const by = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: grid.columns, ArrowUp: -grid.columns, PageDown: page, PageUp: -page };
  let to = { Home: 0, End: list.length - 1 }[event.key];
  if (event.key in by) to = item.place + by[event.key];
  if (to === undefined) return;
  event.preventDefault();
  focusPlace(Math.max(0, Math.min(list.length - 1, to)));
}
function buildImages() {
  buildFilters();
  byId("gallery").addEventListener("keydown", galleryKeys);
  if (TARGETS.length) byId("count").after(make("p", { className: "soft key" }, KEY));
  let asked = false;
  const soon = (work) => () => {
    if (asked) return;
    asked = true;
    requestAnimationFrame(() => { asked = false; work(); });
  };
  addEventListener("scroll", soon(render), { passive: true });
  addEventListener("resize", soon(layout));
  for (const when of ["beforeprint", "afterprint"]) addEventListener(when, () => { printing = when === "beforeprint"; render(); });
  refresh();
}
