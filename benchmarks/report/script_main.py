"""The page's script, third part: what plots, legend and tables of one report share."""

SCRIPT_MAIN = r"""
class Page {
  constructor(section) {
    this.section = section;
    this.view = JSON.parse(section.querySelector("script.view").textContent);
    this.hidden = new Set(); this.hiddenKinds = new Set();
    this.active = null; this.pinned = null;
    this.tip = section.appendChild(node("div", {class: "tip", role: "status", hidden: ""}));
    this.legend(section.querySelector(".legend"));
    this.plots = [...section.querySelectorAll(".plot")].map(each => new Plot(each, this));
    section.querySelectorAll("tr[data-index]").forEach(row => {
      row.addEventListener("pointerenter", () => this.highlight(Number(row.dataset.index)));
      row.addEventListener("pointerleave", () => this.rest());
    });
    section.querySelectorAll("table.sortable").forEach(sortable);
    section.querySelector("button.download").addEventListener("click", () => this.download());
    document.addEventListener("keydown", event => {
      if (event.key === "Escape") { this.pinned = null; this.rest(); }
    });
  }

  colour(i) { return `--colour: var(--family-${this.view.systems[i].family})`; }
  mark(i) { return this.view.families[this.view.systems[i].family].mark; }
  hollow(i) { return this.view.systems[i].rescored ? " rescored" : ""; }
  kind(i) { return `${this.view.systems[i].family}${this.hollow(i)}`; }

  visible() {
    return this.view.systems.map((_, i) => i).filter(i =>
      !this.hidden.has(this.view.systems[i].family)
      && !this.hiddenKinds.has(this.view.systems[i].rescored));
  }

  legend(place) {
    const swatch = (mark, style, hollow) => node("svg:svg",
      {width: 14, height: 14, viewBox: "-7 -7 14 14", style, "aria-hidden": "true"},
      node("svg:path", {d: markPath(mark, 4.6), class: "mark" + hollow}));
    const toggles = [];
    const toggle = (content, set, member) => {
      const made = node("button", {type: "button", "aria-pressed": "true"}, ...content);
      const press = on => {
        made.setAttribute("aria-pressed", on);
        if (on) set.delete(member); else set.add(member);
      };
      made.addEventListener("click", () => {
        press(made.getAttribute("aria-pressed") !== "true"); this.redraw();
      });
      place.append(made);
      return press;
    };
    this.view.families.forEach(({name, mark}, i) => toggles.push(toggle(
      [swatch(mark, `--colour: var(--family-${i})`, ""), name], this.hidden, i)));
    for (const [label, on] of [["all", true], ["none", false]]) {
      const made = node("button", {type: "button", title: `show ${label} of the families`}, label);
      made.addEventListener("click", () => { toggles.forEach(press => press(on)); this.redraw(); });
      place.append(made);
    }
    place.append(node("span", {class: "gap"}));
    if (new Set(this.view.systems.map(each => each.rescored)).size > 1) {
      const plain = "--colour: var(--muted)";
      toggle([swatch("circle", plain, ""), "as found"], this.hiddenKinds, false);
      toggle([swatch("circle", plain, " rescored"), "rescored by float32"], this.hiddenKinds, true);
      place.append(node("span", {class: "gap"}));
    }
    const box = (label, checked) => {
      const made = node("input", {type: "checkbox"});
      made.checked = checked;
      made.addEventListener("change", () => this.redraw());
      place.append(node("label", {}, made, label));
      return made;
    };
    this.bars = box("intervals", true);
    this.names = box("names", true);
    this.families = box("each family's frontier", false);
  }

  redraw() { this.tip.hidden = true; this.plots.forEach(each => each.draw()); }

  highlight(i) {
    this.active = i;
    this.section.querySelectorAll("[data-index]").forEach(each =>
      each.classList.toggle("active", Number(each.dataset.index) === i));
    this.plots.forEach(each => each.svg.classList.toggle("faded", i !== null));
  }

  activate(i, point, plot) {
    if (this.pinned !== null && this.pinned !== i) return;
    this.highlight(i);
    this.describe(i, [plot.axis(plot.y), plot.axis(plot.x)]);
    this.tip.hidden = false;
    const at = point.getBoundingClientRect(), tip = this.tip.getBoundingClientRect();
    const right = at.right + 8 + tip.width <= innerWidth;
    this.tip.style.left = `${Math.max(4, right ? at.right + 8 : at.left - 8 - tip.width)}px`;
    this.tip.style.top = `${Math.max(4, Math.min(at.top, innerHeight - tip.height - 4))}px`;
  }

  describe(i, drawn) {
    const system = this.view.systems[i];
    const about = [system.familyName, system.rescored ? "rescored by float32" : "",
      system.settings].filter(Boolean).join(" · ");
    const rows = this.view.figures.filter(each => each.values[i] !== null).map(each =>
      node("div", drawn.includes(each) ? {class: "drawn"} : {},
        node("span", {}, each.short), node("span", {}, each.texts[i])));
    this.tip.replaceChildren(node("b", {}, system.name), node("div", {class: "muted"}, about),
      node("div", {class: "figures"}, ...rows));
  }

  pin(i) { this.pinned = this.pinned === i ? null : i; if (this.pinned === null) this.rest(); }

  rest() {
    if (this.pinned !== null) return this.highlight(this.pinned);
    this.highlight(null);
    this.tip.hidden = true;
  }

  download() {
    const text = this.section.querySelector("script.report-data").textContent;
    const url = URL.createObjectURL(new Blob([text], {type: "application/json"}));
    node("a", {href: url, download: "report.json"}).click();
    setTimeout(() => URL.revokeObjectURL(url), 1000);
  }
}

// Rows by a column: numbers by size, texts by alphabet, what was not measured always last.
function sortable(table) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
    const text = "text" in head.dataset, now = head.getAttribute("aria-sort");
    const first = head.dataset.better === "higher" ? "descending" : "ascending";
    const next = now !== first ? first : first === "ascending" ? "descending" : "ascending";
    heads.forEach(each => each.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", next);
    const cell = row => row.cells[column], known = row => text || "value" in cell(row).dataset;
    const order = text
      ? (a, b) => cell(a).textContent.localeCompare(cell(b).textContent, "en", {numeric: true})
      : (a, b) => cell(a).dataset.value - cell(b).dataset.value;
    const rows = [...table.tBodies[0].rows], sign = next === "ascending" ? 1 : -1;
    table.tBodies[0].append(...rows.filter(known).sort((a, b) => sign * order(a, b)),
      ...rows.filter(row => !known(row)));
  }));
}

document.querySelectorAll("section.report").forEach(section => new Page(section));
"""
