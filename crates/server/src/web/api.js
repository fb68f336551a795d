// Renders the OpenAPI document of this server. Text only: nothing from the document becomes markup.
"use strict";

const element = (name, text, ...children) => {
  const node = document.createElement(name);
  if (text) node.textContent = text;
  node.append(...children);
  return node;
};

const classed = (node, name) => ((node.className = name), node);

// A schema as an example-like outline, references followed to a depth.
function outline(schema, all, depth = 0) {
  if (!schema) return "any";
  if (schema.$ref) {
    const name = schema.$ref.split("/").pop();
    return depth > 3 ? name : outline(all[name], all, depth + 1);
  }
  const options = schema.oneOf || schema.anyOf;
  if (options) return options.map((option) => outline(option, all, depth + 1));
  if (schema.allOf) {
    const parts = schema.allOf.map((part) => outline(part, all, depth + 1));
    return parts.every((part) => typeof part === "object") ? Object.assign({}, ...parts) : parts;
  }
  if (schema.enum) return schema.enum.join(" | ");
  const type = [].concat(schema.type || "any");
  if (type.includes("array")) return [outline(schema.items, all, depth + 1)];
  if (schema.properties) {
    const required = new Set(schema.required || []);
    return Object.fromEntries(Object.entries(schema.properties).map(([name, property]) =>
      [required.has(name) ? name : name + "?", outline(property, all, depth + 1)]));
  }
  return type.join(" | ") + (schema.format ? ` (${schema.format})` : "");
}

function body(title, content, all) {
  const [type, media] = Object.entries(content || {})[0] || [];
  if (!media) return [];
  return [element("h4", `${title} (${type})`), element("pre", JSON.stringify(outline(media.schema, all), null, 2))];
}

function operation(path, method, spec, all) {
  const summary = element("summary", "",
    classed(element("span", method.toUpperCase()), "method"),
    classed(element("span", path), "path"),
    classed(element("span", spec.summary || ""), "title"));
  const details = element("details", "", summary);
  details.dataset.text = `${method} ${path} ${spec.summary || ""}`.toLowerCase();
  details.addEventListener("toggle", () => {
    if (!details.open || details.dataset.done) return;
    details.dataset.done = "yes";
    if (spec.description) details.append(element("p", spec.description));
    if (spec.parameters?.length) {
      const rows = spec.parameters.map((p) => element("tr", "",
        element("td", p.name), element("td", p.in), element("td", p.required ? "required" : ""),
        element("td", p.description || "")));
      details.append(element("table", "", ...rows));
    }
    if (spec.requestBody) details.append(...body("Request", spec.requestBody.content, all));
    for (const [status, response] of Object.entries(spec.responses || {})) {
      details.append(element("h4", `${status} ${response.description || ""}`));
      details.append(...body("Reply", response.content, all));
    }
  });
  return details;
}

async function main() {
  const reply = await fetch("/api/openapi.json");
  const spec = await reply.json();
  const all = spec.components?.schemas || {};
  document.getElementById("about").textContent = `${spec.info.description} Version ${spec.info.version}.`;
  const byTag = new Map();
  for (const [path, methods] of Object.entries(spec.paths)) {
    for (const [method, details] of Object.entries(methods)) {
      const tag = details.tags?.[0] || "other";
      if (!byTag.has(tag)) byTag.set(tag, []);
      byTag.get(tag).push(operation(path, method, details, all));
    }
  }
  const main = document.getElementById("operations");
  for (const [tag, operations] of [...byTag].sort()) {
    main.append(element("section", "", element("h2", tag.length < 4 ? tag.toUpperCase() : tag), ...operations));
  }
  document.getElementById("filter").addEventListener("input", (event) => {
    const wanted = event.target.value.toLowerCase();
    for (const details of main.querySelectorAll("details")) {
      details.hidden = !details.dataset.text.includes(wanted);
    }
    for (const section of main.querySelectorAll("section")) {
      section.hidden = !section.querySelector("details:not([hidden])");
    }
  });
}

main().catch((error) => {
  document.getElementById("about").textContent = `The document could not be loaded: ${error.message}`;
});
