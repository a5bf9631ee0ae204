// Shows /openapi.json as a page.

function element(tag, ...children) {
  const made = document.createElement(tag);
  made.append(...children);
  return made;
}

function table(rows) {
  return element("table", ...rows.map((cells) => element("tr", ...cells.map((cell) => element("td", cell)))));
}

function card(head, ...body) {
  return element("details", element("summary", ...head), element("div", ...body));
}

function typeOf(schema) {
  if (schema.$ref) return schema.$ref.split("/").pop();
  if (schema.anyOf) return schema.anyOf.map(typeOf).join(" or ");
  if (schema.enum) return schema.enum.map((value) => JSON.stringify(value)).join(", ");
  if (schema.type === "array" && schema.items) return `array of ${typeOf(schema.items)}`;
  const bounds = [
    ["from", schema.minimum],
    ["above", schema.exclusiveMinimum],
    ["to", schema.maximum],
    ["below", schema.exclusiveMaximum],
  ].filter(([, bound]) => bound !== undefined);
  return [schema.type ?? "any", ...bounds.flatMap(([word, bound]) => [word, Number.isInteger(bound) ? BigInt(bound) : bound])].join(" ");
}

function code(text) {
  return element("code", text);
}

function example(value) {
  return element("pre", JSON.stringify(value, null, 2));
}

function curl(path, schema) {
  const body = schema.examples.at(-1);
  return element("pre", `curl -X POST ${location.origin}${path} \\\n  -H 'Content-Type: application/json' \\\n  -d '${JSON.stringify(body)}' -o answer`);
}

function route(path, method, operation, schemas) {
  const bodies = operation.requestBody?.content ?? {};
  const asked = bodies["application/json"]?.schema;
  const parts = [];
  if (asked) {
    parts.push(element("h3", `Request: ${typeOf(asked)}`), curl(path, schemas[typeOf(asked)]));
  } else if (Object.keys(bodies).length) {
    const file = `curl -X POST ${location.origin}${path} \\\n  -H 'Content-Type: image/png' --data-binary @picture.png -o answer`;
    parts.push(element("h3", `Request: ${Object.keys(bodies).join(", ")}`), element("pre", file));
  }
  parts.push(
    element("h3", "Parameters"),
    table(operation.parameters.map(({ name, in: place, description }) => [code(name), place, description])),
    element("h3", "Answers"),
    table(Object.entries(operation.responses).map(([status, { description, content }]) => [
      code(status), description, Object.keys(content).join(", "),
    ])),
  );
  const headers = Object.entries(operation.responses["200"].headers ?? {});
  if (headers.length) {
    parts.push(element("h3", "Headers of a 200"), table(headers.map(([name, { description }]) => [code(name), description])));
  }
  const problem = Object.values(operation.responses).flatMap(({ content }) => content["application/problem+json"]?.example ?? []);
  if (problem.length) parts.push(element("h3", "A problem"), example(problem[0]));
  return card([element("b", method.toUpperCase()), code(path), operation.summary], ...parts);
}

function schema(name, { description, properties = {}, required = [] }) {
  return card(
    [code(name), description ?? ""],
    table(Object.entries(properties).map(([key, value]) => [
      code(key), typeOf(value), required.includes(key) ? "required" : "", value.description ?? "",
    ])),
  );
}

const { info, paths, components } = await (await fetch("/openapi.json")).json();
const $ = (id) => document.getElementById(id);
$("version").textContent = info.version;
$("description").textContent = info.description;
for (const [path, operations] of Object.entries(paths)) {
  for (const [method, operation] of Object.entries(operations)) {
    $("routes").append(route(path, method, operation, components.schemas));
  }
}
for (const [name, value] of Object.entries(components.schemas)) $("schemas").append(schema(name, value));
