// Helpers that the report and the server's page share. Foreign text goes on screen as text, never as markup.
export const count = (n, one, many = `${one}s`) => `${n.toLocaleString("en")} ${n === 1 ? one : many}`;
export const fixed = (value) => (value === null || value === undefined ? "–" : value.toFixed(2));
export const signed = (value) => (Math.abs(value) < 0.005 ? "" : value < 0 ? "−" : "+") + Math.abs(value).toFixed(2);
export const capital = (word) => word[0].toUpperCase() + word.slice(1);
/** Return whether a key has no other key held with it: Alt and an arrow are the browser's own, such as Back. */
export const alone = (event) => !event.altKey && !event.ctrlKey && !event.metaKey;

/** Make an element from properties and children; a string child becomes text. */
export function make(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name === "style") Object.assign(node.style, value);
    else if (name in node) node[name] = value;
    else node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child !== null));
  return node;
}
