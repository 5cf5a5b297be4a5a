// Starts runs from forms: what is refused is said beside the field that it is about.

import { announce, newKey, Problem, sendOnce, stored } from "/static/page.js";

const WHOLE = /^[+-]?\d+$/;
const SENT = "conclave-run-sent";

function valueOf(control) {
  const text = control.value.trim();
  switch (control.dataset.kind) {
    case "flag":
      return control.checked ? true : undefined;
    case "words":
      return text ? text.split(/\s+/) : undefined;
    case "whole":
    case "number": {
      if (!text) return undefined;
      const number = Number(text.replaceAll(",", ""));
      // What is no number is for the server to refuse, in its words.
      return Number.isFinite(number) && (control.dataset.kind === "number" || WHOLE.test(text.replaceAll(",", ""))) ? number : text;
    }
    default:
      return text ? control.value : undefined;
  }
}

function argumentsOf(form) {
  const found = {};
  for (const control of form.querySelectorAll("[data-kind]")) {
    if (control.dataset.kind === "several") {
      if (control.checked) (found[control.name] ??= []).push(control.value);
      continue;
    }
    const value = valueOf(control);
    if (value !== undefined) found[control.name] = value;
  }
  return found;
}

function clear(form) {
  const summary = form.querySelector("[data-problem]");
  summary.hidden = true;
  summary.replaceChildren();
  for (const error of form.querySelectorAll(".error")) error.textContent = "";
  for (const control of form.querySelectorAll("[aria-invalid]")) control.removeAttribute("aria-invalid");
}

function fieldOf(form, pointer) {
  const [, where, name] = pointer.split("/");
  if (where !== "arguments" || !name) return null;
  // Steps go by two names.
  const known = name === "steps" ? "step" : name;
  return [...form.querySelectorAll("[data-field]")].find((field) => field.dataset.field === known) ?? null;
}

function refuse(form, problem) {
  const rest = [];
  let first = null;
  for (const { pointer, detail } of problem.errors) {
    const field = fieldOf(form, pointer);
    if (!field) {
      rest.push(pointer ? `${pointer}: ${detail}` : detail);
      continue;
    }
    const control = field.querySelector("input, select, textarea, [role=group]");
    const error = field.querySelector(".error");
    error.textContent = error.textContent ? `${error.textContent}; ${detail}` : detail;
    control.setAttribute("aria-invalid", "true");
    const more = field.closest("details.more");
    if (more) more.open = true;
    first ??= field.querySelector("[role=group]") ?? control;
  }
  const words = [`${problem.title}.`, problem.detail, ...rest].filter(Boolean).join(" ");
  const summary = form.querySelector("[data-problem]");
  summary.textContent = words;
  summary.hidden = false;
  announce(words, { assertive: true });
  (first ?? summary).focus();
}

/* The key belongs to these contents, also after a reload, until their answer is there. */
async function started(body) {
  const contents = JSON.stringify(body);
  let sent = stored.get(SENT);
  if (sent?.contents !== contents) sent = { contents, key: newKey() };
  stored.set(SENT, sent);
  const run = await sendOnce("/v1/runs", body, sent.key, announce);
  stored.set(SENT, null);
  return run;
}

for (const form of document.querySelectorAll("form[data-run]")) {
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const button = form.querySelector("button[type=submit]");
    // One click is one run.
    if (button.disabled) return;
    button.disabled = true;
    clear(form);
    try {
      const run = await started({ kind: form.dataset.run, arguments: argumentsOf(form) });
      location.assign(`/operations/runs/${encodeURIComponent(run.id)}`);
    } catch (error) {
      button.disabled = false;
      if (!(error instanceof Problem)) throw error;
      refuse(form, error);
    }
  });
}
// Whoever comes back by the browser's way back may start another one.
window.addEventListener("pageshow", () => {
  for (const button of document.querySelectorAll("form[data-run] button[type=submit]")) button.disabled = false;
});
