// Why a picture got its score; shown only where the server can explain.

import { call, form } from "./api.js";
import { make } from "./tools.js";

/** Return a button that asks for an explanation and shows it in its place. */
export function explainButton(file, result) {
  const button = make("button", { type: "button" }, "Why?");
  button.addEventListener("click", async () => {
    button.disabled = true;
    try {
      const answer = await call("/v1/explain", form([file], result.prompt ?? ""));
      button.replaceWith(explanation(await answer.json()));
    } catch (error) {
      button.replaceWith(make("p", { className: "bad" }, error.message));
    }
  });
  return button;
}

function explanation(answer) {
  return make("div", { className: "why" }, ...answer.sentences.map((sentence) => make("p", {}, sentence)));
}
