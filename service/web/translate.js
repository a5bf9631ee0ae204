// A picture through a network: one POST /translate for a file that is chosen. Shown if a model of that kind is served.

const $ = (id) => document.getElementById(id);
let round = new AbortController(); // a newer round makes an older one stop

// Gives the section its models; `ask` is fetch with the key.
export function offerTranslation(models, chosen, ask) {
  $("translate").hidden = !models.length;
  if (!models.length) return;
  const model = () => models.find(({ name }) => name === $("translate-model").value);

  function showControls() {
    const { input, seeds } = model();
    $("translate-seed-field").hidden = !seeds;
    $("translate-seed").disabled = !seeds; // what is hidden must not be checked: nobody could mend it
    $("translate-about").textContent = input.width ? `takes ${input.width} x ${input.height}; others are made to fit` : "takes any size";
  }

  function show(image, blob) {
    URL.revokeObjectURL(image.src);
    image.src = URL.createObjectURL(blob);
    image.closest("figure").hidden = false;
  }

  async function translate() {
    const file = $("translate-file").files[0];
    if (!file || !$("translate-controls").reportValidity()) return;
    round.abort();
    const { signal } = (round = new AbortController());
    $("translate-message").textContent = "";
    $("translate-progress").textContent = `translating ${file.name}`;
    show($("translate-input"), file);
    $("translate-output").closest("figure").hidden = true;
    const { name, seeds } = model();
    const query = new URLSearchParams({ model: name, format: "png" });
    if (seeds) query.set("seed", $("translate-seed").value);
    try {
      const options = { method: "POST", headers: { "Content-Type": file.type || "application/octet-stream" }, body: file, signal };
      const response = await ask(`/translate?${query}`, options);
      const [resized, seed] = ["X-Resized", "X-Seed"].map((header) => response.headers.get(header));
      const blob = await response.blob();
      if (signal.aborted) return;
      show($("translate-output"), blob);
      $("translate-link").href = $("translate-output").src;
      $("translate-link").download = `${file.name.replace(/\.[^.]*$/, "")}-${name}.png`;
      $("translate-caption").textContent = [name, seed && `seed ${seed}`, resized].filter(Boolean).join(", ");
    } catch (error) {
      if (!signal.aborted) $("translate-message").textContent = error.message;
    } finally {
      if (!signal.aborted) $("translate-progress").textContent = "";
    }
  }

  $("translate-model").replaceChildren(...models.map(({ name }) => new Option(name)));
  $("translate-model").value = models.some(({ name }) => name === chosen) ? chosen : models[0].name;
  $("translate-model").onchange = () => {
    showControls();
    translate();
  };
  $("translate-file").onchange = translate;
  $("translate-controls").onsubmit = (event) => {
    event.preventDefault();
    translate();
  };
  showControls();
}
