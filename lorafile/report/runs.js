// Tells a run's story when somebody opens it: figures, loss curve, keys, sample predictions, settings.
(() => {
  const { make, data } = page;
  const table = document.querySelector("#runs table[data-table]");
  const rows = table ? [...table.tBodies[0].rows] : []; // before anybody sorts them
  const heads = table ? data.tables[table.dataset.table].shown.map((column) => column.title) : [];
  const pairs = (found) => make("dl", {}, ...found.map(([name, ...value]) => make("div", {}, make("dt", {}, name), make("dd", {}, ...value))));
  const text = (value) => make("bdi", value.length > 160 ? { class: "long", tabindex: "0" } : {}, value);

  function svg(tag, attributes, ...children) {
    const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.append(...children);
    return element;
  }

  function curve([shared, losses]) {
    const steps = data.steps[shared];
    const [low, high] = [Math.min(...losses), Math.max(...losses)];
    const last = steps[steps.length - 1];
    const at = (step, loss) => `${(300 * step / last).toFixed(1)},${(58 - 56 * (loss - low) / (high - low || 1)).toFixed(1)}`;
    const told = `Training loss from ${losses[0]} to ${losses[losses.length - 1]} nats per token, lowest ${low}, over ${last} steps`;
    const line = svg("polyline", { points: steps.map((step, place) => at(step, losses[place])).join(" ") });
    const drawn = svg("svg", { class: "curve", viewBox: "0 0 300 60", role: "img", "aria-label": told, preserveAspectRatio: "none" }, line);
    return make("figure", {}, drawn, make("figcaption", {}, `${told}.`));
  }

  function sample(row, private_) {
    const found = [["row", String(row.row)]];
    if (!private_) for (const name of ["prompt", "reference", "answer"]) if (row[name] !== undefined) found.push([name, text(String(row[name]))]);
    if (row.log_likelihood !== undefined) {
      const loss = -row.log_likelihood / Math.max(1, row.tokens);
      found.push(["log loss", `${loss.toPrecision(3)} nats per token (${row.tokens} tokens)`]);
    }
    return make("li", {}, pairs(found));
  }

  function story(at) {
    const run = data.runs[at];
    const cells = rows[at] ? [...rows[at].cells].map((cell) => cell.textContent) : [];
    const parts = [pairs(heads.map((head, place) => [head, text(cells[place] ?? "")]).slice(1).filter(([, value]) => value.textContent !== "–"))];
    if (run.curve) parts.push(curve(run.curve));
    if (run.keys) {
      const keys = Object.entries(run.keys);
      parts.push(make("p", { class: "part" }, "Keys"), pairs(keys.map(([name, key]) => [name, make("code", { class: "key" }, key)])));
      parts.push(make("p", {}, make("code", { class: "key" }, `lora show ${keys[0][1].slice(0, 12)}`)));
    }
    if (run.samples?.length) {
      const hidden = data.private ? " The data are private, so no report contains their text." : "";
      parts.push(make("p", { class: "part" }, `The first ${run.samples.length} examples of the ${run.split} split.${hidden}`));
      parts.push(make("ul", { class: "samples" }, ...run.samples.map((row) => sample(row, data.private))));
    }
    for (const [name, place] of Object.entries(run.settings || {})) {
      const inner = make("pre", { tabindex: "0" }, JSON.stringify(data.settings[place], null, 1));
      parts.push(make("details", {}, make("summary", {}, `Settings: ${name}`), inner));
    }
    if (!run.settings && at >= data.told) parts.push(make("p", { class: "quiet" }, "For the settings and predictions of this run, use lora show."));
    return parts;
  }

  document.addEventListener("toggle", (event) => {
    const place = event.target;
    if (!place.matches?.("details.story") || place.told) return;
    place.told = true;
    place.append(make("div", { class: "told" }, ...story(Number(place.dataset.run))));
  }, true);
})();
