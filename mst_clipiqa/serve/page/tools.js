// Helpers of the page, and those shared with the report.

import { make } from "./dom.js";

export * from "./dom.js";
export const find = (selector, within = document) => within.querySelector(selector);
export const megabytes = (bytes) => `${(bytes / 2 ** 20).toFixed(1)} MB`;

/** Return a small WebP of an image (PNG if the browser cannot write WebP), or null if it cannot be shown. */
export async function thumbnail(file, side = 320) {
  try {
    const whole = await createImageBitmap(file);
    const scale = Math.min(1, side / Math.max(whole.width, whole.height));
    const canvas = make("canvas", {
      width: Math.max(1, Math.round(whole.width * scale)),
      height: Math.max(1, Math.round(whole.height * scale)),
    });
    const context = canvas.getContext("2d");
    context.imageSmoothingQuality = "high";
    context.drawImage(whole, 0, 0, canvas.width, canvas.height);
    whole.close();
    return await new Promise((resolve) => canvas.toBlob(resolve, "image/webp", 0.8));
  } catch {
    return null;
  }
}

/** Make these nodes the children of a place; those already in order are not moved, so that they keep the focus. */
export function arrange(place, nodes) {
  const kept = new Set(nodes);
  for (const node of [...place.childNodes]) if (!kept.has(node)) node.remove();
  let next = place.firstChild;
  for (const node of nodes) {
    if (node === next) next = next.nextSibling;
    else place.insertBefore(node, next);
  }
}

/** Disable a button until the returned function is called, which also gives back the focus that disabling took. */
export function occupy(button) {
  const focused = document.activeElement === button;
  button.disabled = true;
  return () => {
    button.disabled = false;
    if (focused && document.activeElement === document.body) button.focus();
  };
}

/** Offer bytes as a download. */
export function save(blob, name) {
  const link = make("a", { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

/** Return a blob as base64. */
export async function base64(blob) {
  const url = await new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(blob);
  });
  return url.slice(url.indexOf(",") + 1);
}
