// Draws the OpenAPI document. Everything is put in as text, never as markup.

import { api, element } from "/static/page.js";

const code = (text) => element("code", { text });
const title = (tag, text) => element(tag, { text });
const remark = (text) => element("p", { class: "muted", text });
const nameOf = (reference) => reference.slice(reference.lastIndexOf("/") + 1);

function linkTo(reference) {
  return element("a", { text: nameOf(reference), attributes: { href: `#schema-${encodeURIComponent(nameOf(reference))}` } });
}

// What a value may be, as text and links in one line.
function typeOf(schema) {
  if (schema.$ref) return [linkTo(schema.$ref)];
  if (schema.anyOf) return joined(schema.anyOf.map(typeOf), " or ");
  if (schema.enum) return [schema.enum.map((value) => JSON.stringify(value)).join(" | ")];
  if ("const" in schema) return [JSON.stringify(schema.const)];
  if (schema.type === "array") return ["list of ", ...typeOf(schema.items ?? {})];
  if (schema.type === "object" && typeof schema.additionalProperties === "object") {
    return ["object of ", ...typeOf(schema.additionalProperties)];
  }
  return [[schema.type ?? "any value", schema.format ? ` (${schema.format})` : ""].join("")];
}

function joined(parts, separator) {
  return parts.flatMap((part, place) => (place ? [separator, ...part] : part));
}

function boundsOf(schema) {
  const words = {
    minimum: "at least", maximum: "at most", minLength: "shortest", maxLength: "longest",
    minItems: "fewest", maxItems: "most", default: "default",
  };
  return Object.entries(words)
    .filter(([key]) => schema[key] !== undefined && schema[key] !== null)
    .map(([key, word]) => `${word} ${JSON.stringify(schema[key])}`)
    .concat((schema.anyOf ?? []).flatMap(boundsOf));
}

function entry(name, schema, notes, description) {
  const term = element("dt", {}, code(name), " ", ...typeOf(schema));
  const remarks = [...notes, ...boundsOf(schema)].join(", ");
  const text = [remarks, description ?? schema.description].filter(Boolean).join(". ");
  return text ? [term, element("dd", { text })] : [term];
}

function fieldsOf(schema) {
  const required = new Set(schema.required ?? []);
  const fields = Object.entries(schema.properties ?? {});
  return element("dl", {}, ...fields.flatMap(([name, field]) => entry(name, field, required.has(name) ? ["required"] : [])));
}

function bodyOf(content) {
  return Object.entries(content ?? {}).map(([mediaType, body]) =>
    element("p", {}, ...typeOf(body.schema ?? {}), " as ", code(mediaType)));
}

function operationOf(path, method, operation) {
  const verb = element("span", { class: "method", text: method.toUpperCase() });
  const parts = [element("summary", {}, verb, code(path), ` ${operation.summary ?? ""}`), remark(operation.description)];
  if (operation.parameters?.length) {
    const entries = operation.parameters.flatMap((parameter) =>
      entry(parameter.name, parameter.schema ?? {}, [`in ${parameter.in}`], parameter.description));
    parts.push(title("h3", "Parameters"), element("dl", {}, ...entries));
  }
  if (operation.requestBody) parts.push(title("h3", "Body"), ...bodyOf(operation.requestBody.content));
  const answers = Object.entries(operation.responses).flatMap(([status, answer]) => [
    element("dt", {}, code(status), ` ${answer.description}`),
    element("dd", {}, ...bodyOf(answer.content)),
  ]);
  parts.push(title("h3", "Answers"), element("dl", {}, ...answers));
  return element("details", {}, ...parts);
}

function draw(openapi) {
  document.getElementById("summary").textContent = `${openapi.info.title} ${openapi.info.version}. ${openapi.info.description}`;
  const content = document.getElementById("reference");
  for (const tag of openapi.tags) {
    content.append(title("h2", tag.name), remark(tag.description));
    for (const [path, operations] of Object.entries(openapi.paths)) {
      for (const [method, operation] of Object.entries(operations)) {
        if (operation.tags?.includes(tag.name)) content.append(operationOf(path, method, operation));
      }
    }
  }
  content.append(title("h2", "Documents"));
  for (const [name, schema] of Object.entries(openapi.components.schemas).sort()) {
    const summary = element("summary", {}, code(name));
    const attributes = { id: `schema-${encodeURIComponent(name)}` };
    content.append(element("details", { attributes }, summary, remark(schema.description), fieldsOf(schema)));
  }
  openTarget();
}

// A link to a document that is folded up unfolds it.
function openTarget() {
  const target = document.getElementById(location.hash.slice(1));
  if (target instanceof HTMLDetailsElement) {
    target.open = true;
    target.scrollIntoView();
  }
}

async function start() {
  addEventListener("hashchange", openTarget);
  const summary = document.getElementById("summary");
  try {
    draw((await api("GET", "/openapi.json")).document);
  } catch (error) {
    summary.textContent = `The description could not be read: ${error.title ?? error.message}. Reload the page to try again.`;
  }
}

start();
