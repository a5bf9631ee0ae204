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
  $("truncation-value").value = $("truncation").value; // a browser that goes back keeps the one and not the other
  $("about").textContent = `version ${version}, ${output.width} x ${output.height} pixels, digest ${digest.slice(0, 16)}`;
}

function limit() {
  // The JSON number is 2**64 or 2**32; BigInt is exact for both.
  return BigInt(model().seeds);
}

function seedIsGood() {
  const { value, validity } = $("seed");
  $("seed").setCustomValidity("");
  if (validity.valid && BigInt(value) >= limit()) $("seed").setCustomValidity(`at most ${limit() - 1n}`);
  return $("controls").reportValidity();
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
  const key = $("key").value.trim();
  if (/[^\x21-\x7e]/.test(key)) throw new Error("a key has printable ASCII characters and no spaces");
  const asked = { ...options, headers: key ? { ...headers, Authorization: `Bearer ${key}` } : headers };
  const response = await fetch(path, asked).catch((error) => {
    throw error instanceof TypeError ? new Error("the service cannot be reached, or the file has changed since it was chosen: choose it again") : error;
  });
  if (response.status === 401) $("key-field").hidden = false;
  if (response.ok) return response;
  const problem = await response.json().catch(() => ({})); // of a proxy in front, perhaps
  throw new Error(problem.detail ?? `${response.status} ${response.statusText}, and no word from the service why`);
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
  const alt = name === undefined ? `seed ${ask.seed}` : `${name}, seed ${ask.seed}`;
  caption.textContent = name === undefined ? `${ask.seed}` : `${name} ${ask.seed}`;
  link.append(image);
  figure.append(link, caption);
  return { figure, link, image, alt };
}

async function generate() {
  if (!models.length) return start();
  if (!seedIsGood()) return;
  const mine = ++round;
  $("message").textContent = "";
  const jobs = asks().map((ask) => ({ ask, ...frame(ask) }));
  for (const old of $("grid").querySelectorAll("img")) URL.revokeObjectURL(old.src);
  $("grid").replaceChildren(...jobs.map(({ figure }) => figure));
  const queue = jobs.values();
  const work = async () => {
    for (const { ask, link, image, alt } of queue) {
      if (mine !== round) return;
      const { url, id } = await picture(ask);
      if (mine !== round) return URL.revokeObjectURL(url);
      [image.src, image.alt, link.href] = [url, alt, url];
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
  if (!seedIsGood()) return;
  $("seed").value = (BigInt($("seed").value || 0) + distance + limit()) % limit();
  generate();
}

function shuffle() {
  $("seed").value = crypto.getRandomValues(new Uint32Array(1))[0];
}

$("key-field").addEventListener("submit", (event) => {
  event.preventDefault();
  start();
});
$("controls").addEventListener("submit", (event) => {
  event.preventDefault();
  generate();
});
$("model").addEventListener("change", () => {
  showControls();
  generate();
});
$("class").addEventListener("change", generate);
$("seed").addEventListener("input", () => $("seed").setCustomValidity(""));
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
