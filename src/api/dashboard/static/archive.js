// The archive: ticks that outlast a search, news of what was found, and what is counted again or told afterwards.

import { announce, api, element, focusOn, formatted, hold, Problem, release, showTimes, visible } from "/static/page.js";

const MOST = 2;

// By id the words that a tick is named by.
const picked = new Map();

/** Show what is ticked, on the hits that are there now. */
function showPicks() {
  const words = document.getElementById("picked");
  const button = document.querySelector("#picks button");
  for (const box of document.querySelectorAll("#hits input[name=pick]")) {
    box.checked = picked.has(box.value);
    box.disabled = !box.checked && picked.size >= MOST;
  }
  button.disabled = picked.size === 0;
  button.textContent = picked.size === 1 ? "See one under several rules" : "Compare";
  if (picked.size === 0) words.textContent = "Tick two deliberations to compare them, or one to count it under several rules.";
  if (picked.size === 1) words.textContent = "1 ticked: tick another one to compare the two.";
  if (picked.size === MOST) words.textContent = "2 ticked: ready to be compared.";
}

function followPicks() {
  const form = document.getElementById("picks");
  if (!form) return;
  document.addEventListener("change", (event) => {
    const box = event.target;
    if (!(box instanceof HTMLInputElement) || box.name !== "pick") return;
    if (box.checked) picked.set(box.value, box.getAttribute("aria-label"));
    else picked.delete(box.value);
    showPicks();
    announce(document.getElementById("picked").textContent);
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const [a, b] = [...picked.keys()];
    const query = new URLSearchParams(b === undefined ? { a } : { a, b });
    location.assign(`/archive/compare?${query}`);
  });
  document.addEventListener("htmx:after:swap", () => {
    showPicks();
    announce(document.getElementById("found")?.textContent ?? "");
  });
  readPicks();
  // Only now has the browser ticked again what was ticked when one left.
  window.addEventListener("pageshow", readPicks);
}

/** Take over what is ticked on the page already. */
function readPicks() {
  for (const box of document.querySelectorAll("#hits input[name=pick]:checked")) picked.set(box.value, box.getAttribute("aria-label"));
  showPicks();
}

/** What went wrong, in one line. */
function told(problem) {
  if (!(problem instanceof Problem)) throw problem;
  return [problem.title, problem.detail, ...problem.errors.map((each) => each.detail)].filter(Boolean).join(": ");
}

/** Let the server draw the sides anew: what it shows is what the record has. */
async function redraw() {
  const place = document.getElementById("rules");
  const answer = await fetch(`/archive/compare?a=${encodeURIComponent(place.dataset.id)}`, {
    headers: { "HX-Request": "true", Accept: "text/html" },
    credentials: "same-origin",
  });
  if (!answer.ok) {
    location.reload();
    return;
  }
  const made = new DOMParser().parseFromString(await answer.text(), "text/html").getElementById("rules");
  place.replaceWith(document.importNode(made, true));
  showTimes(document.getElementById("rules"));
  followForms();
}

async function recount(form) {
  const failed = document.getElementById("recount-error");
  const rules = [...form.querySelectorAll("input[name=rule]:checked:not(:disabled)")].map((box) => box.value);
  failed.textContent = rules.length ? "" : "Tick a rule first.";
  if (!rules.length) return;
  const button = form.querySelector("button");
  if (!hold(button)) return;
  const { id } = document.getElementById("rules").dataset;
  form.classList.add("busy");
  try {
    for (const kind of rules) await api("POST", `/v1/deliberations/${encodeURIComponent(id)}/recount`, { rule: { kind } });
    await redraw();
    announce(`Counted again by ${rules.length === 1 ? "one rule" : `${rules.length} rules`}.`);
    document.querySelector("#rules article:last-of-type h2")?.scrollIntoView({ block: "nearest" });
    const again = document.querySelector("#recount button:not(:disabled)");
    if (again) again.focus();
    else focusOn(document.getElementById("recount-title"));
  } catch (problem) {
    release(button);
    form.classList.remove("busy");
    failed.textContent = visible(told(problem), 500);
  }
}

/** The truth as the interface takes it, null where nothing was chosen. */
function truthIn(form) {
  const options = JSON.parse(form.dataset.options);
  const { kind } = form.dataset;
  if (kind === "approval" || kind === "ranking") {
    const ticked = [...form.querySelectorAll("input[name=truth]:checked")].map((box) => options[Number(box.value)]);
    return kind === "ranking" && !ticked.length ? null : ticked;
  }
  const { value } = form.elements.truth;
  if (value === "") return null;
  return kind === "choice" || kind === "verdict" ? options[Number(value)] : Number(value);
}

async function resolve(form) {
  const failed = document.getElementById("resolution-error");
  const answer = truthIn(form);
  failed.textContent = answer === null ? "Say how it turned out first." : "";
  if (answer === null) return;
  const { id } = document.getElementById("rules").dataset;
  const button = form.querySelector("button");
  if (!hold(button)) return;
  try {
    const { document: scored } = await api("POST", `/v1/deliberations/${encodeURIComponent(id)}/resolution`, { answer });
    showScores(scored);
    announce("The truth is recorded, and everybody is scored against it.");
  } catch (problem) {
    failed.textContent = visible(told(problem), 500);
  } finally {
    release(button);
  }
}

function showScores(scored) {
  const place = document.getElementById("scores");
  const known = scored.agents.filter((each) => each.score !== null && each.score !== undefined);
  const right = scored.correct === true ? "The outcome was right." : scored.correct === false ? "The outcome was wrong." : "";
  const brier = scored.brier === null || scored.brier === undefined ? "" : ` Brier score of the outcome: ${formatted.number(scored.brier, 3)} (0 is best).`;
  const entry = element("a", { text: `Entry ${scored.leaf_index}`, attributes: { href: `/record/entries/${scored.leaf_index}` } });
  const words = element("p", { class: "notice good" }, `Recorded. ${right}${brier} `, entry, " of the record says so.");
  const list = element("ol");
  for (const each of [...known].sort((one, other) => one.score - other.score).slice(0, 12)) {
    list.append(element("li", {}, element("bdi", { text: visible(each.agent_id, 128) }), `: ${formatted.number(each.score, 3)}`));
  }
  place.replaceChildren(words, ...(known.length ? [element("p", { text: "The first agents by their score, 0 for right and sure of it, 1 for wrong and sure of it:" }), list] : []));
}

function followForms() {
  for (const [id, act] of [["recount", recount], ["resolution", resolve]]) {
    document.getElementById(id)?.addEventListener("submit", (event) => {
      event.preventDefault();
      act(event.target);
    });
  }
}

followPicks();
followForms();
