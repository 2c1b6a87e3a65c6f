"use strict";
// Draws every chart from the page's own data; draws again when the theme or the width of the page changes.
(() => {
  const data = JSON.parse(document.getElementById("charts-data").textContent);
  const button = document.getElementById("theme");
  const prefersDark = window.matchMedia("(prefers-color-scheme: dark)");
  const modes = ["auto", "light", "dark"];
  let mode = modes.includes(location.hash.slice(1)) ? location.hash.slice(1) : "auto";
  const theme = () => (mode === "auto" ? (prefersDark.matches ? "dark" : "light") : mode);

  function narrow(view, factor, least) {
    if (typeof view.width === "number") view.width = Math.max(least, Math.floor(view.width * factor));
    for (const inner of [...(view.hconcat || []), ...(view.vconcat || []), ...(view.concat || [])]) narrow(inner, factor, least);
  }

  function widthOf(view) {
    if (typeof view.width === "number") return view.width;
    if (view.hconcat) return view.hconcat.map(widthOf).reduce((sum, width) => sum + width, 0);
    return Math.max(0, ...(view.vconcat || view.concat || []).map(widthOf));
  }

  function fitted(name, available) {
    const spec = structuredClone(data.charts[name]);
    const { margin = 100, least = 220 } = spec.usermeta || {};
    if (spec.concat) {
      const cell = widthOf(spec) + margin;
      spec.columns = Math.max(1, Math.min(spec.columns || 1, Math.floor(available / cell)));
    }
    const room = available - margin * (spec.concat ? spec.columns : 1) - 8;
    const factor = room / (widthOf(spec) * (spec.concat ? spec.columns : 1));
    narrow(spec, Math.min(1, Math.max(factor, 0.01)), least);
    return spec;
  }

  async function draw() {
    document.documentElement.dataset.theme = theme();
    button.textContent = `Theme: ${mode}`;
    for (const place of document.querySelectorAll("[data-chart]")) {
      const spec = fitted(place.dataset.chart, place.clientWidth);
      const options = { mode: "vega-lite", renderer: "svg", actions: false, ast: true, config: data[theme()], tooltip: { theme: theme() } };
      try {
        if (place.drawn) place.drawn.finalize();
        place.drawn = await window.vegaEmbed(place, spec, options);
      } catch (error) {
        place.textContent = `This chart could not be drawn: ${error.message}`;
      }
    }
    document.documentElement.dataset.drawn = String(window.innerWidth);
  }

  // One drawing at a time: a second wish while one is drawn is granted once, afterwards.
  let busy = false;
  let again = false;
  async function redraw() {
    if (busy) { again = true; return; }
    busy = true;
    do { again = false; await draw(); } while (again);
    busy = false;
  }

  let waiting = 0;
  let width = window.innerWidth;
  window.addEventListener("resize", () => {
    if (window.innerWidth === width) return;
    width = window.innerWidth;
    clearTimeout(waiting);
    waiting = setTimeout(redraw, 200);
  });
  prefersDark.addEventListener("change", () => { if (mode === "auto") redraw(); });
  button.addEventListener("click", () => { mode = modes[(modes.indexOf(mode) + 1) % modes.length]; redraw(); });
  button.hidden = false;
  redraw();
})();
