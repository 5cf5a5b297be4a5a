// A run as it goes along: its events say when to look again, and its figures are drawn from what it wrote.

import { announce, api, hold, Problem, release, signedOut, whenVisible } from "/static/page.js";
import { documentIfNew, refresh } from "/static/live.js";
import { Plots } from "/static/plots.js";

const AT_MOST_EVERY_MS = 1100;
const WITHOUT_EVENTS_MS = 2000;
const TYPES = [
  "run.started", "run.completed", "run.cancelled", "run.halted", "run.failed", "population.started", "population.progress", "population.seed",
  "population.shard_lost", "soak.ready", "soak.cycle_ended", "swarm.started", "swarm.progress", "swarm.ended", "pantheon.cycle_ended",
];

const live = document.getElementById("live");
const state = () => document.getElementById("live-run").dataset;
const plots = new Plots((name) => {
  const figure = document.getElementById(`figure-${name}`);
  return figure && { plot: figure.querySelector(".plot"), legend: figure.querySelector(".legend") };
});
let seriesTag = "";
let source = null;
let timer = 0;
let lookedAt = -Infinity;
let looking = null;
let isOver = false;

function soon(milliseconds = AT_MOST_EVERY_MS) {
  if (timer) return;
  const wait = Math.max(0, lookedAt + milliseconds - performance.now());
  timer = setTimeout(() => {
    timer = 0;
    look();
  }, wait);
}

function look() {
  looking ??= lookOnce().finally(() => {
    looking = null;
  });
  return looking;
}

async function lookOnce() {
  lookedAt = performance.now();
  const before = state().status;
  try {
    await refresh(live);
    const found = await documentIfNew(live.dataset.series, seriesTag);
    if (found) {
      plots.show(found.document.figures);
      seriesTag = found.tag;
    }
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    soon(WITHOUT_EVENTS_MS);
    return;
  }
  const { status, ended, whole } = state();
  if (status !== before) announce(`The run is ${status}.`);
  if (ended === "yes") end(whole === "yes");
  else if (whole !== "yes") soon();
  else if (source?.readyState === EventSource.CLOSED) soon(WITHOUT_EVENTS_MS);
}

function end(isWhole) {
  source?.close();
  source = null;
  const cancelling = document.getElementById("cancel-control");
  if (cancelling) cancelling.hidden = true;
  // The last rows may have come after the last look.
  if (isWhole && isOver) return;
  isOver = isWhole;
  soon();
}

function follow() {
  look();
  if (source || state().ended === "yes") return;
  source = new EventSource(live.dataset.events);
  for (const type of TYPES) source.addEventListener(type, () => soon());
  source.addEventListener("signed-out", signedOut);
  source.addEventListener("error", () => soon(WITHOUT_EVENTS_MS));
}

const cancel = document.getElementById("cancel");
cancel?.addEventListener("click", () => {
  const dialog = document.getElementById("confirm");
  const problem = document.getElementById("cancel-error");
  dialog.returnValue = "no";
  dialog.addEventListener(
    "close",
    async () => {
      if (dialog.returnValue !== "yes" || !hold(cancel)) return;
      problem.textContent = "";
      try {
        await api("POST", live.dataset.cancel);
        announce("It is asked to wind up.");
      } catch (error) {
        if (!(error instanceof Problem)) throw error;
        problem.textContent = `${error.title}. ${error.detail}`;
        release(cancel);
      }
      soon();
    },
    { once: true },
  );
  dialog.showModal();
});

// On paper the tables stand for the pictures.
let opened = [];
window.addEventListener("beforeprint", () => {
  opened = [...document.querySelectorAll("details.data:not([open])")];
  for (const each of opened) each.open = true;
});
window.addEventListener("afterprint", () => {
  for (const each of opened) each.open = false;
});
window.addEventListener("pagehide", () => {
  source?.close();
  source = null;
});
whenVisible(follow);
