// Saves what the page holds as files: figures, tables, charts. Nothing is fetched: all of it is in this file.
(() => {
  const { make, data } = page;

  function follow(name, address) {
    const link = make("a", { href: address, download: name });
    document.body.append(link);
    link.click();
    link.remove();
  }

  page.save = (name, text, type) => {
    const address = URL.createObjectURL(new Blob([text], { type }));
    follow(name, address);
    setTimeout(() => URL.revokeObjectURL(address), 60000);
  };

  function figures() {
    const found = structuredClone(data.figures);
    for (const name of ["configurations", "runs", "profiles"]) found[name] = page.unpacked(found[name]);
    for (const analysis of found.analyses) {
      analysis.tables = analysis.tables.map((at) => ({ title: data.tables[at].title, columns: data.tables[at].shown, rows: page.unpacked(data.tables[at]) }));
      for (const [name, about] of Object.entries(analysis.charts)) {
        const { description = "", datasets } = page.chart(name);
        Object.assign(about, { description, data: Object.values(datasets) });
      }
    }
    return found;
  }

  function specification(name) {
    return { $schema: "https://vega.github.io/schema/vega-lite/v6.json", ...page.chart(name), config: data.light };
  }

  async function drawn(place) {
    if (!place.drawn) { page.redraw([place]); while (!place.drawn) await new Promise((then) => setTimeout(then, 50)); }
    return place.drawn.view;
  }

  const json = (value) => `${JSON.stringify(value, null, 1)}\n`;
  const all = make("button", { type: "button" }, "All results (JSON)");
  all.addEventListener("click", () => page.save("results.json", json(figures()), "application/json"));
  document.getElementById("download-all").append(all);

  for (const place of page.places) {
    const name = place.dataset.chart;
    const kinds = {
      PNG: async () => follow(`${name}.png`, await (await drawn(place)).toImageURL("png", 2)),
      SVG: async () => page.save(`${name}.svg`, await (await drawn(place)).toSVG(), "image/svg+xml"),
      "Vega-Lite": () => page.save(`${name}.vl.json`, json(specification(name)), "application/json"),
    };
    const buttons = Object.entries(kinds).flatMap(([kind, act]) => {
      const button = make("button", { type: "button", "aria-label": `Download this chart as ${kind}` }, kind);
      button.addEventListener("click", act);
      return [button, " "];
    });
    place.after(make("p", { class: "tools" }, ...buttons));
  }
  page.redraw(); // everything is wired
})();
