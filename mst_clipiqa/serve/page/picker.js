// Drop zones for images, which can also be chosen with the mouse or the keyboard.

import { make } from "./tools.js";

/** Make a label.drop accept files, dropped or chosen; `taken` is called with them. */
export function picker(zone, taken) {
  const input = zone.querySelector("input");
  input.addEventListener("change", () => {
    if (input.files.length) taken([...input.files]);
    input.value = ""; // so that the same file can be chosen again
  });
  for (const kind of ["dragenter", "dragover"]) {
    zone.addEventListener(kind, (event) => {
      event.preventDefault();
      zone.classList.add("over");
    });
  }
  for (const kind of ["dragleave", "drop"]) zone.addEventListener(kind, () => zone.classList.remove("over"));
  zone.addEventListener("drop", (event) => {
    event.preventDefault();
    const files = [...event.dataTransfer.files];
    if (files.length) taken(files);
  });
  zones.push({ zone, taken });
}

const zones = [];

/** Give pasted images to the drop zone under the pointer or with the focus, or else to the first on screen. */
export function catchPastes() {
  window.addEventListener("paste", (event) => {
    const files = [...event.clipboardData.files];
    const seen = zones.filter(({ zone }) => zone.offsetParent);
    const one = seen.find(({ zone }) => zone.matches(":hover, :focus-within")) ?? seen[0];
    if (!files.length || !one) return;
    event.preventDefault();
    one.taken(files);
  });
}

/** Keep a file that is dropped elsewhere from replacing the page. */
export function catchStrays() {
  for (const kind of ["dragover", "drop"]) window.addEventListener(kind, (event) => event.preventDefault());
}

/** Show chosen files as small images, each with a button to remove it. */
export function chosen(list, files, removed) {
  for (const image of list.querySelectorAll("img")) URL.revokeObjectURL(image.src);
  list.replaceChildren(...files.map((file, place) => {
    const image = make("img", { src: URL.createObjectURL(file), alt: "" });
    image.addEventListener("error", () => image.remove());
    const button = make("button", { type: "button", "aria-label": `Remove ${file.name}` }, "×");
    button.addEventListener("click", () => {
      removed(place);
      const left = list.querySelectorAll("button");
      (left[Math.min(place, left.length - 1)] ?? list.parentElement.querySelector("input[type=file]")).focus();
    });
    return make("li", {}, image, make("span", { title: file.name }, file.name), button);
  }));
}
