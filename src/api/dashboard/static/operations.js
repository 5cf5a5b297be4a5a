// The view of operations: kept up to date while it is looked at, with the halt and its end.

import { announce, api, focusOn, formatted, hold, lookAtHalt, Problem, release, visible, whenVisible } from "/static/page.js";
import { refresh } from "/static/live.js";

const EVERY_MS = 2000;
const WORDS = {
  open: "Nothing is halted any more.",
  halted: "The system is halted.",
  in_doubt: "A channel of the halt cannot be read: the system stands still.",
};

const live = document.getElementById("live");
const freshness = document.getElementById("freshness");
const control = document.getElementById("halt-control");
let timer = 0;
let looking = null;

const condition = () => document.getElementById("live-halt")?.dataset.condition ?? "open";

function look() {
  looking ??= lookOnce().finally(() => {
    looking = null;
  });
  return looking;
}

async function lookOnce() {
  clearTimeout(timer);
  const before = condition();
  try {
    await refresh(live);
    freshness.textContent = "Kept up to date";
    if (condition() !== before) tell(condition());
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    freshness.textContent = `No answer since ${formatted.time(new Date().toISOString())}; it is asked again`;
  } finally {
    if (document.visibilityState === "visible") timer = setTimeout(look, EVERY_MS);
  }
}

function tell(now) {
  announce(WORDS[now] ?? "", { assertive: now !== "open" });
  lookAtHalt();
  if (!control) return;
  control.dataset.condition = now;
  for (const [name, isHidden] of [["halt-form", now === "halted"], ["clear-form", now === "open"]]) {
    const form = document.getElementById(name);
    const hadFocus = form.contains(document.activeElement);
    form.hidden = isHidden;
    if (isHidden && hadFocus) focusOn(document.getElementById("halt-control-heading"));
  }
}

function confirmed(heading, text, reason, action) {
  const dialog = document.getElementById("confirm");
  document.getElementById("confirm-heading").textContent = heading;
  document.getElementById("confirm-text").textContent = text;
  document.getElementById("confirm-reason").textContent = visible(reason, 300);
  document.getElementById("confirm-yes").textContent = action;
  dialog.returnValue = "no";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true });
  });
}

function changes(form, method, { heading, text, action, done }) {
  const area = form.querySelector("textarea");
  const problem = form.querySelector(".error");
  const button = form.querySelector("button");
  const refuse = (words) => {
    problem.textContent = words;
    area.setAttribute("aria-invalid", "true");
    area.focus();
    announce(words, { assertive: true });
  };
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const reason = area.value;
    problem.textContent = "";
    area.removeAttribute("aria-invalid");
    if (!reason.trim()) {
      refuse("Say why.");
      return;
    }
    if (button.ariaDisabled === "true" || !(await confirmed(heading, text, reason, action)) || !hold(button)) return;
    try {
      await api(method, "/v1/halt", { reason });
      area.value = "";
      announce(done);
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      refuse([error.title, error.detail, ...error.errors.map((each) => each.detail)].filter(Boolean).join(". ").replaceAll("..", "."));
    } finally {
      release(button);
    }
    // What is asked right now may be older than the change.
    await looking;
    await new Promise((resolve) => setTimeout(resolve, 50));
    await look();
  });
}

if (control) {
  changes(document.getElementById("halt-form"), "POST", {
    heading: "Halt everything?",
    text: "No agent is asked any more. What runs ends as halted within seconds, and nothing new is accepted until the halt is cleared.",
    action: "Halt now",
    done: "Halted.",
  });
  changes(document.getElementById("clear-form"), "DELETE", {
    heading: "Clear the halt?",
    text: "Agents may be asked again at once, and what is queued begins.",
    action: "Clear it",
    done: "The halt is cleared.",
  });
}
whenVisible(look);
