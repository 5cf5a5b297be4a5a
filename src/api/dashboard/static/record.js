// The pages of the record: the pinned key, and what this browser finds when it checks checkpoint, entries and bundles itself.

import { announce, api, bdi, element, hold, release, visible } from "./page.js";
import {
  Refused, Unable, forgetKey, forgetSeen, obstacle, opens, pinKey, pinnedKey, seenCheckpoint, verifyEntry, verifyHead,
} from "./verify.js";

const MOST_BUNDLE_BYTES = 256 * 1024 * 1024;
const WORDS = {
  verified: ["good", "Verified."],
  "verified in part": ["warn", "Verified in part."],
  noted: ["", "Noted."],
  refused: ["bad", "Refused."],
  unable: ["warn", "Not checked."],
};
const at = (id) => document.getElementById(id);
// As `visible_document` of the server: every word made visible, lines and spaces as they stand.
const visibleDocument = (text) => text.split("\n").map((line) => line.split(" ").map((word) => visible(word)).join(" ")).join("\n");

/** Puts a report into the page: what came out, in words, and every step with its own. */
function show(place, report) {
  const [kind, name] = WORDS[report.result];
  const steps = report.steps.map((step) => {
    const [look, word] = WORDS[step.result];
    const evidence = Object.entries(step.evidence ?? {}).flatMap(([field, value]) => [
      element("dt", { text: field.replaceAll("_", " ") }), element("dd", {}, element("code", {}, bdi(value, 300))),
    ]);
    const row = element("li", { attributes: { "data-step": step.name, "data-result": step.result } },
      element("strong", { class: look, text: `${word.slice(0, -1)}:` }), " ", element("em", { text: `${step.name}. ` }), bdi(step.words, 1000));
    if (evidence.length) row.append(element("dl", {}, ...evidence));
    return row;
  });
  place.replaceChildren(
    element("p", { class: `notice ${kind}`, attributes: { "data-result": report.result } }, element("strong", { text: `${name} ` }), bdi(report.words, 2000)),
    element("ol", { class: "steps" }, ...steps),
  );
  announce(`${name} ${report.words}`, { assertive: report.result === "refused" });
}

/** Runs a check with its button held, so that two do not run at a time. */
async function run(button, place, check) {
  if (!hold(button)) return null;
  place.setAttribute("aria-busy", "true");
  try {
    const report = await check();
    show(place, report);
    return report;
  } finally {
    release(button);
    place.removeAttribute("aria-busy");
  }
}

async function refuseHere() {
  const why = await obstacle();
  if (why) {
    at("obstacle").textContent = why;
    at("obstacle").hidden = false;
  }
  return why !== null;
}

function startRecord() {
  const serverKey = at("browser").dataset.vkey;
  const check = at("check-head");
  const checkHead = () => run(check, at("head-report"), verifyHead).finally(showKey);

  function showKey() {
    const vkey = pinnedKey();
    const seen = vkey && seenCheckpoint(vkey);
    const other = vkey && vkey !== serverKey ? " This server names another key, so expect a refusal." : "";
    at("pinned").replaceChildren(...(vkey ? ["Pinned in this browser: ", element("code", {}, bdi(vkey, 300)), other] : ["No key is pinned in this browser."]));
    at("forget").hidden = !vkey;
    check.hidden = !vkey;
    at("seen").hidden = !seen;
    if (seen) at("seen-words").textContent = `${visible(seen.split("\n")[1].replace(/\B(?=(\d{3})+$)/g, ","))} entries, root ${visible(seen.split("\n")[2])} (base64).`;
  }

  async function pin(vkey) {
    const input = at("vkey");
    let fault = "";
    try {
      await pinKey(vkey);
    } catch (error) {
      if (!(error instanceof Refused || error instanceof Unable)) throw error;
      fault = `It is not pinned: ${visible(error.message, 500)}.`;
    }
    at("vkey-error").textContent = fault;
    input.setAttribute("aria-invalid", String(fault !== ""));
    if (fault) {
      input.focus();
      announce(fault, { assertive: true });
      return;
    }
    input.value = "";
    showKey();
    await checkHead();
  }

  at("pin").addEventListener("submit", (event) => {
    event.preventDefault();
    pin(at("vkey").value.trim());
  });
  at("take").addEventListener("click", () => pin(serverKey));
  at("forget").addEventListener("click", () => {
    forgetKey();
    showKey();
    at("head-report").replaceChildren(element("p", { text: "Not checked: no key is pinned." }));
    announce("The key is forgotten.");
    at("vkey").focus();
  });
  at("forget-seen").addEventListener("click", () => {
    forgetSeen(pinnedKey());
    showKey();
    announce("What this browser saw is forgotten.");
    check.focus();
  });
  check.addEventListener("click", checkHead);
  window.addEventListener("storage", showKey);
  startBundles();
  showKey();
  refuseHere().then((refused) => {
    if (pinnedKey() && !refused) checkHead();
  });
}

function startBundles() {
  const file = at("bundle-file");
  const button = at("bundle-fetch").querySelector("button");
  const check = (fetched) => run(button, at("bundle-report"), async () => {
    const { verifyBundle } = await import("./verify_bundle.js");
    const given = await fetched();
    if (given.result) return given;
    const onProgress = (done, all) => at("bundle-report").replaceChildren(element("p", { text: `Entry ${done + 1} of ${all} …` }));
    return verifyBundle(given.bytes, { onProgress });
  });
  const unable = (words) => ({ result: "unable", words, steps: [] });
  file.addEventListener("change", () => {
    const chosen = file.files[0];
    if (!chosen) return;
    check(async () => (chosen.size > MOST_BUNDLE_BYTES ? unable("the file is longer than 256 MiB") : { bytes: await chosen.arrayBuffer() }));
  });
  at("bundle-fetch").addEventListener("submit", (event) => {
    event.preventDefault();
    const id = at("bundle-id").value.trim();
    check(async () => {
      const response = await fetch(`/v1/deliberations/${encodeURIComponent(id)}/bundle`, { cache: "no-store" });
      if (!response.ok) return unable(`the server gave no bundle of ${id} (status ${response.status})`);
      return { bytes: await response.arrayBuffer() };
    });
  });
}

function startEntry() {
  const place = at("entry");
  const { index, text, deliberation } = place.dataset;
  const button = at("check-entry");
  let proven = "";

  function showVerified(report) {
    proven = report.text;
    at("leaf").textContent = report.leaf;
    at("pretty").textContent = visibleDocument(JSON.stringify(report.entry, null, 2));
    at("raw").textContent = visible(report.text);
    at("shown-words").textContent = "Written by this browser from the bytes that it checked.";
    let below = report.leaf;
    const rows = report.path.map(({ side, start, end, hash, result }, height) => {
      const leaves = end - start === 1n ? `entry ${start}` : `entries ${start} to ${end - 1n}`;
      const own = `${side === "left" ? "right" : "left"}: ${height ? "what the row above gives" : "this entry's leaf"}`;
      const row = element("li", {},
        element("div", { class: `node other ${side}` }, element("span", { text: `${side}: ${leaves}` }), element("code", { text: hash })),
        element("div", { class: "node own" }, element("span", { text: own }), element("code", { text: below })));
      below = result;
      return row;
    });
    if (rows.length) at("path")?.replaceChildren(...rows);
    if (at("root")) at("root").textContent = below;
  }

  async function check() {
    const report = await run(button, at("entry-report"), () => verifyEntry(index, { text }));
    if (report?.result === "verified") showVerified(report);
    else if (report) at("shown-words").textContent = "As the server gave it. It is not verified.";
  }

  button.addEventListener("click", check);
  at("open-texts")?.addEventListener("click", () => openTexts(deliberation, proven));
  refuseHere().then((refused) => {
    if (refused) return;
    if (at("open-texts")) at("open-texts").hidden = false;
    button.hidden = !pinnedKey();
    if (pinnedKey()) check();
    else at("entry-report").replaceChildren(element("p", {}, "Not checked: no key is pinned in this browser. ", element("a", { text: "Pin one on the page of the record.", attributes: { href: "/record" } })));
  });
}

// Only what opens a commitment of the entry is shown, so that no other text can stand there. `proven` is the entry once it is verified.
async function openTexts(id, proven) {
  const words = at("texts-words");
  try {
    const { document: bundle } = await api("GET", `/v1/deliberations/${encodeURIComponent(id)}/bundle`);
    const disclosures = new Map(bundle.disclosures.map((each) => [each.sha256, each]));
    let opened = 0;
    const places = at("texts").querySelectorAll("[data-sha256]");
    for (const place of places) {
      const { sha256 } = place.dataset;
      const given = disclosures.get(sha256);
      place.querySelector("p")?.remove();
      if (!given) {
        place.append(element("p", { class: "muted", text: "The server gives no text for it: it is a prompt, which is not kept, or it was erased." }));
      } else if ((!proven || proven.includes(`"${sha256}"`)) && (await opens({ sha256 }, given.salt, given.text))) {
        opened += 1;
        place.append(element("p", { class: "opened" }, element("bdi", { text: visibleDocument(given.text) })));
      } else {
        place.append(element("p", { class: "notice bad", text: "Refused: the text that the server gives is not the one that was committed to." }));
      }
    }
    words.textContent = `${opened} of ${places.length} texts are those that were committed to.${proven ? "" : " The entry itself is not verified."}`;
  } catch (error) {
    words.textContent = `The texts were not checked: ${visible(error.message, 300)}`;
  }
}

if (at("browser")) startRecord();
if (at("entry")) startEntry();
