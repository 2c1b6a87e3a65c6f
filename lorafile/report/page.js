"use strict";
// Draws the charts from the page's own data: those in sight first, the rest when nothing else is to be done; all
// again when the theme or the width of the page changes.
const page = (() => {
  const data = JSON.parse(document.getElementById("charts-data").textContent);
  const button = document.getElementById("theme");
  const prefersDark = window.matchMedia("(prefers-color-scheme: dark)");
  const wishes = location.hash.slice(1).split(",");
  const modes = ["auto", "light", "dark"];
  let mode = modes.find((known) => wishes.includes(known)) || "auto";
  const theme = () => (mode === "auto" ? (prefersDark.matches ? "dark" : "light") : mode);
  const places = [...document.querySelectorAll("[data-chart]")];
  const watchers = [];

  // Data travel as columns, in which text that repeats is a number (packing.py).
  function unpacked({ keys, columns }) {
    const lists = columns.map((column) => (Array.isArray(column) ? column : column.at.map((at) => column.of[at])));
    return (lists[0] || []).map((_, row) => Object.fromEntries(keys.map((key, at) => [key, lists[at][row]])));
  }

  const known = new Map();
  function chart(name) {
    if (!known.has(name)) {
      const { datasets = {}, ...spec } = data.charts[name];
      const rows = Object.entries(datasets).map(([key, found]) => [key, Array.isArray(found) ? found : unpacked(found)]);
      known.set(name, { ...spec, datasets: Object.fromEntries(rows) });
    }
    return known.get(name);
  }

  function make(tag, attributes = {}, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.append(...children);
    return element;
  }

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
    const spec = structuredClone(chart(name)); // Vega writes into the rows that it draws
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

  async function draw(place) {
    const spec = fitted(place.dataset.chart, place.clientWidth);
    const options = { mode: "vega-lite", renderer: "svg", actions: false, ast: true, config: data[theme()], tooltip: { theme: theme() } };
    try {
      if (place.drawn) place.drawn.finalize();
      place.drawn = await window.vegaEmbed(place, spec, options);
      for (const watcher of watchers) watcher(place, place.drawn.view, spec);
    } catch (error) {
      place.textContent = `This chart could not be drawn: ${error.message}`;
    }
    place.classList.remove("waiting");
  }

  // One drawing at a time. What comes into sight goes to the front; what nobody has seen yet waits for idle time.
  let queue = [];
  let busy = false;
  const inSight = new Set();
  const idle = () => new Promise((then) => (window.requestIdleCallback ? requestIdleCallback(then, { timeout: 50 }) : setTimeout(then, 20)));
  async function pump() {
    if (busy) return;
    busy = true;
    for (let unseen = 0; queue.length; ) {
      const seen = queue.findIndex((place) => inSight.has(place));
      // A pause lets the browser paint, which on a page of a thousand runs takes as long as a chart: not after each one.
      if (seen < 0 && !wishes.includes("all") && unseen++ % 5 === 0) await idle();
      const [place] = queue.splice(Math.max(0, queue.findIndex((one) => inSight.has(one))), 1);
      await draw(place);
    }
    busy = false;
    document.documentElement.dataset.drawn = String(window.innerWidth);
  }

  function redraw(some = places) {
    document.documentElement.dataset.theme = theme();
    button.textContent = `Theme: ${mode}`;
    delete document.documentElement.dataset.drawn;
    queue = [...queue.filter((place) => !some.includes(place)), ...some];
    pump();
  }

  if (window.IntersectionObserver) {
    const observer = new IntersectionObserver((entries) => {
      for (const { target, isIntersecting } of entries) inSight[isIntersecting ? "add" : "delete"](target);
    }, { rootMargin: "400px" });
    for (const place of places) observer.observe(place);
  }

  let waiting = 0;
  let width = window.innerWidth;
  window.addEventListener("resize", () => {
    if (window.innerWidth === width) return;
    width = window.innerWidth;
    clearTimeout(waiting);
    waiting = setTimeout(redraw, 200);
  });
  // What is folded away opens for whoever is led there, and on paper.
  function unfold(hash) {
    for (let at = hash && document.getElementById(decodeURIComponent(hash.slice(1))); at; at = at.parentElement) {
      if (at.tagName === "DETAILS") at.open = true;
    }
  }
  document.addEventListener("click", (event) => {
    const link = event.target.closest?.('a[href^="#"]');
    if (link) unfold(link.getAttribute("href"));
  });
  window.addEventListener("hashchange", () => unfold(location.hash));
  unfold(location.hash);
  window.addEventListener("beforeprint", () => {
    wishes.push("all");
    for (const place of document.querySelectorAll("details.fold")) place.open = true;
  });
  prefersDark.addEventListener("change", () => { if (mode === "auto") redraw(); });
  button.addEventListener("click", () => { mode = modes[(modes.indexOf(mode) + 1) % modes.length]; redraw(); });
  button.hidden = false;
  for (const place of places) place.classList.add("waiting");
  document.documentElement.dataset.scripts = "on";
  return { data, places, chart, unpacked, make, redraw, whenDrawn: (watcher) => watchers.push(watcher) };
})();
