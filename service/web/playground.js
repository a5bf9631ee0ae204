// The playground: a grid of pictures, one POST /generate for each; `translate.js` is the other half. No framework,
// nothing from elsewhere.

import { offerTranslation } from "/web/translate.js";

const COUNT = 24n;
const IN_FLIGHT = 4;
const EVERY_CLASS = "";

const $ = (id) => document.getElementById(id);
let models = [];
let round = 0; // a newer round makes an older one stop

function model() {
  return models.find(({ name }) => name === $("model").value);
}

function showControls() {
  const { classes, truncation, version, digest, output } = model();
  $("class-field").hidden = !classes;
  $("class").replaceChildren(new Option("each in turn", EVERY_CLASS), ...(classes ?? []).map((name) => new Option(name)));
  $("truncation-field").hidden = !truncation;
  $("about").textContent = `version ${version}, ${output.width} x ${output.height} pixels, digest ${digest.slice(0, 16)}`;
}

function limit() {
  // The JSON number is 2**64 or 2**32; BigInt is exact for both.
  return BigInt(model().seeds);
}

function asks() {
  const { name, classes, truncation } = model();
  const first = BigInt($("seed").value);
  return Array.from({ length: Number(COUNT) }, (_, i) => {
    const ask = { model: name };
    if (classes) ask.class = $("class").value === EVERY_CLASS ? i % classes.length : $("class").value;
    if (truncation) ask.truncation = Number($("truncation").value);
    const seed = (first + BigInt(i)) % limit();
    return { seed, class: ask.class, body: `{"seed":${seed},${JSON.stringify(ask).slice(1)}` };
  });
}

// Asks with the key, if there is one; a 401 shows the field for it. It is kept in that field and nowhere else.
async function ask(path, { headers = {}, ...options } = {}) {
  const key = $("key").value;
  const response = await fetch(path, { ...options, headers: key ? { ...headers, Authorization: `Bearer ${key}` } : headers });
  if (response.status === 401) $("key-field").hidden = false;
  if (!response.ok) throw new Error((await response.json()).detail);
  return response;
}

async function picture({ body }) {
  const response = await ask("/generate", {
    method: "POST",
    headers: { "Content-Type": "application/json", Accept: "image/png" },
    body,
  });
  return { url: URL.createObjectURL(await response.blob()), id: response.headers.get("X-Sample-Id") };
}

function frame(ask) {
  const { classes } = model();
  const name = typeof ask.class === "number" ? classes[ask.class] : ask.class;
  const figure = document.createElement("figure");
  const link = document.createElement("a");
  const image = new Image();
  const caption = document.createElement("figcaption");
  image.alt = name === undefined ? `seed ${ask.seed}` : `${name}, seed ${ask.seed}`;
  caption.textContent = name === undefined ? `${ask.seed}` : `${ask.seed} ${name}`;
  link.append(image);
  figure.append(link, caption);
  return { figure, link, image };
}

async function generate() {
  if (!models.length) return start();
  if (!$("controls").reportValidity()) return;
  const mine = ++round;
  $("message").textContent = "";
  const jobs = asks().map((ask) => ({ ask, ...frame(ask) }));
  for (const old of $("grid").querySelectorAll("img")) URL.revokeObjectURL(old.src);
  $("grid").replaceChildren(...jobs.map(({ figure }) => figure));
  const queue = jobs.values();
  const work = async () => {
    for (const { ask, link, image } of queue) {
      if (mine !== round) return;
      const { url, id } = await picture(ask);
      if (mine !== round) return URL.revokeObjectURL(url);
      image.src = link.href = url;
      link.download = `${id}.png`;
      link.title = `${id} (click to save)`;
    }
  };
  try {
    await Promise.all(Array.from({ length: IN_FLIGHT }, work));
  } catch (error) {
    if (mine === round) $("message").textContent = error.message;
  }
}

function move(distance) {
  if (!models.length) return start();
  if (!$("controls").reportValidity()) return;
  $("seed").value = (BigInt($("seed").value || 0) + distance + limit()) % limit();
  generate();
}

function shuffle() {
  $("seed").value = crypto.getRandomValues(new Uint32Array(1))[0];
}

$("controls").addEventListener("submit", (event) => {
  event.preventDefault();
  generate();
});
$("model").addEventListener("change", () => {
  showControls();
  generate();
});
$("class").addEventListener("change", generate);
$("truncation").addEventListener("input", () => ($("truncation-value").value = $("truncation").value));
$("truncation").addEventListener("change", generate);
$("back").addEventListener("click", () => move(-COUNT));
$("forward").addEventListener("click", () => move(COUNT));
$("shuffle").addEventListener("click", () => {
  shuffle();
  generate();
});

async function start() {
  $("message").textContent = "";
  let answer;
  try {
    answer = await (await ask("/models")).json();
  } catch (error) {
    $("message").textContent = error.message;
    return;
  }
  const translators = answer.models.filter(({ task }) => task === "translate");
  offerTranslation(translators, answer.defaults.translate, ask);
  models = answer.models.filter(({ task }) => task === "generate");
  $("controls").hidden = !models.length && Boolean(translators.length);
  if ($("controls").hidden) return;
  if (!models.length) {
    $("message").textContent = "No model is served; GET /models says why.";
    return;
  }
  $("model").replaceChildren(...models.map(({ name }) => new Option(name)));
  $("model").value = models.some(({ name }) => name === answer.default) ? answer.default : models[0].name;
  showControls();
  generate();
}

shuffle();
start();
