// The chamber, live: one stream of frames, written into the page once an animation frame, and recovered whole after every absence.
import { Problem, announce, api, focusOn, formatted, haltIsTold, hold, release, showHalt, showTimes, signedOut, visible } from "/static/page.js";

const SILENCE_MS = 40_000;
const STALE_AFTER_MS = 1_500;
const RETRY_MS = [1_000, 2_000, 4_000, 8_000];
const GLIDE_MS = 700;
// In one animation frame: seats that change, and seats that are brought into another order, which costs the browser more.
const SEATS_AT_ONCE = 24;
const MOVED_AT_ONCE = 12;

const byId = (id) => document.getElementById(id);
const put = (node, name, value) => node.getAttribute(name) === value || node.setAttribute(name, value);
const room = byId("room");
const panel = byId("seat-panel");
const dialog = byId("cancel-dialog");
const stale = byId("stale");
const isCalm = matchMedia("(prefers-reduced-motion: reduce)");

/** @type {EventSource | null} */
let source = null;
let heardAt = Date.now();
let lateBy = 0;
let attempts = 0;
let isComplete = false;
let staleTimer = 0;
let retryTimer = 0;
let clockTimer = 0;
let drawing = 0;
// What is still to be done of a page that is being amended, each in an animation frame of its own.
let steps = [];
let stepping = 0;
// The numbers of the seats as they are to be read.
let order = [];
// Frames that are not written yet: the whole of the page, and what changed since.
let pendingWhole = null;
let pendingChanges = [];
/** The places of the page that change, by their names. */
let bound = new Map();
let bars = new Map();
let seats = new Map();
let current = 0;
let opened = null;
let panelCall = null;

const chamber = () => byId("chamber");
const shownId = () => chamber()?.dataset.deliberation ?? "";
const shownSequence = () => Number(chamber()?.dataset.sequence ?? 0);

// --- the page ---

/** Find what changes, before it is in its place or after. */
function bind(article = chamber()) {
  bound = new Map();
  for (const node of article.querySelectorAll("[data-bind]")) {
    bound.set(node.dataset.bind, [...(bound.get(node.dataset.bind) ?? []), node]);
  }
  bars = new Map([...article.querySelectorAll("[data-bar]")].map((node) => [node.dataset.bar, node]));
  seats = new Map([...article.querySelectorAll("[data-seat]")].map((node) => [Number(node.dataset.seat), node]));
  if (!seats.has(current)) current = [...seats.keys()][0] ?? 0;
  for (const [number, node] of seats) put(node, "tabindex", number === current ? "0" : "-1");
  seats.get(opened)?.setAttribute("aria-current", "true");
  const cancel = article.querySelector("#cancel");
  if (cancel) cancel.hidden = room.dataset.mayOperate !== "yes";
  showTimes(article);
}

/** Show what the server has drawn: its templates escape every text, and nothing in it can run. */
function replace(frame) {
  const isAnother = frame.deliberation_id !== shownId();
  order = [];
  if (!isAnother && hasSameSeats(frame.chamber)) {
    amend(frame.chamber);
  } else {
    if (isAnother) {
      current = 0;
      close();
    }
    keepingFocus(() => {
      bind(frame.chamber);
      chamber().replaceWith(frame.chamber);
    });
  }
  if (frame.hasEnded) steps.push(() => setTimeout(() => announce(byId("decision-title")?.textContent ?? "It has ended."), 50)) && advance();
  if (isAnother) {
    const question = byId("question")?.textContent ?? "";
    document.title = `${question.slice(0, 80)} · Conclave`;
    announce(`Now before the chamber: ${question}`);
  } else if (opened !== null) {
    refreshPanel();
  }
}

function hasSameSeats(article) {
  const nodes = [...article.querySelectorAll("[data-seat]")];
  return nodes.length === seats.size && nodes.every((node) => seats.has(Number(node.dataset.seat)));
}

/**
 * Make the page what `next` is, one part of it in each animation frame: all of it at once takes longer than a screen waits. The seats
 * are most of the page, so they stay, and what stands around them is exchanged first. So do the first of all and the first beside them,
 * because a browser looks at everything below anew where there is another first.
 */
function amend(next) {
  const article = chamber();
  const [hall, nextHall] = [article, next].map((each) => each.querySelector(".hall"));
  const [box, nextBox] = [hall.parentElement, nextHall.parentElement];
  const [, below] = siblings(nextBox);
  const [, behind] = siblings(nextHall);
  const drawn = [...next.querySelectorAll("[data-seat]")].map((node) => [Number(node.dataset.seat), node]);
  article.dataset.sequence = next.dataset.sequence;
  steps.push(() => {
    article.firstElementChild.replaceChildren(...next.firstElementChild.childNodes);
    exchange(between(article, box), box, "before", between(next, nextBox));
    exchange(between(box, hall), hall, "before", between(nextBox, nextHall));
    exchange(siblings(hall)[1], hall, "after", []);
    resemble(article, next);
    resemble(box, nextBox);
    bind();
  });
  steps.push(() => {
    const hemicycle = byId("hemicycle");
    exchange(siblings(hemicycle)[1], hemicycle, "after", siblings(nextHall.querySelector("#hemicycle"))[1]);
    exchange([], hall, "after", behind);
    bind();
  });
  for (let start = 0; start < drawn.length; start += SEATS_AT_ONCE) steps.push(() => seat(drawn.slice(start, start + SEATS_AT_ONCE)));
  steps.push(() => {
    exchange(siblings(box)[1], box, "after", below);
    bind();
  });
  order = drawn.map(([number]) => number);
  if (isCalm.matches) steps.push(lineUp);
  else setTimeout(() => steps.push(lineUp) && advance(), GLIDE_MS);
  advance();
}

/** Change the page: where what has the focus goes away, the focus goes to what has its name then, or to the heading. */
function keepingFocus(change) {
  const before = document.activeElement;
  change();
  if (!before?.isConnected) giveFocus(before?.id ?? "");
}

function giveFocus(id) {
  const same = id ? byId(id) : null;
  if (same && !same.hidden) same.focus({ preventScroll: true });
  else focusOn(byId("question") ?? byId("content"));
}

/** What stands between the first of the parent and the node. */
const between = (parent, node) => siblings(node)[0].filter((each) => each !== parent.firstElementChild);

/** What stands before the node and after it, in its parent. */
function siblings(node) {
  const all = [...node.parentElement.childNodes];
  return [all.slice(0, all.indexOf(node)), all.slice(all.indexOf(node) + 1)];
}

function exchange(old, node, side, fresh) {
  for (const each of old) each.remove();
  node[side](...fresh);
}

/** Give the node the attributes of the other. */
function resemble(node, other) {
  for (const name of node.getAttributeNames()) if (!other.hasAttribute(name)) node.removeAttribute(name);
  for (const name of other.getAttributeNames()) put(node, name, other.getAttribute(name));
}

/** Make each seat what was drawn of it, and let it walk to its place. */
function seat(drawn) {
  const before = new Map();
  for (const [number, other] of drawn) {
    const node = seats.get(number);
    before.set(number, spot(node));
    for (const name of ["class", "aria-label", "transform"]) put(node, name, other.getAttribute(name));
    put(node.children[1], "href", other.children[1].getAttribute("href"));
    if (node.children[2].textContent !== other.children[2].textContent) node.children[2].textContent = other.children[2].textContent;
  }
  glide(before);
}

/** Bring the seats into the order in which they are read, a few at a time: whoever has moved is drawn anew. */
function lineUp() {
  const hemicycle = byId("hemicycle");
  let place = hemicycle.querySelector("[data-seat]");
  let moved = 0;
  for (const node of order.map((number) => seats.get(number))) {
    if (node === place) {
      place = place.nextElementSibling;
    } else if (moved === MOVED_AT_ONCE) {
      steps.push(lineUp);
      return;
    } else {
      const hadFocus = node === document.activeElement;
      hemicycle.insertBefore(node, place);
      if (hadFocus) node.focus({ preventScroll: true });
      moved += 1;
    }
  }
  bind();
}

/** The next step, in an animation frame of its own. */
function advance() {
  if (stepping || !steps.length) return;
  stepping = document.hidden ? setTimeout(step, 0) : requestAnimationFrame(step);
}

function step() {
  stepping = 0;
  if (steps.length) keepingFocus(steps.shift());
  advance();
}

/** All that is left, at once. */
function settle() {
  while (steps.length) keepingFocus(steps.shift());
}

/** Where a seat stands, and how large it is, in the units of the drawing: asking the layout would hold up the frame. */
const spot = (node) => node.getAttribute("transform").match(/-?[\d.]+/g).map(Number);

/** Let everybody walk to the seat beside those of the same position. */
function glide(before) {
  if (isCalm.matches) return;
  for (const [number, [fromX, fromY]] of before) {
    const node = seats.get(number);
    const [x, y, size] = spot(node);
    if (fromX === x && fromY === y) continue;
    const at = (across, down) => ({ transform: `translate(${across}px, ${down}px) scale(${size})` });
    node.animate([at(fromX, fromY), at(x, y)], { duration: GLIDE_MS, easing: "cubic-bezier(.3, 0, .2, 1)" });
  }
}

function change(frame) {
  const article = chamber();
  for (const [number, style, symbol, sign, label] of frame.seats) {
    const node = seats.get(number);
    if (!node) continue;
    node.setAttribute("class", style);
    node.children[1].setAttribute("href", `#${symbol}`);
    node.children[2].textContent = sign;
    node.setAttribute("aria-label", label);
  }
  for (const [name, text] of Object.entries(frame.texts)) {
    for (const node of bound.get(name) ?? []) node.textContent = text;
  }
  for (const [name, length] of Object.entries(frame.bars)) bars.get(name)?.setAttribute("width", String(length));
  if (article.dataset.status !== frame.status) {
    article.className = `chamber is-${frame.status}`;
    article.dataset.status = frame.status;
  }
  if (frame.started_at && !article.dataset.deadline) {
    article.dataset.deadline = new Date(Date.parse(frame.started_at) + 1000 * Number(article.dataset.deadlineS)).toISOString();
  }
  article.dataset.sequence = String(frame.sequence);
  if (opened !== null && frame.seats.some(([number]) => number === opened)) refreshPanel();
}

function draw() {
  drawing = 0;
  const whole = pendingWhole;
  const changes = pendingChanges;
  pendingWhole = null;
  pendingChanges = [];
  if (whole || changes.length) settle();
  if (whole) replace(whole);
  for (const each of changes) change(each);
  tick();
}

function later() {
  if (drawing) return;
  // A page that is not seen gets no animation frames, and is to be right all the same once it is.
  drawing = document.hidden ? setTimeout(draw, 0) : requestAnimationFrame(draw);
}

function tick() {
  clearTimeout(clockTimer);
  const clock = byId("clock");
  const deadline = chamber()?.dataset.deadline;
  if (!clock || !deadline) return;
  const left = Math.max(0, (Date.parse(deadline) - Date.now() - lateBy) / 1000);
  const text = formatted.duration(Math.ceil(left));
  if (clock.textContent !== text) clock.textContent = text;
  if (left > 0) clockTimer = setTimeout(tick, 1000 - (Date.now() % 1000) + 5);
}

// --- the stream ---

function heard(frame) {
  heardAt = Date.now();
  attempts = 0;
  if (frame.now) lateBy = Date.parse(frame.now) - Date.now();
  clearTimeout(staleTimer);
  staleTimer = 0;
  if (!stale.hidden) {
    stale.hidden = true;
    announce("Connected again.");
  }
}

function whole(event, frame) {
  heard(frame);
  pendingChanges = [];
  const isKnown = frame.deliberation_id === shownId() && frame.sequence === shownSequence() && !pendingWhole;
  const hasEnded = event.type === "ended";
  if (!isKnown) {
    // Read here and not in the animation frame, which only has to put it in its place.
    frame.chamber = document.adoptNode(new DOMParser().parseFromString(frame.html, "text/html").getElementById("chamber"));
    frame.hasEnded = hasEnded;
    pendingWhole = frame;
    later();
  }
  if (hasEnded && room.dataset.follow !== "latest") {
    isComplete = true;
    disconnect();
  }
}

function connect() {
  disconnect();
  if (isComplete) return;
  const opening = new EventSource(`/room/feed?deliberation=${encodeURIComponent(room.dataset.follow)}`);
  source = opening;
  const on = (type, then) => opening.addEventListener(type, (event) => source === opening && then(event, JSON.parse(event.data)));
  on("snapshot", whole);
  on("ended", whole);
  on("change", (_event, frame) => {
    heard(frame);
    pendingChanges.push(frame);
    later();
  });
  on("latest", (_event, frame) => heard(frame));
  on("halt", (_event, frame) => {
    heard(frame);
    haltIsTold(true);
    showHalt(frame.html);
  });
  on("signed-out", signedOut);
  on("alive", (_event, frame) => {
    heard(frame);
    const known = pendingChanges.at(-1)?.sequence ?? pendingWhole?.sequence ?? shownSequence();
    if (frame.sequence !== known) connect();
  });
  opening.addEventListener("error", () => source === opening && lost());
}

function disconnect() {
  clearTimeout(retryTimer);
  haltIsTold(false);
  source?.close();
  source = null;
}

function lost() {
  disconnect();
  if (isComplete) return;
  if (!staleTimer) staleTimer = setTimeout(showStale, STALE_AFTER_MS);
  const wait = RETRY_MS[Math.min(attempts, RETRY_MS.length - 1)];
  attempts += 1;
  retryTimer = setTimeout(retry, wait * (0.75 + Math.random() / 2));
}

async function retry() {
  // Whoever is not signed in any more is sent to sign in by this, which a stream would not tell from a server that is away.
  if (attempts > 1) {
    try {
      await api("GET", "/v1/pool");
    } catch (error) {
      if (error instanceof Problem && error.status === 0) return void lost();
    }
  }
  connect();
}

function showStale() {
  byId("stale-since").textContent = `at ${formatted.time(new Date(heardAt).toISOString()).slice(-8)}`;
  stale.hidden = false;
  announce("The connection is lost. The page tries again by itself.");
}

/** After a sleep, another tab or the way back: what was missed is fetched at once. */
function comeBack() {
  if (document.visibilityState !== "visible" || isComplete) return;
  const isSilent = Date.now() - heardAt > SILENCE_MS / 2;
  if (!source || source.readyState === EventSource.CLOSED || isSilent) connect();
  tick();
}

// --- seats ---

function open(number) {
  const node = seats.get(number);
  if (!node) return;
  seats.get(opened)?.removeAttribute("aria-current");
  opened = number;
  node.setAttribute("aria-current", "true");
  choose(number);
  refreshPanel({ takeFocus: true });
}

async function refreshPanel({ takeFocus = false } = {}) {
  panelCall?.abort();
  const call = new AbortController();
  panelCall = call;
  try {
    const path = `/deliberations/${encodeURIComponent(shownId())}/seats/${opened + 1}`;
    const { document: html } = await api("GET", path, undefined, { headers: { Accept: "text/html", "HX-Request": "true" }, signal: call.signal });
    const isOpen = new Set([...panel.querySelectorAll("details[open] > summary")].map((each) => each.textContent));
    const hadFocus = panel.contains(document.activeElement);
    panel.replaceChildren(...new DOMParser().parseFromString(html, "text/html").body.childNodes);
    for (const summary of panel.querySelectorAll("summary")) if (isOpen.has(summary.textContent)) summary.parentElement.open = true;
    showTimes(panel);
    if (!panel.open) panel.show();
    if (takeFocus || hadFocus) byId("seat-title")?.focus();
  } catch (error) {
    if (error.name === "AbortError") return;
    announce(`Seat ${opened + 1} cannot be shown: ${visible(error.message, 200)}`, { assertive: true });
  }
}

function close({ giveFocus = false } = {}) {
  panelCall?.abort();
  if (panel.open) panel.close();
  panel.replaceChildren();
  const node = seats.get(opened);
  opened = null;
  node?.removeAttribute("aria-current");
  if (giveFocus) (node ?? byId("content")).focus();
}

function choose(number) {
  seats.get(current)?.setAttribute("tabindex", "-1");
  current = number;
  seats.get(number)?.setAttribute("tabindex", "0");
}

/** The seat that an arrow key leads to: the nearest in that direction. */
function neighbour(number, key) {
  const order = [...seats.keys()];
  const place = order.indexOf(number);
  if (key === "Home") return order[0];
  if (key === "End") return order.at(-1);
  const [x, y] = spot(seats.get(number));
  const [dx, dy] = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[key];
  let best = null;
  let least = Infinity;
  for (const each of order) {
    const [ex, ey] = spot(seats.get(each));
    const along = (ex - x) * dx + (ey - y) * dy;
    const aside = Math.abs((ex - x) * dy) + Math.abs((ey - y) * dx);
    if (each === number || along <= 1 || aside > 2 * along) continue;
    if (along + 2 * aside < least) [best, least] = [each, along + 2 * aside];
  }
  // At the rim the order of the seats goes on, so that nobody is out of reach.
  return best ?? order[place + (dx + dy > 0 ? 1 : -1)] ?? number;
}

room.addEventListener("click", (event) => {
  const seat = event.target.closest?.("[data-seat]");
  if (seat && !(event.ctrlKey || event.metaKey || event.shiftKey)) {
    event.preventDefault();
    open(Number(seat.dataset.seat));
  } else if (event.target.id === "cancel") {
    byId("cancel-problem").hidden = true;
    dialog.showModal();
  }
});
room.addEventListener("keydown", (event) => {
  const seat = event.target.closest?.("[data-seat]");
  if (!seat) return;
  if (["ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown", "Home", "End"].includes(event.key)) {
    event.preventDefault();
    choose(neighbour(Number(seat.dataset.seat), event.key));
    seats.get(current).focus();
  } else if (event.key === " ") {
    event.preventDefault();
    open(Number(seat.dataset.seat));
  }
});
panel.addEventListener("click", (event) => {
  if (event.target.closest?.("#seat-close")) {
    event.preventDefault();
    close({ giveFocus: true });
  }
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && panel.open && !dialog.open) close({ giveFocus: true });
});

// --- cancelling ---

byId("cancel-no").addEventListener("click", () => dialog.close());
byId("cancel-yes").addEventListener("click", async (event) => {
  const button = event.currentTarget;
  if (!hold(button)) return;
  try {
    await api("POST", `/v1/deliberations/${encodeURIComponent(shownId())}/cancel`);
    dialog.close();
    // What was pressed to open it may have been drawn anew since, or be gone.
    if (document.activeElement === document.body) giveFocus("cancel");
    announce("It is being cancelled.");
  } catch (error) {
    const problem = byId("cancel-problem");
    problem.textContent = visible(`${error.title ?? "It was not cancelled"}. ${error.detail ?? error.message}`, 500);
    problem.hidden = false;
  } finally {
    release(button);
  }
});

// --- always ---

setInterval(() => {
  if (source && !isComplete && !document.hidden && Date.now() - heardAt > SILENCE_MS) lost();
}, 5_000);
document.addEventListener("visibilitychange", comeBack);
document.addEventListener("resume", comeBack);
window.addEventListener("online", comeBack);
window.addEventListener("pageshow", (event) => event.persisted && comeBack());
window.addEventListener("pagehide", disconnect);
window.addEventListener("beforeprint", settle);
if (panel.open) opened = Number(new URLSearchParams(location.search).get("seat")) - 1;
bind();
tick();
isComplete = room.dataset.follow !== "latest" && ["completed", "inquorate", "cancelled", "halted", "failed"].includes(chamber().dataset.status);
connect();
