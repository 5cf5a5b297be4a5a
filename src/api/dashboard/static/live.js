// Keeps a part of a page as the server has it now, without taking focus, selection or opened details from whoever reads it.

import { Problem, answered, showTimes } from "/static/page.js";

/**
 * Ask whether what changes on a page is another by now, and show it: each part of it in the element of the same id. `region` has
 * `data-live`, the address to ask, and `data-tag`, the entity tag of what is shown. Whether anything is new; throws `Problem`.
 */
export async function refresh(region, signal) {
  const headers = { Accept: "text/html", "HX-Request": "true", "If-None-Match": region.dataset.tag };
  const [response, text] = await asked(region.dataset.live, headers, signal);
  if (response.status === 304) return false;
  region.dataset.tag = response.headers.get("ETag") ?? "";
  const fresh = new DOMParser().parseFromString(text, "text/html").body;
  showTimes(fresh);
  for (const part of fresh.children) {
    const shown = document.getElementById(part.id);
    if (shown) morph(shown, part);
  }
  return true;
}

/** A JSON document with its entity tag, null where it still has the `tag` of what is there already. Throws `Problem`. */
export async function documentIfNew(path, tag) {
  const [response, text] = await asked(path, { Accept: "application/json", "HX-Request": "true", "If-None-Match": tag });
  if (response.status === 304) return null;
  return { tag: response.headers.get("ETag") ?? "", document: JSON.parse(text) };
}

async function asked(path, headers, signal) {
  const found = await answered(path, { headers, signal });
  if (!found[0].ok && found[0].status !== 304) throw new Problem(found[0].status);
  return found;
}

// The children of one element become those of another, and every node that can be kept is. An element with `data-keep` keeps its
// children, and details stay open or closed as they are.
function morphChildren(target, source) {
  const wanted = [...source.childNodes];
  const ids = new Set(wanted.map((node) => node.id).filter(Boolean));
  let place = target.firstChild;
  for (const node of wanted) {
    // What is gone goes first: a node that is moved would lose the focus.
    while (place?.id && !ids.has(place.id)) place = removed(place);
    if (place && alike(place, node)) {
      morph(place, node);
      place = place.nextSibling;
      continue;
    }
    const later = node.id ? [...target.children].find((child) => child.id === node.id) : undefined;
    target.insertBefore(later ?? document.importNode(node, true), place);
    if (later) morph(later, node);
  }
  while (place) place = removed(place);
}

function removed(node) {
  const next = node.nextSibling;
  node.remove();
  return next;
}

function alike(one, other) {
  return one.nodeType === other.nodeType && one.nodeName === other.nodeName && (one.id ?? "") === (other.id ?? "");
}

function morph(target, source) {
  if (target.nodeType !== Node.ELEMENT_NODE) {
    if (target.nodeValue !== source.nodeValue) target.nodeValue = source.nodeValue;
    return;
  }
  for (const { name, value } of source.attributes) {
    if (target.getAttribute(name) !== value) target.setAttribute(name, value);
  }
  for (const { name } of [...target.attributes]) {
    if (!source.hasAttribute(name) && name !== "open") target.removeAttribute(name);
  }
  if (!target.hasAttribute("data-keep")) morphChildren(target, source);
}
