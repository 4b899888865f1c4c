// A file of prompts beside the images: .csv or .jsonl with the columns file and prompt.

/** Return whether a file holds prompts rather than an image. */
export const holdsPrompts = (file) => /\.(csv|jsonl)$/i.test(file.name);

/** Return a map of file name to prompt; throws an Error if the file is invalid. */
export async function readPrompts(file) {
  const text = (await file.text()).replace(/^\uFEFF/, "");
  const rows = /\.csv$/i.test(file.name) ? ofCsv(text) : ofLines(text);
  const found = new Map();
  for (const row of rows) {
    const name = row.file ?? row.file_name;
    if (typeof name !== "string" || typeof row.prompt !== "string") {
      throw new Error(`Expected the columns file and prompt in ${file.name}, got ${Object.keys(row).join(", ") || "none"}.`);
    }
    found.set(name.split(/[\\/]/).pop(), row.prompt);
  }
  return found;
}

function ofLines(text) {
  return text.split("\n").filter((line) => line.trim()).map((line, place) => {
    try {
      return Object(JSON.parse(line));
    } catch {
      throw new Error(`Expected JSON in each line, got other text in line ${place + 1}.`);
    }
  });
}

function ofCsv(text) {
  const rows = [[""]];
  let quoted = false;
  for (let at = 0; at < text.length; at++) {
    const sign = text[at], row = rows.at(-1);
    if (sign === '"' && quoted && text[at + 1] === '"') row[row.length - 1] += text[++at];
    else if (sign === '"') quoted = !quoted;
    else if (sign === "," && !quoted) row.push("");
    else if (sign === "\n" && !quoted) rows.push([""]);
    else if (sign !== "\r" || quoted) row[row.length - 1] += sign;
  }
  const [names, ...lines] = rows.filter((row) => row.length > 1 || row[0]);
  return lines.map((cells) => Object.fromEntries((names ?? []).map((name, place) => [name.trim(), cells[place]])));
}
