// Why an image got its score.

import { call, check, form } from "./api.js";
import { capital, make, signed } from "./tools.js";

/** Return a button that fetches an explanation and is replaced by it. */
export function explainButton(file, result) {
  const button = make("button", { type: "button", "aria-label": `Why did ${result.file} get this score?` }, "Why?");
  const show = (shown) => {
    const { activeElement } = document;
    const waits = activeElement === document.body || activeElement === button; // not if the person went on elsewhere
    button.replaceWith(shown);
    if (waits) shown.focus();
  };
  button.addEventListener("click", async () => {
    button.disabled = true;
    button.textContent = "Explaining …";
    button.setAttribute("aria-label", `Explaining … ${result.file}`);
    try {
      await check(file);
      const answer = await call("/v1/explain", form([file], result.prompt ?? ""));
      show(explanation(await answer.json()));
    } catch (error) {
      const again = explainButton(file, result);
      show(make("div", { tabIndex: -1 }, make("p", { className: "bad", role: "alert" }, error.message), again));
    }
  });
  return button;
}

function explanation({ explanation: found, overlays }) {
  const maps = Object.entries(found.maps).map(([target, map]) => make("div", {},
    make("h3", {}, `Where ${target} is lost`),
    make("div", { className: "maps" }, ...Object.entries(overlays[target]).map(([stream, image]) => figure(map, stream, image)))));
  const words = Object.entries(found.words).filter(([, some]) => some.length).map(([target, some]) => wordList(target, some));
  return make("div", { className: "why", tabIndex: -1, role: "group", "aria-label": "Why this score" }, ...maps, ...words);
}

function figure(map, stream, overlay) {
  const where = worst(map, stream);
  const caption = `${stream === "both" ? "Both streams" : `${capital(stream)} stream`}: most is lost ${where}.`;
  const shown = make("img", { src: `data:image/webp;base64,${overlay}`, alt: caption });
  return make("figure", {}, shown, make("figcaption", { className: "soft small" }, caption));
}

/** Return the position of the worst window in words. */
function worst(map, stream) {
  const [left, top, right, bottom] = map.worst[stream];
  const third = (x, names) => names[Math.min(2, Math.floor(3 * x))];
  const high = third((top + bottom) / 2, ["at the top", "in the middle", "at the bottom"]);
  const wide = third((left + right) / 2, [" left", "", " right"]);
  return high + wide;
}

/** Return what each word of the prompt adds. */
function wordList(target, words) {
  const largest = Math.max(...words.map((one) => Math.abs(one.effect)), 1e-9);
  const bar = ({ effect }) => {
    const width = (50 * Math.abs(effect)) / largest;
    return make("i", { className: `fill ${effect < 0 ? "down" : "up"}`, style: { left: `${effect < 0 ? 50 - width : 50}%`, width: `${width}%` } });
  };
  const rows = words.map((one) => make("li", {},
    make("span", {}, one.word),
    make("span", { className: "meter both-ways", "aria-hidden": "true" }, bar(one)),
    make("span", { className: "number" }, signed(one.effect))));
  return make("div", {}, make("h3", {}, `What each word adds to ${target}`), make("ul", { className: `levels ${target}` }, ...rows));
}
