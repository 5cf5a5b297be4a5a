// What every page does, and what every view builds on: calls with the session's token, text made visible, and spoken news.

const MAX_MARKS = 4;
const JOINERS = "\u200c\u200d";
const UNSEEN = /[\p{C}\p{Z}]/u;
const MARK = /\p{M}/u;
// What Python's str.split() takes for white space.
const SPACES = /[\t-\r\x1c-\x20\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]+/u;
const CSRF = "token-mismatch";
const RETRY_AFTER_S = [1, 2, 4, 8, 15];
const BANNER_EVERY_MS = 4000;

let token = document.querySelector('meta[name="csrf-token"]')?.content ?? "";

/** A refusal by the server, or (with status 0) no answer at all. */
export class Problem extends Error {
  /** With the HTTP status, 0 when no answer came, and the problem document. */
  constructor(status, document = {}) {
    super(document.detail ?? document.title ?? `status ${status}`);
    this.name = "Problem";
    this.status = status;
    this.title = document.title ?? `The server answered ${status}`;
    this.detail = document.detail ?? "";
    this.type = document.type ?? "";
    this.errors = document.errors ?? [];
  }

  /** @returns {string} the last part of the type, by which the kind of problem is known */
  get slug() {
    return this.type.slice(this.type.lastIndexOf(":") + 1);
  }
}

/**
 * Call the server; `body` is sent as JSON. A token that has become outdated is renewed once.
 * @param {{headers?: Record<string, string>, idempotencyKey?: string, signal?: AbortSignal}} [options]
 * @returns {Promise<{status: number, headers: Headers, document: any}>} `document` is the text where that is no JSON
 * @throws {Problem} on every answer from 400 on, and with status 0 when none came; an abort stays an AbortError
 */
export async function api(method, path, body, options = {}) {
  try {
    return await call(method, path, body, options);
  } catch (error) {
    if (!(error instanceof Problem) || error.slug !== CSRF || !(await renewToken(options.signal))) throw error;
    return call(method, path, body, options);
  }
}

async function call(method, path, body, { headers = {}, idempotencyKey, signal } = {}) {
  const sent = { Accept: "application/json", ...headers };
  if (body !== undefined) sent["Content-Type"] = "application/json";
  if (!["GET", "HEAD"].includes(method)) sent["X-CSRF-Token"] = token;
  if (idempotencyKey) sent["Idempotency-Key"] = idempotencyKey;
  const payload = body === undefined ? undefined : JSON.stringify(body);
  const [response, text] = await answered(path, { method, headers: sent, body: payload, signal });
  const isJson = /[/+]json\b/.test(response.headers.get("Content-Type") ?? "");
  const found = isJson && text ? JSON.parse(text) : text;
  if (!response.ok) throw new Problem(response.status, isJson ? found : {});
  return { status: response.status, headers: response.headers, document: found };
}

/** The response and its whole text; on 401 to the sign-in. Throws `Problem` where no answer came. */
export async function answered(path, options) {
  let found;
  try {
    const response = await fetch(path, { ...options, credentials: "same-origin", cache: "no-store" });
    found = [response, await response.text()];
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem(0, { title: "No answer came", detail: "The server cannot be reached. Look whether it runs, and try again." });
  }
  if (found[0].status === 401) signedOut();
  return found;
}

/** The document of the answer to what is to happen once, tried again until one comes, which `say` is told. */
export async function sendOnce(path, body, idempotencyKey, say) {
  for (let turn = 0; ; turn += 1) {
    try {
      return (await api("POST", path, body, { idempotencyKey })).document;
    } catch (error) {
      const mayHelp = error instanceof Problem && (error.status === 0 || error.slug === "idempotency-in-progress");
      if (!mayHelp || turn >= RETRY_AFTER_S.length) throw error;
      say(`No answer yet. Trying again in ${RETRY_AFTER_S[turn]} s; it is done only once.`);
      await new Promise((resolve) => setTimeout(resolve, RETRY_AFTER_S[turn] * 1000));
    }
  }
}

// Where the browser keeps nothing for pages, it is kept for as long as the page is there.
const memory = {};

/** What a tab keeps over a reload. */
export const stored = {
  get(name) {
    try {
      return JSON.parse(sessionStorage.getItem(name));
    } catch {
      return memory[name] ?? null;
    }
  },
  set(name, value) {
    memory[name] = value;
    try {
      sessionStorage.setItem(name, JSON.stringify(value));
    } catch {
      return;
    }
  },
};

/** An Idempotency-Key that nobody has used. */
export function newKey() {
  return `room-${Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("")}`;
}

/** Go where one signs in, which says that the session has ended, and leads back here. */
export function signedOut() {
  location.assign(`/sign-in?next=${encodeURIComponent(location.pathname + location.search)}&ended=yes`);
}

async function renewToken(signal) {
  const { document: session } = await call("GET", "/session", undefined, { signal });
  const isNew = session.csrf_token !== "" && session.csrf_token !== token;
  token = session.csrf_token;
  return isNew;
}

/** Text on one line with every unseen character spelt out, as `application.pages.visible_text` does it; `limit` is in characters. */
export function visible(text, limit = Infinity) {
  const whole = [...String(text)];
  const cut = whole.length > limit ? whole.slice(0, limit) : whole;
  const characters = [...cut.join("").split(SPACES).filter(Boolean).join(" ")];
  let marks = 0;
  const shown = characters.map((character, place) => {
    marks = MARK.test(character) ? marks + 1 : 0;
    const isSeen = character === " " || (!UNSEEN.test(character) && marks <= MAX_MARKS);
    return isSeen || joins(characters, place) ? character : spelt(character);
  });
  return shown.join("") + (whole.length > limit ? "..." : "");
}

function joins(characters, place) {
  if (!JOINERS.includes(characters[place])) return false;
  return [characters[place - 1], characters[place + 1]].every(
    (neighbour) => neighbour !== undefined && neighbour.codePointAt(0) > 0x7f && !UNSEEN.test(neighbour),
  );
}

function spelt(character) {
  const code = character.codePointAt(0);
  const hex = (width) => code.toString(16).padStart(width, "0");
  if (code <= 0xff) return `\\x${hex(2)}`;
  return code <= 0xffff ? `\\u${hex(4)}` : `\\U${hex(8)}`;
}

/** An element whose text is only ever text. An attribute that is true has no value, one that is false, null or undefined is left out. */
export function element(tag, options = {}, ...children) {
  const made = document.createElement(tag);
  if (options.class) made.className = options.class;
  if (options.text !== undefined) made.textContent = String(options.text);
  for (const [name, value] of Object.entries(options.attributes ?? {})) {
    if (/^(on|style$)/i.test(name)) throw new TypeError(`no ${name} on pages`);
    if (value === false || value === null || value === undefined) continue;
    made.setAttribute(name, value === true ? "" : String(value));
  }
  made.append(...children);
  return made;
}

/** Text from outside, visible, in a direction of its own. @returns {HTMLElement} */
export function bdi(text, limit = 200) {
  return element("bdi", { text: visible(text, limit) });
}

/** Say something to those who listen to the page. */
export function announce(text, { assertive = false } = {}) {
  const region = document.getElementById(assertive ? "alerts" : "announcements");
  if (!region) return;
  // The same words again are news only to a region that was empty in between.
  region.textContent = "";
  requestAnimationFrame(() => {
    region.textContent = visible(text, 500);
  });
}

/** Let the button not be pressed again until it is released. It keeps the focus, which one that is disabled loses. Whether it was free. */
export function hold(button) {
  if (button.ariaDisabled === "true") return false;
  button.ariaDisabled = "true";
  return true;
}

export function release(button) {
  button.ariaDisabled = null;
}

/** Put the focus on a heading, or another place that takes none by itself. */
export function focusOn(place) {
  if (!place) return;
  place.tabIndex = -1;
  place.focus({ preventScroll: true });
}

const twoDigits = (value) => String(value).padStart(2, "0");

/** Quantities as people read them, "–" for null and undefined. */
export const formatted = {
  /** Such as `4.2 s`, `3:07 min` or `1:02:09 h` */
  duration(seconds) {
    if (seconds === null || seconds === undefined || !Number.isFinite(seconds)) return "–";
    if (seconds < 60) return `${seconds < 10 ? (Math.round(seconds * 10) / 10).toFixed(1) : Math.round(seconds)} s`;
    const whole = Math.round(seconds);
    const [hours, minutes, rest] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
    return hours ? `${hours}:${twoDigits(minutes)}:${twoDigits(rest)} h` : `${minutes}:${twoDigits(rest)} min`;
  },
  /** With at most so many digits after the point. */
  number(value, digits = 2) {
    if (value === null || value === undefined || !Number.isFinite(value)) return "–";
    return new Intl.NumberFormat("en", { maximumFractionDigits: digits }).format(value);
  },
  /** Such as `$0.0042`; a sum below a hundredth keeps two digits that say something */
  money(usd) {
    if (usd === null || usd === undefined || !Number.isFinite(usd)) return "–";
    const digits = usd !== 0 && Math.abs(usd) < 0.01 ? { maximumSignificantDigits: 2 } : { minimumFractionDigits: 2, maximumFractionDigits: 2 };
    return `$${new Intl.NumberFormat("en", digits).format(usd)}`;
  },
  /** RFC 3339, in the reader's zone. */
  time(rfc3339) {
    const at = new Date(rfc3339 ?? NaN);
    if (Number.isNaN(at.getTime())) return "–";
    const day = `${at.getFullYear()}-${twoDigits(at.getMonth() + 1)}-${twoDigits(at.getDate())}`;
    return `${day} ${twoDigits(at.getHours())}:${twoDigits(at.getMinutes())}:${twoDigits(at.getSeconds())}`;
  },
};

/**
 * Do something now (unless that is not to be `atOnce`) and each time the page comes back into view: after another tab, a sleep, or the
 * way back. What is returned ends that.
 */
export function whenVisible(callback, { atOnce = true } = {}) {
  const look = () => {
    if (document.visibilityState === "visible") callback();
  };
  const show = (event) => {
    if (event.persisted) callback();
  };
  document.addEventListener("visibilitychange", look);
  window.addEventListener("pageshow", show);
  if (atOnce) look();
  return () => {
    document.removeEventListener("visibilitychange", look);
    window.removeEventListener("pageshow", show);
  };
}

/** Say every `<time data-time>` within `root` in the reader's zone. */
export function showTimes(root = document) {
  for (const time of root.querySelectorAll("time[data-time]")) {
    time.textContent = formatted.time(time.dateTime);
    time.title = time.dateTime;
  }
}

let bannerTag = "";
let bannerTimer = 0;
let isBannerTold = false;

/** Show what the server has drawn of the halt, in which every text is escaped; empty where nothing is halted. */
export function showHalt(html) {
  const place = document.getElementById("halt-banner");
  if (!place) return;
  const fresh = new DOMParser().parseFromString(html, "text/html").body;
  if (fresh.textContent.trim() === place.textContent.trim()) return;
  place.replaceChildren(...fresh.childNodes);
}

/** Whether this page is told of the halt by the feed that it follows, and so has no need to ask. */
export function haltIsTold(isTold) {
  isBannerTold = isTold;
  if (!isTold) bannerTag = "";
}

/** Ask now what the banner is to say. */
export async function lookAtHalt() {
  clearTimeout(bannerTimer);
  if (!document.getElementById("halt-banner")) return;
  try {
    if (!isBannerTold) await askForBanner();
  } catch {
    // Asked again; that there is no answer is said where somebody waits for one.
  } finally {
    clearTimeout(bannerTimer);
    if (document.visibilityState === "visible") bannerTimer = setTimeout(lookAtHalt, BANNER_EVERY_MS);
  }
}

async function askForBanner() {
  const headers = { Accept: "text/html", "HX-Request": "true", "If-None-Match": bannerTag };
  const response = await fetch("/room/halt", { headers, credentials: "same-origin", cache: "no-store" });
  if (response.status !== 200) return;
  const html = await response.text();
  if (isBannerTold) return;
  bannerTag = response.headers.get("ETag") ?? "";
  showHalt(html);
}

function offerThemes() {
  const place = document.getElementById("theme-choice");
  const choice = document.getElementById("theme");
  if (!place || !choice) return;
  place.hidden = false;
  choice.value = document.documentElement.dataset.theme ?? "";
  choice.addEventListener("change", () => {
    try {
      if (choice.value) localStorage.setItem("conclave-theme", choice.value);
      else localStorage.removeItem("conclave-theme");
    } catch {
      // Shown on this page all the same.
    }
    if (choice.value) document.documentElement.dataset.theme = choice.value;
    else delete document.documentElement.dataset.theme;
    document.dispatchEvent(new CustomEvent("conclave:theme"));
  });
}

// What was being written is not for whoever comes next.
document.querySelector('form[action="/sign-out"]')?.addEventListener("submit", () => sessionStorage.clear());
// Of the whole page: what was swapped is told to the element that asked, not to the one that is filled.
document.addEventListener("htmx:after:swap", () => showTimes());
showTimes();
offerThemes();
// What the page came with is as new as the page.
bannerTimer = setTimeout(lookAtHalt, BANNER_EVERY_MS);
whenVisible(lookAtHalt, { atOnce: false });
