// The form that puts a question: its quote while it is filled in, and one deliberation however often it is sent.
import { Problem, api, bdi, element, formatted, newKey, sendOnce, stored, visible } from "./page.js";

const QUOTE_AFTER_MS = 400;
const DRAFT = "conclave-ask-draft";
const SENT = "conclave-ask-sent";

const form = document.getElementById("ask");
const known = JSON.parse(form.dataset.catalogue);
const summary = document.getElementById("summary");
const options = document.getElementById("options");
const quoteCard = form.querySelector(".quote");
const quoteTable = document.getElementById("quote");
const quoteSays = document.getElementById("quote-says");
const sendButton = document.getElementById("send");
const sendingSays = document.getElementById("sending");

let quoteTimer = 0;
let quoteCall = null;
let quoted = "";
let isSending = false;
let refused = null;

const field = (pointer) => form.elements.namedItem(pointer);
const valueOf = (pointer) => field(pointer).value;
const rows = () => [...options.querySelectorAll("input")];
const isShown = (control) => !control.closest("[hidden]");
const listed = (value, name) => known[name].includes(value);

/* Options */

function addOption(text = "") {
  if (rows().length >= known.most_options) return null;
  const input = element("input", { attributes: { type: "text", maxlength: 1000, autocomplete: "off" } });
  input.value = text;
  const remove = element("button", { class: "button quiet", text: "Remove", attributes: { type: "button" } });
  const error = element("p", { class: "error" });
  options.append(element("li", {}, element("span", { attributes: { "aria-hidden": "true" } }), input, remove, error));
  remove.addEventListener("click", () => {
    const place = rows().indexOf(input);
    input.closest("li").remove();
    while (rows().length < 2) addOption();
    numberOptions();
    (rows()[place] ?? rows().at(-1)).focus();
    changed();
  });
  numberOptions();
  return input;
}

function numberOptions() {
  rows().forEach((input, place) => {
    const letter = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"[place % 26];
    const [mark, , remove, error] = input.closest("li").children;
    mark.className = `position p${place % 8}`;
    mark.textContent = letter;
    input.id = `field-answer-options-${place}`;
    input.setAttribute("aria-label", `Option ${place + 1}`);
    remove.setAttribute("aria-label", `Remove option ${place + 1}`);
    error.id = `error-answer-options-${place}`;
  });
}

/* What is shown for which answer, protocol and rule */

function refresh() {
  const kind = valueOf("/answer/kind");
  const protocol = valueOf("/protocol/kind");
  const drafted = kind === "text" && protocol === "common_ground";
  const allowed = known.rules[drafted ? "ranking" : kind];
  fill(field("/rule/kind"), allowed.map((rule, place) => [place ? rule : "", `${said(rule)}${place ? "" : " (usual)"}`]));
  const rule = valueOf("/rule/kind") || allowed[0];
  const breaks = [...known.tie_breaks, ...allowed.filter((other) => other !== rule)];
  fill(field("/rule/tie_break"), breaks.map((name, place) => [place ? name : "", place ? said(name) : "nothing: it stays a tie"]));
  field("/rule/fraction").placeholder = known.fractions[rule] ?? "";
  const roster = field("/agents/roster").selectedOptions[0]?.dataset;
  const agents = roster?.count;
  document.getElementById("roster-says").firstChild.textContent = roster?.says ?? "";
  field("/agents/count").max = agents || "72";
  field("/agents/count").placeholder = agents ? `all ${agents}` : "all";
  const on = new Set([
    `kind:${kind}`,
    `protocol:${protocol}`,
    known.fractions[rule] !== undefined && "rule:fractions",
    listed(rule, "strengths") && "rule:strengths",
    !listed(rule, "unweighted") && "rule:weights",
    !listed(kind, "estimates") && "rule:ties",
    field("/control").checked && "control:on",
  ]);
  for (const part of form.querySelectorAll("[data-when]")) {
    const [topic, values] = part.dataset.when.split(":");
    part.hidden = !values.split(",").some((value) => on.has(`${topic}:${value}`));
  }
}

const said = (name) => name.replaceAll("_", " ");

function fill(select, choices) {
  const now = select.value;
  select.replaceChildren(...choices.map(([value, text]) => element("option", { text, attributes: { value } })));
  select.value = choices.some(([value]) => value === now) ? now : "";
}

/* The body, and what is missing in it */

function read() {
  const body = {};
  const sentOptions = [];
  const put = (pointer, value) => {
    const steps = pointer.slice(1).split("/");
    const last = steps.pop();
    let place = body;
    for (const step of steps) place = place[step] ??= {};
    place[last] = value;
  };
  for (const control of form.elements) {
    if (!control.name?.startsWith("/") || !isShown(control) || (control.type === "radio" && !control.checked)) continue;
    if (control.type === "checkbox") {
      if (control.checked) put(control.name, {});
      continue;
    }
    const value = control.value.trim();
    if (value !== "" && value !== control.dataset.usual) put(control.name, control.dataset.kind === "number" ? Number(value) : control.value);
  }
  if (isShown(options)) {
    for (const input of rows()) if (input.value.trim()) sentOptions.push(input);
    body.answer.options = sentOptions.map((input) => input.value);
  }
  return { body, sentOptions };
}

function missing({ body, sentOptions }) {
  const found = [];
  if (!body.question) found.push({ pointer: "/question", detail: "Write what is to be decided." });
  if (isShown(options) && sentOptions.length < 2) found.push({ pointer: "/answer/options", detail: "Give at least two options." });
  for (const control of form.elements) {
    if (!control.name?.startsWith("/") || !isShown(control) || control.name === "/question") continue;
    if (control.validity && !control.validity.valid) found.push({ pointer: control.name, detail: wrongWith(control) });
    else if (/^\/answer\/(min|max)$/.test(control.name) && !control.value) found.push({ pointer: control.name, detail: "A score needs a number here." });
  }
  return found;
}

function wrongWith({ validity, validationMessage, min, max }) {
  if (validity.rangeOverflow) return `Must be at most ${max}.`;
  if (validity.rangeUnderflow) return `Must be at least ${min}.`;
  if (validity.stepMismatch) return "Must be a whole number.";
  return validity.badInput ? "Must be a number." : validationMessage;
}

/* Problems beside their fields */

function clearProblems() {
  summary.hidden = true;
  unmark();
}

function unmark() {
  for (const slot of form.querySelectorAll(".error")) slot.textContent = "";
  for (const control of form.querySelectorAll("[aria-invalid]")) {
    control.removeAttribute("aria-invalid");
    control.setAttribute("aria-describedby", control.dataset.hint ?? "");
  }
}

/** @returns {HTMLElement | null} the control that a pointer (RFC 6901) is about, or the nearest one around it */
function controlAt(pointer, sentOptions) {
  const option = /^\/answer\/options\/(\d+)$/.exec(pointer);
  if (option) return sentOptions[Number(option[1])] ?? rows()[0];
  if (pointer === "/answer/options") return rows()[0];
  const named = [...form.elements].filter((control) => control.name?.startsWith("/"));
  const exact = named.filter((control) => control.name === pointer);
  return exact.find((control) => control.checked) ?? exact[0] ?? named.find((control) => control.name.startsWith(`${pointer}/`)) ?? null;
}

function slotOf(control, pointer) {
  return options.contains(control) && pointer !== "/answer/options"
    ? control.closest("li").querySelector(".error")
    : form.querySelector(`[data-error="${CSS.escape(pointer)}"]`) ?? control.closest(".field, fieldset")?.querySelector(".error");
}

function mark(problem, sentOptions) {
  const control = controlAt(problem.pointer, sentOptions);
  const slot = control && slotOf(control, problem.pointer);
  if (!slot) return null;
  const details = control.closest("details");
  if (details) details.open = true;
  slot.textContent = visible(problem.detail, 500);
  control.setAttribute("aria-invalid", "true");
  control.setAttribute("aria-describedby", [control.dataset.hint, slot.id].filter(Boolean).join(" "));
  return control;
}

function labelOf(control) {
  const label = control.labels?.[0];
  return control.getAttribute("aria-label") ?? (label?.querySelector("b") ?? label)?.textContent.trim() ?? control.name;
}

/* With the name of its field, where that is on the page. */
function told({ pointer, detail }, sentOptions) {
  const control = pointer && controlAt(pointer, sentOptions);
  return control ? `${labelOf(control)}: ${detail}` : [pointer, detail].filter(Boolean).join(" ");
}

/** Beside their fields, while somebody writes: what is wrong there, and not what is yet to come. */
function markWrong(problems, sentOptions) {
  unmark();
  for (const problem of problems) {
    const control = controlAt(problem.pointer, sentOptions);
    if (control?.value || control?.validity?.badInput) mark(problem, sentOptions);
  }
}

function showProblems(title, detail, problems, sentOptions, { focus }) {
  // Not hidden meanwhile, which would take the focus from whoever reads it.
  unmark();
  const lines = problems.map((problem) => {
    const control = mark(problem, sentOptions);
    const says = bdi(problem.detail, 500);
    if (!control) return element("li", {}, problem.pointer ? `${visible(problem.pointer)}: ` : "", says);
    const link = element("a", { text: labelOf(control), attributes: { href: `#${control.id}` } });
    link.addEventListener("click", (event) => {
      event.preventDefault();
      control.focus();
    });
    return element("li", {}, link, ": ", says);
  });
  const parts = [element("h2", { text: visible(title, 200) })];
  if (detail) parts.push(element("p", { text: visible(detail, 1000) }));
  if (lines.length) parts.push(element("ul", {}, ...lines));
  summary.replaceChildren(...parts);
  summary.hidden = false;
  if (focus) summary.focus();
}

/* The quote */

function planQuote() {
  clearTimeout(quoteTimer);
  quoteTimer = setTimeout(quote, QUOTE_AFTER_MS);
}

async function quote() {
  const asked = read();
  const lacks = missing(asked);
  const body = JSON.stringify(asked.body);
  if (lacks.length) {
    if (refused !== null) showProblems("The question cannot be put yet", "", lacks, asked.sentOptions, { focus: false });
    else markWrong(lacks, asked.sentOptions);
    quoteCall?.abort();
    showQuote(null, lacks[0].pointer === "/question" ? "The quote appears here once there is a question." : `No quote yet. ${told(lacks[0], asked.sentOptions)}`);
    return;
  }
  if (refused === null) unmark();
  // What was refused stays told until the contents are others: a quote can be had for much that cannot be asked now.
  const isChanged = refused !== null && body !== refused;
  if (body === quoted) {
    if (isChanged) clearProblems();
    return;
  }
  quoteCall?.abort();
  const call = (quoteCall = new AbortController());
  quoteCard.setAttribute("aria-busy", "true");
  try {
    const { document: answer } = await api("POST", "/v1/quotes", asked.body, { signal: call.signal });
    quoted = body;
    if (isChanged) clearProblems();
    showQuote(answer, "");
  } catch (error) {
    if (error.name === "AbortError") return;
    if (!(error instanceof Problem)) throw error;
    const [first] = error.errors;
    showQuote(null, `No quote. ${first ? told(first, asked.sentOptions) : `${error.title}. ${error.detail}`}`);
    if (refused === null) markWrong(error.errors, asked.sentOptions);
    if (isChanged && error.errors.length) showProblems(error.title, "", error.errors, asked.sentOptions, { focus: false });
  } finally {
    if (quoteCall === call) quoteCard.removeAttribute("aria-busy");
  }
}

function showQuote(answer, otherwise) {
  quoteTable.hidden = !answer;
  const notices = document.getElementById("quote-notices");
  notices.replaceChildren(...(answer?.notices ?? []).map((notice) => element("li", {}, bdi(notice, 500))));
  if (!answer) {
    quoted = "";
    quoteCard.removeAttribute("aria-busy");
    quoteSays.textContent = visible(otherwise, 500);
    return;
  }
  for (const cell of quoteTable.querySelectorAll("[data-amount]")) {
    const [what, which] = cell.dataset.amount.split(".");
    const value = answer[what][which];
    cell.textContent = value === null ? "not known" : what === "cost_usd" ? formatted.money(value) : formatted.number(value, 0);
  }
  const { calls, cost_usd: cost } = answer;
  quoteSays.textContent =
    `${formatted.number(calls.expected, 0)} calls, ` +
    (cost.at_most === null ? "at a price that is not known." : `${formatted.money(cost.at_most)} at most.`);
}

/* The draft, and the key that belongs to these contents */

function keep() {
  const values = [...form.elements]
    .filter((control) => control.name?.startsWith("/") && (control.type !== "radio" || control.checked))
    .map((control) => [control.name, control.type === "checkbox" ? control.checked : control.value]);
  stored.set(DRAFT, { caller: form.dataset.caller, values, options: rows().map((input) => input.value) });
  const body = JSON.stringify(read().body);
  const sent = stored.get(SENT);
  if (sent?.body !== body) stored.set(SENT, { body, key: newKey(), pending: false });
}

function restore() {
  const draft = stored.get(DRAFT);
  const isMine = draft && draft.caller === form.dataset.caller;
  options.replaceChildren();
  for (const text of isMine ? draft.options : []) addOption(text);
  while (rows().length < 2) addOption();
  // Twice, because which rules there are depends on the answer's kind.
  for (let turn = 0; turn < 2; turn += 1) {
    for (const [name, value] of isMine ? draft.values : []) {
      const control = field(name);
      if (!control) continue;
      if (typeof value === "boolean") control.checked = value;
      else control.value = value;
    }
    refresh();
  }
  for (const details of form.querySelectorAll("details")) {
    details.open = [...details.querySelectorAll("input")].some((input) => (input.type === "checkbox" ? input.checked : input.value));
  }
}

/* Sending: once, however often the button is pressed and the connection lost */

async function send() {
  if (isSending) return;
  const asked = read();
  const lacks = missing(asked);
  refused = JSON.stringify(asked.body);
  if (lacks.length) {
    showProblems("The question cannot be put yet", "", lacks, asked.sentOptions, { focus: true });
    return;
  }
  clearProblems();
  keep();
  isSending = true;
  sendButton.setAttribute("aria-disabled", "true");
  const sent = stored.get(SENT) ?? { body: JSON.stringify(asked.body), key: newKey() };
  stored.set(SENT, { ...sent, pending: true });
  say("Asking …");
  try {
    const accepted = await sendOnce("/v1/deliberations", asked.body, sent.key, say);
    stored.set(DRAFT, null);
    stored.set(SENT, null);
    location.assign(`/deliberations/${encodeURIComponent(accepted.id)}`);
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    isSending = false;
    sendButton.removeAttribute("aria-disabled");
    say("");
    const isKnown = error.status >= 400 && error.status < 500 && error.status !== 409;
    stored.set(SENT, error.slug === "idempotency-key-reused" ? { ...sent, key: newKey(), pending: false } : { ...sent, pending: !isKnown });
    const hint = isKnown ? "" : " Asking again is safe: it is asked once, whether or not the first time arrived.";
    showProblems(error.title, `${error.detail}${hint}`, error.errors, asked.sentOptions, { focus: true });
  }
}

function say(text) {
  sendingSays.hidden = !text;
  sendingSays.textContent = text;
}

function changed() {
  refresh();
  keep();
  planQuote();
}

form.addEventListener("input", (event) => {
  const all = rows();
  if (event.target === all.at(-1) && event.target.value) addOption();
  changed();
});
form.addEventListener("submit", (event) => {
  event.preventDefault();
  if (sendButton) send();
});
options.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.target.tagName !== "INPUT") return;
  event.preventDefault();
  const all = rows();
  (all[all.indexOf(event.target) + 1] ?? addOption())?.focus();
});
document.getElementById("add-option").addEventListener("click", () => (addOption() ?? rows().at(-1)).focus());
document.getElementById("clear")?.addEventListener("click", () => {
  stored.set(DRAFT, null);
  form.reset();
  restore();
  clearProblems();
  refused = null;
  changed();
  field("/question").focus();
});
// The way back leads to a page as it was left: what was sent from it has been answered.
window.addEventListener("pageshow", (event) => {
  if (!event.persisted) return;
  isSending = false;
  sendButton?.removeAttribute("aria-disabled");
  say("");
  keep();
});

restore();
if (stored.get(SENT)?.pending) say("This page was left while your question was being sent. Ask again: it is asked once, whether or not it arrived.");
keep();
planQuote();
