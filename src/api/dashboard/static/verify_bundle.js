// Checks a whole verification bundle in this browser: that its entries are in the signed log, complete, in order and well counted.

import {
  Refused, bytesOf, grouped, hex, isCommitment, isObject, leafHash, openCheckpoint, opens, parseEntry, pinnedKey, reported, sha256, takeKey,
  verifyInclusion, want,
} from "./verify.js";

const STATES = ["answered", "abstained", "invalid", "timed_out", "throttled", "failed", "over_budget", "cancelled", "halted"];
const ENDINGS = new Set(["completed", "inquorate", "cancelled", "halted", "failed"]);
const OF_THE_SYSTEM = new Set(["halt.set", "halt.cleared", "key.added", "key.retired", "restore.accepted"]);
const AFTER_THE_END = new Set(["recounted", "resolved", "erased"]);
const TEXTS = ["question", "context", "key_name", "reason", "prompt", "content", "reasoning"];

/** What is left to `conclave witness verify`; a report of a bundle always carries it. */
export const NOT_CHECKED = [
  { field: "outcome", why: "the tally and the decision are not computed again from the ballots here" },
  { field: "figures", why: "tokens, money, rounds, certificate, recounts and resolutions are not computed again here" },
  { field: "what followed", why: "no bundle can show that nothing followed what is in it" },
];

/**
 * Checks the file of one bundle. Its result is never better than "verified in part": see `NOT_CHECKED`.
 * @param {ArrayBuffer | Uint8Array | string} file
 * @param {{pinnedKey?: string | null, onProgress?: (done: number, all: number) => void}} [given]
 * @returns {Promise<import("./verify.js").Report>} with `checkpoint`, `deliberationId`, `entries`, `status`, `rollCall`, `texts`
 */
export function verifyBundle(file, { pinnedKey: vkey = pinnedKey(), onProgress = () => {} } = {}) {
  return reported(async (take) => {
    const key = await takeKey(take, vkey);
    let bundle, checkpoint, told, ending;
    await take("file", async () => {
      bundle = readFile(file);
      wantFields(bundle, { version: "number", checkpoint: "string", public_key: "string", entries: "array", disclosures: "array" }, "the bundle");
      want(bundle.version === 1, `the bundle has the version ${bundle.version}, not 1`);
      want(bundle.public_key === vkey, "the bundle names another public key than the pinned one", { named: bundle.public_key });
      want(bundle.entries.length, "the bundle holds no entries");
      return `A bundle of ${grouped(bundle.entries.length)} entries and ${grouped(bundle.disclosures.length)} texts that names the pinned key.`;
    });
    await take("checkpoint", async () => {
      checkpoint = await openCheckpoint(bundle.checkpoint, key);
      return `Signed with the pinned key: ${grouped(checkpoint.size)} entries, root ${hex(checkpoint.root)}.`;
    });
    await take("inclusion proofs", async () => {
      told = await readEntries(bundle.entries, checkpoint, onProgress);
      return `Each of the ${grouped(told.length)} entries is canonical and in the log, in ascending order.`;
    });
    await take("order", async () => {
      ending = await wantWhole(told);
      return "From its acceptance to its end nothing is missing, added or moved; each call has one end.";
    });
    await take("roll call", async () => countAgents(told, ending));
    let texts;
    await take("texts", async () => {
      texts = await matchTexts(told, bundle.disclosures);
      return `${texts.disclosed} disclosed and what was committed to; ${texts.withheld} withheld, ${texts.erased} erased, `
        + `${texts.prompts} prompts committed to and never kept.`;
    });
    const unchecked = texts.withheld ? [...NOT_CHECKED, { field: "texts", why: `${texts.withheld} of the texts are withheld` }] : NOT_CHECKED;
    return {
      checkpoint,
      deliberationId: told[0].entry.deliberation_id,
      entries: told.length,
      status: ending.entry.status,
      rollCall: ending.entry.roll_call,
      texts,
      unchecked,
      words: `The ${grouped(told.length)} entries of this bundle are in the log that the pinned key signed, complete and in order, and the roll call `
        + `adds up. Not checked: ${unchecked.map((each) => each.why).join("; ")}. “conclave witness verify FILE --key VKEY” computes the `
        + "outcome and the figures again.",
    };
  });
}

/** @param {object} entry @returns {[string, {sha256: string}][]} the texts that it commits to: field and commitment */
export function commitmentsOf(entry) {
  const fields = TEXTS.map((name) => [name, entry[name]]);
  if (entry.type === "agent.ended") fields.push(["answer", entry.answer], ["failure/message", entry.failure?.message]);
  if (Array.isArray(entry.members)) entry.members.forEach((each, place) => fields.push([`members/${place}/persona`, each?.persona]));
  return fields.filter(([, value]) => isCommitment(value));
}

function readFile(file) {
  let text = file;
  try {
    if (typeof file !== "string") text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(file);
  } catch {
    throw new Refused("the file is not UTF-8");
  }
  want(text.trim(), "the file is empty");
  try {
    const document = JSON.parse(text);
    want(isObject(document), "the file is not one JSON object");
    // A name that stands twice would mean one thing here and another elsewhere; the parser keeps only the last.
    let names = 0;
    for (const [, colon] of text.matchAll(/"[^"\\]*(?:\\.[^"\\]*)*"(\s*:)?/g)) if (colon) names += 1;
    want(names === namesIn(document), "a name stands twice in one object of the file");
    return document;
  } catch (error) {
    if (error instanceof SyntaxError) throw new Refused(`the file is not JSON: ${error.message}`);
    if (error instanceof RangeError) throw new Refused("the file is nested too deeply");
    throw error;
  }
}

function namesIn(value) {
  if (typeof value !== "object" || value === null) return 0;
  const inner = Object.values(value).reduce((count, each) => count + namesIn(each), 0);
  return Array.isArray(value) ? inner : inner + Object.keys(value).length;
}

function wantFields(document, fields, what) {
  want(isObject(document), `${what} is no object`);
  for (const name of Object.keys(document)) want(Object.hasOwn(fields, name), `${what} has an unknown field`, { name });
  for (const [name, kind] of Object.entries(fields)) {
    const value = Object.hasOwn(document, name) ? document[name] : undefined;
    want(kind === "array" ? Array.isArray(value) : typeof value === kind, `${what} lacks its ${name}, or has it of another kind`);
  }
}

async function readEntries(items, checkpoint, onProgress) {
  const told = [];
  let previous = -1;
  for (const [place, item] of items.entries()) {
    const what = `number ${place + 1} of the entries`;
    wantFields(item, { index: "number", entry: "string", inclusion_proof: "array" }, what);
    const { index } = item;
    want(Number.isSafeInteger(index) && index > previous, `${what} has the index ${index} after ${previous}: it stands twice or out of order`);
    previous = index;
    try {
      const leaf = await leafHash(item.entry);
      await verifyInclusion({ index: BigInt(index), size: checkpoint.size, leaf, root: checkpoint.root, hashes: item.inclusion_proof });
      told.push({ index, leaf, entry: parseEntry(item.entry) });
    } catch (error) {
      if (error instanceof Refused) throw new Refused(`entry ${index}: ${error.message}`, error.evidence);
      throw error;
    }
    if (place % 64 === 0) onProgress(place, items.length);
  }
  return told;
}

// The entries of one deliberation, from its acceptance to its end, each call intended before it ended.
async function wantWhole(told) {
  const own = told.filter(({ entry, index }) => {
    if (!OF_THE_SYSTEM.has(entry.type)) return true;
    want((entry.deliberation_id ?? null) === null, `entry ${index} of the system names a deliberation`);
    return false;
  });
  const id = own[0]?.entry.deliberation_id;
  want(typeof id === "string" && id, "the first entry names no deliberation");
  want(own[0].entry.type === "deliberation.accepted", "the first entry is not the acceptance of the deliberation");
  want(Array.isArray(own[0].entry.members), "the acceptance names no members");
  const members = new Set(own[0].entry.members.map((each) => each?.agent_id));
  const [calls, ended] = [new Map(), new Set()];
  let ending = null;
  for (const each of own) {
    const { entry, index } = each;
    const fault = (words) => new Refused(`entry ${index}: ${words}`);
    if (entry.deliberation_id !== id) throw fault("it belongs to another deliberation");
    if (AFTER_THE_END.has(entry.type)) {
      if (!ending && entry.type !== "erased") throw fault(`the deliberation was ${entry.type} before its end`);
      continue;
    }
    if (ending) throw fault(`an entry of type ${entry.type} follows the end`);
    if (entry.type === "deliberation.ended") {
      if (!ENDINGS.has(entry.status)) throw fault("the status is none in which a deliberation ends");
      ending = each;
    } else if (entry.type === "call.intended" || entry.type === "agent.ended" || entry.type === "texts.compared") {
      const isComparison = entry.purpose === "comparison";
      if (isComparison ? entry.agent_id !== "" : !members.has(entry.agent_id)) throw fault("its agent is no member");
      const turn = JSON.stringify([entry.round, entry.agent_id]);
      if (entry.type === "call.intended") {
        if (isComparison && ended.has(turn)) throw fault("a call was intended after its end");
        if (calls.get(turn)?.has(entry.attempt)) throw fault("an attempt is intended twice");
        calls.set(turn, (calls.get(turn) ?? new Set()).add(entry.attempt));
      } else {
        if (ended.has(turn)) throw fault("an agent ends twice in one round");
        if ((entry.attempt || isComparison) && !calls.get(turn)?.has(entry.attempt)) throw fault("it ends an attempt that was never intended");
        ended.add(turn);
      }
    } else if (entry.type === "round.started") {
      if (!Array.isArray(entry.agents) || !entry.agents.every((agent) => members.has(agent))) throw fault("a round asks agents that are no members");
    } else if (entry.type !== "deliberation.accepted" || each !== own[0]) {
      throw fault(`an entry of type ${entry.type} does not belong there`);
    }
  }
  if (!ending) throw new Refused("the bundle is cut off: the deliberation has no entry of its end");
  for (const turn of calls.keys()) want(ended.has(turn), `an agent was called and never ended: ${turn}`);
  const before = own.filter(({ index }) => index < ending.index);
  const computed = hex(await sha256(...before.map(({ leaf }) => leaf)));
  want(ending.entry.record_sha256 === computed, "the deliberation ended with other entries than there are: one is missing, added or moved", {
    recorded: ending.entry.record_sha256,
    computed,
  });
  return ending;
}

function countAgents(told, ending) {
  const last = new Map();
  for (const { entry } of told) {
    if (entry.type !== "agent.ended") continue;
    want(STATES.includes(entry.state), `the state ${entry.state} is not known`);
    if (!last.has(entry.agent_id) || last.get(entry.agent_id).round <= entry.round) last.set(entry.agent_id, entry);
  }
  const counts = Object.fromEntries(STATES.map((state) => [state, 0]));
  for (const { state } of last.values()) counts[state] += 1;
  const recorded = ending.entry.roll_call;
  want(isObject(recorded) && Object.keys(recorded).length === STATES.length + 1, "the roll call counts other states than there are");
  for (const [state, computed] of Object.entries({ asked: last.size, ...counts })) {
    want(recorded[state] === computed, `the roll call is not what the entries give: ${state}`, { recorded: recorded[state], computed });
  }
  const parts = STATES.filter((state) => counts[state]).map((state) => `${counts[state]} ${state.replace("_", " ")}`);
  return last.size ? `${last.size} asked = ${parts.join(" + ")}.` : "Nobody was asked.";
}

async function matchTexts(told, disclosures) {
  const committed = new Set(told.flatMap(({ entry }) => commitmentsOf(entry).map(([, value]) => value.sha256)));
  const opened = new Set();
  for (const each of disclosures) {
    wantFields(each, { sha256: "string", salt: "string", text: "string" }, "a disclosure");
    bytesOf(each.text, "a disclosed text");
    want(await opens(each, each.salt, each.text), "a disclosed text is not the one that was committed to", { sha256: each.sha256 });
    want(!opened.has(each.sha256), "a text is disclosed twice", { sha256: each.sha256 });
    want(committed.has(each.sha256), "a disclosed text belongs to no entry", { sha256: each.sha256 });
    opened.add(each.sha256);
  }
  const erasedUntil = told.findLast(({ entry }) => entry.type === "erased")?.index ?? -1;
  const texts = { disclosed: opened.size, withheld: 0, erased: 0, prompts: 0 };
  for (const { index, entry } of told) {
    for (const [field, value] of commitmentsOf(entry)) {
      if (opened.has(value.sha256)) continue;
      if (field === "prompt") texts.prompts += 1;
      else if (index < erasedUntil) texts.erased += 1;
      else texts.withheld += 1;
    }
  }
  return texts;
}
