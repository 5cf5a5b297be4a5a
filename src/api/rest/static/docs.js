"use strict";

// Draws the OpenAPI document. Everything is put in as text, never as markup.

function make(tag, text, options = {}) {
  const element = document.createElement(tag);
  if (text !== undefined) element.textContent = text;
  if (options.class) element.className = options.class;
  if (options.id) element.id = options.id;
  element.append(...(options.children ?? []));
  return element;
}

const nameOf = (reference) => reference.slice(reference.lastIndexOf("/") + 1);

function linkTo(reference) {
  const link = make("a", nameOf(reference));
  link.href = `#schema-${encodeURIComponent(nameOf(reference))}`;
  return link;
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
  const term = make("dt", undefined, { children: [make("code", name), " ", ...typeOf(schema)] });
  const remarks = [...notes, ...boundsOf(schema)].join(", ");
  const text = [remarks, description ?? schema.description].filter(Boolean).join(". ");
  return text ? [term, make("dd", text)] : [term];
}

function fieldsOf(schema) {
  const required = new Set(schema.required ?? []);
  return make("dl", undefined, {
    children: Object.entries(schema.properties ?? {}).flatMap(([name, field]) =>
      entry(name, field, required.has(name) ? ["required"] : [])),
  });
}

function bodyOf(content) {
  return Object.entries(content ?? {}).map(([mediaType, body]) =>
    make("p", undefined, { children: [...typeOf(body.schema ?? {}), " as ", make("code", mediaType)] }));
}

function operationOf(path, method, operation) {
  const summary = make("summary", undefined, {
    children: [make("span", method.toUpperCase(), { class: "method" }), make("code", path), ` ${operation.summary ?? ""}`],
  });
  const parts = [summary, make("p", operation.description, { class: "muted" })];
  if (operation.parameters?.length) {
    parts.push(make("h3", "Parameters"), make("dl", undefined, {
      children: operation.parameters.flatMap((parameter) =>
        entry(parameter.name, parameter.schema ?? {}, [`in ${parameter.in}`], parameter.description)),
    }));
  }
  if (operation.requestBody) parts.push(make("h3", "Body"), ...bodyOf(operation.requestBody.content));
  parts.push(make("h3", "Answers"), make("dl", undefined, {
    children: Object.entries(operation.responses).flatMap(([status, answer]) => [
      make("dt", undefined, { children: [make("code", status), ` ${answer.description}`] }),
      make("dd", undefined, { children: bodyOf(answer.content) }),
    ]),
  }));
  return make("details", undefined, { children: parts });
}

function draw(openapi) {
  document.getElementById("summary").textContent = `${openapi.info.title} ${openapi.info.version}. ${openapi.info.description}`;
  const content = document.getElementById("reference");
  for (const tag of openapi.tags) {
    content.append(make("h2", tag.name), make("p", tag.description, { class: "muted" }));
    for (const [path, operations] of Object.entries(openapi.paths)) {
      for (const [method, operation] of Object.entries(operations)) {
        if (operation.tags?.includes(tag.name)) content.append(operationOf(path, method, operation));
      }
    }
  }
  content.append(make("h2", "Documents"));
  for (const [name, schema] of Object.entries(openapi.components.schemas).sort()) {
    content.append(make("details", undefined, {
      id: `schema-${encodeURIComponent(name)}`,
      children: [
        make("summary", undefined, { children: [make("code", name)] }),
        make("p", schema.description, { class: "muted" }),
        fieldsOf(schema),
      ],
    }));
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
    const response = await fetch("/openapi.json");
    if (!response.ok) throw new Error(`the server answered ${response.status}`);
    draw(await response.json());
  } catch (error) {
    summary.textContent = `The description could not be read: ${error.message}. Reload the page to try again.`;
  }
}

start();
