// Requests to the server, and how its rejections are handled.

import { megabytes } from "./tools.js";

const TRIES = 20; // per request: a busy server says after how many seconds to try again
const AT_ONCE = 4; // parallel requests; the server batches them

/** What is said of images that were not scored because the token was refused. */
export const NO_TOKEN = "lacked the right token";

/** Model, ranges and limits of the server; filled by `enter`. */
export const info = {};

/** Tells of "entered", when `info` was fetched, and of "refused", when a request lacked the right token. */
export const server = new EventTarget();

let token = sessionStorage.getItem("token") ?? "";

/** A request that was not answered, with the reason in one sentence. */
export class Rejected extends Error {
  constructor(status, sentence) {
    super(sentence);
    this.status = status;
  }
}

/** Fetch `info`, with a token if the server needs one; Rejected(401) if the token is missing or wrong. */
export async function enter(given = token) {
  token = given;
  if (/[^!-~]/.test(token)) throw refused(token); // no header can carry it
  Object.assign(info, await (await call("/v1/info")).json());
  if (token) sessionStorage.setItem("token", token);
  server.dispatchEvent(new Event("entered"));
}

/** Send a request and return its successful response; a busy server is tried again after the time it named. */
export async function call(path, body = null, signal = null) {
  const used = token;
  const headers = used ? { Authorization: `Bearer ${used}` } : {};
  if (typeof body === "string") headers["Content-Type"] = "application/json";
  for (let attempt = 1; ; attempt++) {
    const response = await reach(path, { method: body === null ? "GET" : "POST", headers, body, signal });
    if (response.ok) return response;
    if (response.status === 401) throw refused(used);
    if (response.status !== 503 || attempt === TRIES) throw new Rejected(response.status, await sentence(response));
    await pause(1000 * (Number(response.headers.get("Retry-After")) || 1), signal);
  }
}

/** Return the rejection of a token, and tell the page, unless another token was entered since. */
function refused(used) {
  if (used === token) server.dispatchEvent(new CustomEvent("refused", { detail: used }));
  return new Rejected(401, `Expected this server's token, got ${used ? "a wrong one" : "none"}: enter the token, then try again.`);
}

async function reach(path, options) {
  try {
    const response = await fetch(path, options);
    return new Response(await response.blob(), response); // to the end: the server may stop midway
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Rejected(0, "Expected an answer, but the server cannot be reached: check that it is running.");
  }
}

async function sentence(response) {
  try {
    return (await response.json()).error;
  } catch {
    return `Expected an answer, got HTTP ${response.status}: see the server's log.`;
  }
}

function pause(milliseconds, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, milliseconds);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(new DOMException("stopped", "AbortError"));
    });
  });
}

/** Reject files that cannot be read, or that the server would reject for their size, before they are sent. */
export async function check(...files) {
  if (!info.limits) await enter(); // it was not reached, or not allowed, when the page opened
  const size = files.reduce((sum, file) => sum + file.size, 0);
  const room = info.limits.max_bytes - 4096; // for the rest of the form
  if (size > room) {
    throw new Rejected(413, `Expected at most ${megabytes(room)}, got ${megabytes(size)}: save the image smaller.`);
  }
  try {
    for (const file of files) await file.slice(0, 1).arrayBuffer();
  } catch {
    throw new Rejected(400, "Expected a file that can be read, got a folder, or a file that has changed since: choose it again.");
  }
}

/** Return a form with images and a prompt. */
export function form(files, prompt) {
  const data = new FormData();
  for (const file of files) data.append("image", file, file.name);
  if (prompt.trim()) data.append("prompt", prompt.trim());
  return data;
}

/** Score one image; a rejection becomes a result with the status "error", and `again` says why another try may help. */
export async function scoreOne(file, prompt, signal = null) {
  try {
    await check(file);
    const answer = await call("/v1/score", form([file], prompt), signal);
    return (await answer.json()).results[0];
  } catch (error) {
    if (!(error instanceof Rejected)) throw error;
    const nothing = { quality: null, correspondence: null, gate: null, familiarity: null, width: null, height: null };
    const reason = error.message.replace(/^[A-Z](?=[a-z])/, (letter) => letter.toLowerCase()).replace(/\.$/, "");
    const unanswered = error.status === 0 || error.status >= 500;
    const again = error.status === 401 ? NO_TOKEN : unanswered ? "got no answer" : "";
    const shown = { words: {}, intervals: {}, levels: null, again };
    return { file: file.name, prompt: prompt || null, ...nothing, status: "error", reason, model: info.model, ...shown };
  }
}

/** Call `work` for each item, a few at a time; stops at the first exception. */
export async function each(items, work) {
  const waiting = items.entries();
  const lane = async () => {
    for (const [place, item] of waiting) await work(item, place);
  };
  await Promise.all(Array.from({ length: AT_ONCE }, lane));
}
