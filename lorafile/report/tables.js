// Sorts tables by their raw figures and filters their rows; page.tables lets a chart narrow them, too.
page.tables = (() => {
  const { make } = page;
  const collator = new Intl.Collator("en", { numeric: true });
  const FEW = 8; // rows of a table that needs no filter
  const TURNS = { none: "ascending", ascending: "descending", descending: "none" };

  function compare(one, other, sign) {
    const lost = [one, other].map((value) => value === null || value === undefined || value === "");
    if (lost[0] || lost[1]) return lost[0] - lost[1]; // missing last, whichever way
    return sign * (typeof one === "number" && typeof other === "number" ? one - other : collator.compare(one, other));
  }

  function csv(about, rows) {
    const cell = (value) => {
      const text = value === null ? "" : typeof value === "object" ? JSON.stringify(value) : String(value);
      return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
    };
    const lines = [about.keys, ...rows.map((row) => about.keys.map((key) => row[key]))];
    return lines.map((line) => `${line.map(cell).join(",")}\r\n`).join("");
  }

  function enhance(table) {
    const about = page.data.tables[table.dataset.table];
    let figures = null;
    const raw = () => (figures ??= page.unpacked(about));
    const body = table.tBodies[0];
    const rows = [...body.rows];
    const places = new Map(rows.map((row, at) => [row, at]));
    const state = { words: [], chosen: null };
    const tools = make("p", { class: "tools" });
    const told = make("span", { role: "status" });
    const named = (row) => [...row.querySelectorAll("[title]")].map((link) => link.title); // addresses
    const words = (row) => (row.words ??= [row.textContent, ...named(row)].join(" ").toLowerCase());

    function show() {
      let left = 0;
      for (const row of rows) {
        const kept = state.words.every((word) => words(row).includes(word));
        row.hidden = !kept || (state.chosen !== null && row.dataset.c !== undefined && !state.chosen.has(Number(row.dataset.c)));
        left += !row.hidden;
      }
      told.textContent = left < rows.length || state.words.length ? `${left} of ${rows.length} rows` : "";
    }

    function sort(at, turn) {
      const { key, kind } = about.shown[table.tHead.rows[0].cells[at].dataset.at];
      const value = (row) => {
        const figure = raw()[places.get(row)][key];
        return kind !== "text" || figure === null ? figure : String(figure);
      };
      const sign = turn === "descending" ? -1 : 1;
      const order = turn === "none" ? rows : [...rows].sort((one, other) => compare(value(one), value(other), sign));
      body.append(...order);
      [...table.tHead.rows[0].cells].forEach((head, other) => head.setAttribute("aria-sort", other === at ? turn : "none"));
    }

    if (rows.length > 1) {
      [...table.tHead.rows[0].cells].forEach((head, at) => {
        const button = make("button", { type: "button", class: "sort" }, ...head.childNodes);
        head.replaceChildren(button);
        head.setAttribute("aria-sort", "none");
        button.addEventListener("click", () => sort(at, TURNS[head.getAttribute("aria-sort")]));
      });
    }
    if (rows.length > FEW) {
      const input = make("input", { type: "search", autocomplete: "off", spellcheck: "false" });
      input.addEventListener("input", () => { state.words = input.value.toLowerCase().split(/\s+/).filter(Boolean); show(); });
      tools.append(make("label", {}, "Filter rows ", input), " ");
    }
    const save = make("button", { type: "button" }, "CSV");
    save.setAttribute("aria-label", `Download as CSV: ${about.title}`);
    save.addEventListener("click", () => page.save(`${about.name}.csv`, csv(about, raw()), "text/csv"));
    tools.append(save, " ", told);
    table.closest(".table")[rows.length > FEW ? "prepend" : "append"](tools);
    return { table, section: table.closest("section"), choose: (chosen) => { state.chosen = chosen; show(); } };
  }

  return [...document.querySelectorAll("table[data-table]")].map(enhance);
})();
