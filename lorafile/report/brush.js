// Links the frontier with the tables of configurations: an interval brushed on the chart keeps their rows; a row that
// is pointed at, or reached by keyboard, is ringed on the chart, and a click keeps it so.
(() => {
  const { make, data } = page;
  const views = new Map();
  let kept = "";

  const tablesOf = (place) => page.tables.filter(({ section }) => section.id === "summary" || section.id === place.dataset.chart || section === place.closest("section"));

  function inside(row, brushed) {
    return Object.entries(brushed).every(([field, bounds]) => {
      if (typeof bounds[0] !== "number") return bounds.includes(row[field]);
      return row[field] >= Math.min(...bounds) && row[field] <= Math.max(...bounds);
    });
  }

  function brush(place, spec, brushed, told) {
    const rows = Object.values(spec.datasets || {}).flat();
    const fields = Object.keys(brushed || {});
    const points = rows.filter((row) => row.configuration !== undefined && fields.every((field) => typeof row[field] !== "undefined"));
    const found = new Set(points.filter((row) => inside(row, brushed || {})).map((row) => data.names.indexOf(row.configuration)));
    for (const table of tablesOf(place)) table.choose(fields.length ? found : null);
    told.replaceChildren();
    if (!fields.length) return;
    const clear = make("button", { type: "button" }, "Clear");
    clear.addEventListener("click", () => { brush(place, spec, null, told); page.redraw([place]); });
    const all = new Set(points.map((row) => row.configuration)).size;
    told.append(`Selected: ${found.size} of ${all} configurations. The tables here and under All configurations show only these. `, clear);
  }

  function pick(name) {
    for (const view of views.values()) view.signal("picked", name).runAsync();
  }

  page.whenDrawn((place, view, spec) => {
    if (!(spec.usermeta || {}).brush) return;
    const figure = place.closest("figure");
    let told = figure.querySelector(".brushed");
    if (!told) {
      told = make("p", { class: "brushed", role: "status" });
      figure.querySelector("figcaption").after(told);
      figure.querySelector("figcaption").append(" Drag over points to show only their rows in the tables. Hover over a row to find its point.");
    }
    if (views.has(place)) brush(place, spec, null, told);
    views.set(place, view);
    let waiting = 0;
    view.addSignalListener("brush", (_, brushed) => {
      cancelAnimationFrame(waiting);
      waiting = requestAnimationFrame(() => brush(place, spec, brushed, told));
    });
    if (kept) pick(kept);
  });

  const rowOf = (event) => event.target.closest?.("tr[data-c]");
  for (const [kind, leave] of [["pointerover", "pointerout"], ["focusin", "focusout"]]) {
    document.addEventListener(kind, (event) => { const row = rowOf(event); if (row && views.size) pick(data.names[row.dataset.c]); });
    document.addEventListener(leave, (event) => { if (rowOf(event) && views.size) pick(kept); });
  }
  document.addEventListener("click", (event) => {
    const row = rowOf(event);
    if (!row || !views.size || event.target.closest("a, button")) return;
    const name = data.names[row.dataset.c];
    kept = kept === name ? "" : name;
    for (const other of document.querySelectorAll("tr[data-c]")) {
      const chosen = kept !== "" && data.names[other.dataset.c] === kept;
      other.classList.toggle("picked", chosen);
      if (chosen) other.setAttribute("aria-current", "true"); else other.removeAttribute("aria-current");
    }
    pick(kept);
  });
})();
