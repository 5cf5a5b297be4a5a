// Checks the record in this browser, trusting one pinned key and SubtleCrypto alone; needs a secure context (https or localhost).
// Formats: C2SP signed-note and tlog-checkpoint; RFC 9162 section 2.1; RFC 8785.

const MOST_CHARACTERS = 1_000_000;
const MOST_SIGNATURES = 100;
const MOST_HASHES = 64;
const MOST_ENTRY_BYTES = 60_000;
const MOST_SIZE = 2n ** 63n - 1n;
const WAIT_MS = 20_000;
const CONTROL = /[\x00-\x09\x0b-\x1f]/;
const SURROGATE = /\p{Cs}/u;
const HASH = /^[0-9a-f]{64}$/;
const KEY_PLACE = "conclave.pinned-key";
const SEEN_PLACE = "conclave.seen ";
const encoder = new TextEncoder();

/** What is not as the pinned key signed it, or malformed; `evidence` holds what differs. */
export class Refused extends Error {
  constructor(message, evidence = {}) {
    super(message);
    this.evidence = evidence;
  }
}

/** Nothing could be found out: no key is pinned, the browser cannot, or the server does not answer. */
export class Unable extends Error {}

/** @returns {Promise<string | null>} why this browser cannot verify here and what to do, null where it can */
export async function obstacle() {
  if (!globalThis.crypto?.subtle) {
    return "Browsers check signatures in a secure context only: open this page over https, or on localhost. Until then nothing here is "
      + "verified; `conclave witness verify` checks a bundle without a browser.";
  }
  try {
    await crypto.subtle.importKey("raw", new Uint8Array(32), "Ed25519", false, ["verify"]);
  } catch (error) {
    if (error.name !== "NotSupportedError") return null;
    return "This browser has no Ed25519 in SubtleCrypto: take a newer one, or check a bundle with `conclave witness verify`.";
  }
  return null;
}

/** @param {number | bigint} count @returns {string} as pages write it, such as `1,853` */
export const grouped = (count) => count.toLocaleString("en");

/** @param {Uint8Array} bytes @returns {string} lower-case hexadecimal digits */
export const hex = (bytes) => Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");

/** @param {Uint8Array[]} parts @returns {Promise<Uint8Array>} SHA-256 of the parts, joined */
export async function sha256(...parts) {
  return new Uint8Array(await crypto.subtle.digest("SHA-256", joined(parts)));
}

/** @param {string} entry exactly as it was served @returns {Promise<Uint8Array>} its leaf hash, SHA-256(0x00 || entry) */
export const leafHash = (entry) => sha256(Uint8Array.of(0), bytesOf(entry, "the entry"));

const nodeHash = (left, right) => sha256(Uint8Array.of(1), left, right);

/**
 * The C2SP vkey of a log; refuses one whose id is not the hash of its name and key, and any algorithm but Ed25519 (1).
 * @param {string} vkey
 */
export async function parseKey(vkey) {
  const first = vkey.indexOf("+");
  const second = vkey.indexOf("+", first + 1);
  want(first >= 0 && second >= 0, "the key is no C2SP vkey: there is no NAME+ID+KEY in it");
  const [name, id] = [vkey.slice(0, first), vkey.slice(first + 1, second)];
  wantName(name, "key's name");
  const material = fromBase64(vkey.slice(second + 1), "key");
  want(material[0] !== 4, "the key is one of a witness, for cosignatures; pin the key of the log itself");
  want(material[0] === 1, `the key's algorithm ${material[0]} is not 1, Ed25519`);
  want(material.length === 33, `the key has ${material.length - 1} bytes; Ed25519 has 32`);
  const computed = hex((await sha256(bytesOf(`${name}\n`, "the key's name"), material)).subarray(0, 4));
  want(id === computed, "the key's id is not the hash of its name and key", { id, computed });
  return { vkey, name, id, bytes: material.subarray(1) };
}

/**
 * A checkpoint that the key has signed, of the origin that is its name. Signatures by other keys are passed over.
 * @param {string} note @param {Awaited<ReturnType<typeof parseKey>>} key
 * @returns {Promise<{origin: string, size: bigint, root: Uint8Array, note: string, others: string[]}>} `others` signed too, unchecked
 */
export async function openCheckpoint(note, key) {
  want(note.length <= MOST_CHARACTERS, `the note is longer than ${MOST_CHARACTERS} characters`);
  const message = bytesOf(note, "the note");
  want(!CONTROL.test(note), "the note has a control character in it");
  const blank = note.lastIndexOf("\n\n");
  want(blank >= 0, "the note has no blank line between its text and its signatures");
  want(note.endsWith("\n"), "the note does not end in a newline");
  const text = note.slice(0, blank + 1);
  const lines = note.slice(blank + 2).split("\n").slice(0, -1);
  want(lines.length, "the note has no signature after its blank line");
  want(lines.length <= MOST_SIGNATURES, `the note has more than ${MOST_SIGNATURES} signatures`);
  want(new Set(lines).size === lines.length, "the note has the same signature twice");
  const signatures = lines.map(readSignature);
  const own = signatures.filter((each) => each.name === key.name && each.id === key.id);
  const others = signatures.filter((each) => !own.includes(each)).map((each) => `${each.name}+${each.id}`);
  want(own.length, "the checkpoint is not signed with the pinned key", { pinned: `${key.name}+${key.id}`, signed_by: others.join(", ") });
  const signed = message.subarray(0, bytesOf(text, "the note").length);
  for (const each of own) {
    want(await isSigned(key.bytes, each.signature, signed), "the signature is not one of this checkpoint by the pinned key", {
      signature: hex(each.signature),
    });
  }
  return { ...readBody(text, key.name), note, others };
}

function readSignature(line) {
  const space = line.indexOf(" ", 2);
  want(line.startsWith("\u2014 ") && space >= 0, "a signature line is not a dash, a name and a signature", { line });
  const name = line.slice(2, space);
  wantName(name, "signer's name");
  const data = fromBase64(line.slice(space + 1), "signature");
  want(data.length > 4, "a signature is shorter than a key's id and one byte", { line });
  return { name, id: hex(data.subarray(0, 4)), signature: data.subarray(4) };
}

async function isSigned(publicKey, signature, message) {
  if (signature.length !== 64) return false;
  let imported;
  try {
    imported = await crypto.subtle.importKey("raw", publicKey, "Ed25519", false, ["verify"]);
  } catch (error) {
    if (error.name === "NotSupportedError") throw new Unable("this browser has no Ed25519");
    return false;
  }
  return crypto.subtle.verify("Ed25519", imported, signature, message);
}

function readBody(text, name) {
  const [origin, size, root, ...rest] = text.split("\n");
  want(rest.length && !rest.slice(0, -1).includes(""), "the checkpoint is not an origin, a size, a root and whole lines");
  wantName(origin, "origin");
  want(/^(0|[1-9][0-9]{0,18})$/.test(size) && BigInt(size) <= MOST_SIZE, "the checkpoint's size is not a decimal without leading zeros", { size });
  const hash = fromBase64(root, "root hash");
  want(hash.length === 32, `the root hash has ${hash.length} bytes; a SHA-256 has 32`);
  want(origin === name, "the checkpoint is of another log", { origin, pinned: name });
  return { origin, size: BigInt(size), root: hash };
}

/**
 * Where the hashes of an inclusion proof stand, from the leaf to the root: on which side, and which leaves [start, end) they cover.
 * @param {bigint} index @param {bigint} size @returns {{side: "left" | "right", start: bigint, end: bigint}[]}
 */
export function placesOf(index, size) {
  const places = [];
  let [start, end] = [0n, size];
  while (end - start > 1n) {
    const middle = start + (1n << BigInt((end - start - 1n).toString(2).length - 1));
    if (index < middle) {
      places.push({ side: "right", start: middle, end });
      end = middle;
    } else {
      places.push({ side: "left", start, end: middle });
      start = middle;
    }
  }
  return places.reverse();
}

/**
 * Climbs from the leaf to the root (RFC 9162 section 2.1.3.2). Refuses a proof that has not exactly the hashes it needs.
 * @param {{index: bigint, size: bigint, leaf: Uint8Array, root: Uint8Array, hashes: string[]}} proof
 * @returns {Promise<{side: string, start: bigint, end: bigint, hash: string, result: string}[]>} each step and what it leads to
 */
export async function verifyInclusion({ index, size, leaf, root, hashes }) {
  want(index >= 0n && index < size, `entry ${index} is not in a log of ${size} entries`);
  const places = placesOf(index, size);
  const proof = readHashes(hashes, "inclusion proof", places.length);
  let node = leaf;
  const path = [];
  for (const [height, { side, start, end }] of places.entries()) {
    const other = proof[height];
    node = side === "left" ? await nodeHash(other, node) : await nodeHash(node, other);
    path.push({ side, start, end, hash: hex(other), result: hex(node) });
  }
  wantRoot("the inclusion proof does not lead to the root of the checkpoint", root, node);
  return path;
}

/**
 * Returns where the tree of `first` leaves is the start of the tree of `second` (RFC 9162 section 2.1.4.2); refuses it if not.
 * @param {{first: bigint, second: bigint, firstRoot: Uint8Array, secondRoot: Uint8Array, hashes: string[]}} proof
 */
export async function verifyConsistency({ first, second, firstRoot, secondRoot, hashes }) {
  want(first >= 0n && first <= second, `a log of ${second} entries has not grown from one of ${first}`);
  if (first === 0n || first === second) {
    readHashes(hashes, "consistency proof", 0);
    if (first === 0n) wantRoot("the root of the empty log differs", firstRoot, await sha256());
    if (first === second) wantRoot(`there are two roots of ${second} entries`, firstRoot, secondRoot);
    return;
  }
  const path = readHashes(hashes, "consistency proof");
  // The whole older tree is a node of the newer one then, and is not repeated in the proof.
  if ((first & (first - 1n)) === 0n) path.unshift(firstRoot);
  want(path.length, "the consistency proof is too short");
  let [older, newer] = [first - 1n, second - 1n];
  const climb = () => {
    older >>= 1n;
    newer >>= 1n;
  };
  while (older & 1n) climb();
  let [old, present] = [path[0], path[0]];
  for (const each of path.slice(1)) {
    want(newer, "the consistency proof is too long");
    if (older & 1n || older === newer) {
      old = await nodeHash(each, old);
      present = await nodeHash(each, present);
      while (!(older & 1n) && older) climb();
    } else {
      present = await nodeHash(present, each);
    }
    climb();
  }
  want(!newer, "the consistency proof is too short");
  wantRoot(`the consistency proof does not lead to the root of ${first} entries`, firstRoot, old);
  wantRoot(`the consistency proof does not lead to the root of ${second} entries`, secondRoot, present);
}

/** @param {unknown} value @returns {string} its one canonical form, RFC 8785; refuses what has none */
export function canonical(value) {
  if (typeof value === "string") {
    want(!SURROGATE.test(value), "a text in it holds a lone surrogate");
    return JSON.stringify(value);
  }
  if (Array.isArray(value)) return `[${value.map(canonical).join(",")}]`;
  if (value !== null && typeof value === "object") {
    return `{${Object.keys(value).sort().map((name) => `${canonical(name)}:${canonical(value[name])}`).join(",")}}`;
  }
  return JSON.stringify(value);
}

/** @param {string} entry @returns {object} the object whose canonical form these very characters are; refuses any other entry */
export function parseEntry(entry) {
  want(bytesOf(entry, "the entry").length <= MOST_ENTRY_BYTES, `the entry is longer than ${MOST_ENTRY_BYTES} bytes`);
  let document;
  try {
    document = JSON.parse(entry);
    want(canonical(document) === entry, "the entry is not canonical JSON (RFC 8785)");
  } catch (error) {
    if (error instanceof SyntaxError) throw new Refused("the entry is not JSON");
    if (error instanceof RangeError) throw new Refused("the entry is nested too deeply");
    throw error;
  }
  want(isObject(document) && typeof document.type === "string", "the entry is no object with a type");
  return document;
}

/** @returns {boolean} whether it is a commitment to a text: exactly {"sha256": 64 digits} */
export const isCommitment = (value) => isObject(value) && Object.keys(value).join() === "sha256" && HASH.test(value.sha256);

/** @returns {Promise<boolean>} whether the commitment is SHA-256(salt || text); `salt` in hexadecimal digits */
export async function opens(committed, salt, text) {
  want(/^[0-9a-f]{32}$/.test(salt), "a salt is not 16 bytes in hexadecimal digits");
  return hex(await sha256(fromHex(salt), bytesOf(text, "a text"))) === committed.sha256;
}

/**
 * Compares what a page shows of an agent with its entry. Refuses a difference; gives what was compared, and what could not be.
 * @param {object} entry of type agent.ended
 * @param {object} output as the API gives it; `options` are those of its answer, none for a number, null where they are not known
 * @param {{options?: string[] | null, disclosures?: {sha256: string, salt: string}[]}} [known]
 */
export async function compareShown(entry, output, { options = null, disclosures = [] } = {}) {
  want(entry.type === "agent.ended", "the entry does not say how an agent ended", { type: entry.type });
  const [matched, unchecked] = [[], []];
  const wantSame = (field, ...values) => {
    const [shown, recorded] = values.map((value) => canonical(value ?? null));
    want(shown === recorded, `the page shows another ${field} than the record has`, { shown, recorded });
    matched.push(field);
  };
  const salts = new Map(disclosures.map((each) => [each.sha256, each.salt]));
  const wantText = async (field, shown, recorded) => {
    if (!isCommitment(recorded) || (shown ?? null) === null) {
      if (isCommitment(recorded) && output.erased) unchecked.push({ field, why: "the text was erased" });
      else wantSame(field, shown, recorded);
    } else if (!salts.has(recorded.sha256)) {
      unchecked.push({ field, why: "its salt is not at hand" });
    } else {
      const same = await opens(recorded, salts.get(recorded.sha256), shown);
      want(same, `the ${field} that the page shows is not the one that was committed to`, { committed: recorded.sha256 });
      matched.push(field);
    }
  };
  for (const field of ["agent_id", "round", "attempt", "state", "confidence", "model", "model_asked"]) {
    wantSame(field, output[field], entry[field]);
  }
  const recorded = entry.answer;
  const isPlaces = Number.isInteger(recorded) || Array.isArray(recorded);
  if (isCommitment(recorded)) await wantText("answer", output.answer, recorded);
  else if (!isPlaces || options?.length === 0) wantSame("answer", output.answer, recorded);
  else if (!options) unchecked.push({ field: "answer", why: "the record has its place among the options, which are not at hand" });
  else wantSame("answer", output.answer, Array.isArray(recorded) ? recorded.map((place) => options[place]) : options[recorded]);
  wantSame("kind of failure", output.failure?.kind, entry.failure?.kind);
  await wantText("failure message", output.failure?.message, entry.failure?.message);
  await wantText("content", output.content, entry.content);
  await wantText("reasoning", output.reasoning, entry.reasoning);
  return { matched, unchecked };
}

/** @returns {string | null} the vkey that is pinned in this browser */
export const pinnedKey = () => stored(KEY_PLACE);

/** Pins a key in this browser; refuses a malformed one. @param {string} vkey */
export async function pinKey(vkey) {
  const why = await obstacle();
  if (why) throw new Unable(why);
  await parseKey(vkey);
  if (!store(KEY_PLACE, vkey)) throw new Unable("this browser keeps nothing for this page, so no key can be pinned");
}

/** Forgets the pinned key. What was seen of its log stays, so that the same key pinned again still finds a rollback. */
export const forgetKey = () => store(KEY_PLACE, null);

/** @param {string} vkey @returns {string | null} the signed checkpoint of that log that this browser saw last */
export const seenCheckpoint = (vkey) => stored(SEEN_PLACE + vkey);

/** Forgets what this browser saw of that log: a rollback from there is not found any more. @param {string} vkey */
export const forgetSeen = (vkey) => store(SEEN_PLACE + vkey, null);

/**
 * What came out: "verified", "verified in part" (`unchecked` says what was left out), "refused", or "unable" where nothing could be
 * found out. `words` says it in a sentence, `step` is the one that failed.
 * @typedef {{name: string, result: string, words: string, evidence?: object}} Step
 * @typedef {{result: string, words: string, step: string | null, steps: Step[], unchecked: object[], [fact: string]: any}} Report
 */

/**
 * Checks the present checkpoint: signed with the pinned key, and grown out of the one that this browser saw last.
 * @param {{pinnedKey?: string | null}} [given] @returns {Promise<Report>} with `checkpoint`
 */
export function verifyHead({ pinnedKey: vkey = pinnedKey() } = {}) {
  return reported(async (take) => {
    const { checkpoint } = await takeHead(take, vkey);
    return { checkpoint, words: `The checkpoint of ${grouped(checkpoint.size)} entries is signed with the pinned key.` };
  });
}

/**
 * Checks that the entry stands in the log under the present checkpoint, and what a page shows of it.
 * @param {number | bigint | string} index
 * @param {{pinnedKey?: string | null, text?: string, shown?: {output: object, deliberationId: string, acceptedIndex?: number,
 *   disclosures?: object[]}}} [given] `text` is the entry as the page was given it; `acceptedIndex` is where the deliberation was
 *   accepted, whose options are proven with it
 * @returns {Promise<Report>} with `checkpoint`, `entry` (the document), `text`, `leaf` and `path`
 */
export function verifyEntry(index, { pinnedKey: vkey = pinnedKey(), text, shown } = {}) {
  return reported(async (take) => {
    const { checkpoint } = await takeHead(take, vkey);
    const found = await takeEntry(take, BigInt(index), checkpoint, "");
    want(text === undefined || text === found.text, "this page was given another entry than the log has at this index");
    const proven = `Entry ${index} is in the log of ${grouped(checkpoint.size)} entries that the pinned key signed`;
    const facts = { checkpoint, ...found };
    if (!shown) return { ...facts, words: `${proven}.` };
    const id = shown.deliberationId;
    want(found.entry.deliberation_id === id, "the entry belongs to another deliberation", { entry: String(found.entry.deliberation_id) });
    let options = null;
    if ((shown.acceptedIndex ?? null) !== null && found.entry.round === 0) {
      const accepted = (await takeEntry(take, BigInt(shown.acceptedIndex), checkpoint, "acceptance: ")).entry;
      const isIt = accepted.type === "deliberation.accepted" && accepted.deliberation_id === id;
      want(isIt, "the deliberation was not accepted in the entry that was named");
      options = accepted.answer?.options ?? [];
    }
    let compared;
    await take("what the page shows", async () => {
      compared = await compareShown(found.entry, shown.output, { options, disclosures: shown.disclosures });
      return `The same in page and record: ${compared.matched.join(", ")}.`;
    });
    const left = compared.unchecked.map(({ field, why }) => `${field} (${why})`).join(", ");
    return {
      ...facts,
      unchecked: compared.unchecked,
      words: `${proven}, and the page shows what it says.${left ? ` Not checked: ${left}.` : ""}`,
    };
  });
}

/** Takes steps one after the other and makes a report of them; nothing that breaks is taken for a success. */
export async function reported(work) {
  const steps = [];
  let current = "start";
  const take = async (name, check) => {
    current = name;
    const said = await check();
    steps.push(typeof said === "string" ? { name, result: "verified", words: said } : { name, ...said });
  };
  try {
    const why = await obstacle();
    if (why) throw new Unable(why);
    const { words, unchecked = [], ...facts } = await work(take);
    return { result: unchecked.length ? "verified in part" : "verified", words, step: null, steps, unchecked, ...facts };
  } catch (error) {
    const result = error instanceof Refused ? "refused" : "unable";
    const words = error instanceof Refused || error instanceof Unable ? error.message : `the check broke off: ${error.message}`;
    steps.push({ name: current, result, words, evidence: error.evidence });
    return { result, words, step: current, steps, unchecked: [] };
  }
}

/** Takes the steps of the pinned key. @returns the parsed key */
export async function takeKey(take, vkey) {
  if (!vkey) throw new Unable("no key is pinned in this browser: pin one on the page of the record first");
  let key;
  await take("pinned key", async () => {
    key = await parseKey(vkey);
    return `The pinned key is well formed: ${key.name}+${key.id}.`;
  });
  return key;
}

async function takeHead(take, vkey) {
  const key = await takeKey(take, vkey);
  let checkpoint;
  // One tab after the other: a checkpoint fetched before another tab saw a newer one would look like a rollback.
  const check = async () => {
    const seen = seenCheckpoint(vkey);
    await take("checkpoint", async () => {
      checkpoint = await openCheckpoint(await ask("/v1/witness/checkpoint"), key);
      const others = checkpoint.others.length ? ` Passed over: ${checkpoint.others.length} signatures by keys that are not pinned.` : "";
      return `Signed with the pinned key: ${grouped(checkpoint.size)} entries, root ${hex(checkpoint.root)}.${others}`;
    });
    await take("consistency", () => continues(seen, checkpoint, key));
  };
  if (globalThis.navigator?.locks) await navigator.locks.request(SEEN_PLACE, check);
  else await check();
  return { key, checkpoint };
}

async function continues(note, now, key) {
  let words = "The first checkpoint of this log in this browser: there is nothing to compare it with yet.";
  if (note !== null) {
    let seen;
    try {
      seen = await openCheckpoint(note, key);
    } catch (error) {
      throw new Refused(`the checkpoint that this browser kept is damaged: ${error.message}`);
    }
    const facts = { seen: `${seen.size} ${hex(seen.root)}`, now: `${now.size} ${hex(now.root)}` };
    want(seen.size <= now.size, `the log was rolled back: it had ${seen.size} entries and has ${now.size}`, facts);
    let hashes = [];
    if (seen.size < now.size && seen.size > 0n) {
      const proof = await askObject(`/v1/witness/proofs/consistency?first=${seen.size}&second=${now.size}`);
      want(proof.first_root === hex(seen.root) && proof.second_root === hex(now.root),
        "the log was forked: the server proves it from another root than this browser saw", facts);
      hashes = proof.hashes;
    }
    try {
      await verifyConsistency({ first: seen.size, second: now.size, firstRoot: seen.root, secondRoot: now.root, hashes });
    } catch (error) {
      if (error instanceof Refused) throw new Refused(`the log was forked: ${error.message}`, facts);
      throw error;
    }
    words = `It continues the checkpoint of ${grouped(seen.size)} entries that this browser saw last.`;
    if (seen.size === now.size) return words;
  }
  if (store(SEEN_PLACE + key.vkey, now.note)) return note === null ? { result: "noted", words } : words;
  return { result: "noted", words: `${words} This browser keeps nothing, so the next one cannot be compared.` };
}

async function takeEntry(take, index, checkpoint, prefix) {
  let served, text, entry, leaf, path;
  await take(`${prefix}entry`, async () => {
    want(index >= 0n && index < checkpoint.size, `entry ${index} is not in a log of ${checkpoint.size} entries`);
    served = await askObject(`/v1/witness/entries/${index}`);
    text = served.entry;
    want(typeof text === "string" && String(served.index) === String(index), "the server gave another entry than was asked for");
    entry = parseEntry(text);
    return `Entry ${index} is canonical JSON, of type ${entry.type}.`;
  });
  await take(`${prefix}leaf hash`, async () => {
    leaf = await leafHash(text);
    want(served.leaf_hash === hex(leaf), "the entry does not hash to the leaf that the server names", { named: String(served.leaf_hash), computed: hex(leaf) });
    return `SHA-256 of 0x00 and its bytes is ${hex(leaf)}.`;
  });
  await take(`${prefix}inclusion proof`, async () => {
    const proof = await askObject(`/v1/witness/proofs/inclusion?index=${index}&tree_size=${checkpoint.size}`);
    path = await verifyInclusion({ index, size: checkpoint.size, leaf, root: checkpoint.root, hashes: proof.hashes });
    return `${path.length} hashes lead from the leaf to the root of the checkpoint.`;
  });
  return { text, entry, leaf: hex(leaf), path };
}

async function ask(path) {
  let response, bytes;
  try {
    response = await fetch(path, { cache: "no-store", signal: AbortSignal.timeout(WAIT_MS) });
    bytes = await response.arrayBuffer();
  } catch (error) {
    throw new Unable(`the server did not answer ${path} (${error.name})`);
  }
  if (!response.ok) throw new Unable(`the server answered ${path} with status ${response.status}`);
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    throw new Refused(`the answer of ${path} is not UTF-8`);
  }
}

async function askObject(path) {
  const text = await ask(path);
  let document = null;
  try {
    document = JSON.parse(text);
  } catch (error) {
    throw new Refused(`the answer of ${path} is not JSON: ${error.message}`);
  }
  want(isObject(document), `the answer of ${path} is no object`);
  return document;
}

/** @returns {Uint8Array[]} the hashes of a proof; refuses any that is not 64 lower-case digits, and another number than `needed` */
export function readHashes(hashes, what, needed = null) {
  want(Array.isArray(hashes), `the ${what} is no list of hashes`);
  want(hashes.length <= MOST_HASHES, `the ${what} is too long: no log needs more than ${MOST_HASHES} hashes`);
  if (needed !== null && hashes.length !== needed) {
    throw new Refused(`the ${what} is too ${hashes.length < needed ? "short" : "long"}: it has ${hashes.length} hashes where ${needed} are needed`);
  }
  return hashes.map((each, place) => {
    want(typeof each === "string" && HASH.test(each), `hash ${place} of the ${what} is not 64 lower-case hexadecimal digits`);
    return fromHex(each);
  });
}

/** @returns {Uint8Array} the UTF-8 of a text; refuses a text that has none */
export function bytesOf(text, what) {
  want(typeof text === "string" && !SURROGATE.test(text), `${what} cannot be written as UTF-8`);
  return encoder.encode(text);
}

/** Refuses unless it holds. */
export function want(holds, message, evidence) {
  if (!holds) throw new Refused(message, evidence);
}

const fromHex = (digits) => Uint8Array.from(digits.match(/../g), (two) => Number.parseInt(two, 16));

export const isObject = (value) => typeof value === "object" && value !== null && !Array.isArray(value);

function wantRoot(message, expected, computed) {
  want(hex(expected) === hex(computed), message, { expected: hex(expected), computed: hex(computed) });
}

function wantName(name, what) {
  want(name !== "" && !/[+\p{White_Space}\x00-\x1f]/u.test(name), `the ${what} is empty or has a space, a plus or a control character`, { name });
}

function fromBase64(encoded, what) {
  let binary = null;
  try {
    binary = atob(encoded);
  } catch {
    throw new Refused(`the ${what} is not base64`);
  }
  // One value has one spelling: otherwise two different notes would carry the same signature.
  want(btoa(binary) === encoded, `the ${what} is not in canonical base64`);
  return Uint8Array.from(binary, (character) => character.charCodeAt(0));
}

function joined(parts) {
  const bytes = new Uint8Array(parts.reduce((length, part) => length + part.length, 0));
  let place = 0;
  for (const part of parts) {
    bytes.set(part, place);
    place += part.length;
  }
  return bytes;
}

function stored(place) {
  try {
    return localStorage.getItem(place);
  } catch {
    return null;
  }
}

function store(place, value) {
  try {
    if (value === null) localStorage.removeItem(place);
    else localStorage.setItem(place, value);
    return true;
  } catch {
    return false;
  }
}
