"""The page's script, second part: plots that answer to legend, pointer and keys; sorted tables."""

SCRIPT_PAGE = r"""
class Plot {
  constructor(figure, page) {
    this.figure = figure; this.page = page; this.current = 0;
    this.svg = figure.querySelector("svg");
    this.missing = figure.querySelector(".missing");
    this.y = this.chooser("vertical axis", figure.dataset.y);
    this.x = this.chooser("horizontal axis", figure.dataset.x);
    this.log = node("input", {type: "checkbox"});
    this.log.checked = this.axis(this.x).log;
    this.x.addEventListener("change", () => { this.log.checked = this.axis(this.x).log; });
    this.log.addEventListener("change", () => this.draw());
    figure.querySelector(".axes").append(this.y, " against ", this.x,
      node("label", {}, this.log, "log"));
    this.svg.addEventListener("keydown", event => this.key(event));
    this.draw();
    addEventListener("resize", () => {
      if (this.svg.clientWidth !== this.width) this.draw();
    });
  }

  chooser(label, key) {
    const made = node("select", {"aria-label": label});
    const figures = this.page.view.figures;
    made.append(...figures.map((each, i) => node("option", {value: i}, each.title)));
    made.value = Math.max(0, figures.findIndex(each => each.key === key));
    made.addEventListener("change", () => this.draw());
    return made;
  }

  axis(select) { return this.page.view.figures[select.value]; }

  shown() {
    const x = this.axis(this.x), y = this.axis(this.y), usable = (value, log) =>
      value !== null && (!log || value > 0);
    const visible = this.page.visible(), name = i => this.page.view.systems[i].name;
    const points = visible.filter(i =>
      usable(x.values[i], this.log.checked) && usable(y.values[i], false));
    this.missing.textContent = visible.length === points.length ? ""
      : `Not drawn, for lack of a figure: ${
        visible.filter(i => !points.includes(i)).map(name).join("; ")}`;
    return points.map(i => ({i, x: x.values[i], y: y.values[i], name: name(i)}));
  }

  draw() {
    const width = this.svg.clientWidth, height = this.svg.clientHeight;
    const box = {left: 50, right: width - 10, top: 22, bottom: height - 42};
    this.width = width;
    const points = this.shown(), focused = this.svg.contains(document.activeElement);
    this.svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    this.svg.replaceChildren();
    if (!width || !points.length) return this.empty(width, height);
    const x = this.axis(this.x), y = this.axis(this.y), bounds = (axis, log) => points.flatMap(
      p => [axis.values[p.i], ...(this.page.bars.checked ? [axis.low[p.i], axis.high[p.i]] : [])])
      .filter(each => each !== null && (!log || each > 0));
    const log = this.log.checked;
    const sx = scale(bounds(x, log), log, box.left, box.right);
    const sy = scale(bounds(y, false), false, box.bottom, box.top);
    for (const p of points) { p.px = sx(p.x); p.py = sy(p.y); }
    this.frame(box, sx, sy, x, y);
    this.lines(points, sx, sy, x, y, box);
    if (this.page.bars.checked) this.bars(points, sx, sy, x, y, log);
    this.best = frontier(points, x.better, y.better);
    if (this.page.names.checked) {
      this.svg.append(...placeNames(this.best, points.map(p => [p.px, p.py]), width));
    }
    this.points = points.sort((a, b) => a.px - b.px).map(p => this.point(p, x, y));
    this.svg.append(...this.points);
    this.current = Math.min(this.current, this.points.length - 1);
    this.points[this.current].setAttribute("tabindex", "0");
    if (focused) this.points[this.current].focus();
    this.svg.dataset.frontier = JSON.stringify(this.best.map(p => p.i));
  }

  empty(width, height) {
    this.points = [];
    this.svg.append(node("svg:text", {x: width / 2, y: height / 2, "text-anchor": "middle"},
      "Nothing to draw: no system shown has both figures."));
  }

  frame(box, sx, sy, x, y) {
    const text = (content, attributes) => node("svg:text", attributes, content);
    const line = (x1, x2, y1, y2, kind) => node("svg:line", {x1, x2, y1, y2, class: kind});
    for (const [value, label] of sy.ticks(6)) {
      this.svg.append(
        line(box.left, box.right, sy(value), sy(value), "grid"),
        text(label, {x: box.left - 7, y: sy(value) + 4, "text-anchor": "end"}));
    }
    for (const [value, label] of sx.ticks(Math.max(3, (box.right - box.left) / 70))) {
      this.svg.append(
        line(sx(value), sx(value), box.top, box.bottom, "grid"),
        text(label, {x: sx(value), y: box.bottom + 16, "text-anchor": "middle"}));
    }
    const lower = x.better === "lower";
    this.svg.append(
      line(box.left, box.right, box.bottom, box.bottom, "rule"),
      text(`${y.title} · ${y.better === "higher" ? "↑" : "↓"} better`,
        {x: 0, y: 10, class: "axis"}),
      text(`${lower ? "← better · " : ""}${x.title}${lower ? "" : " · better →"}`,
        {x: box.right, y: box.bottom + 36, "text-anchor": "end", class: "axis"}));
  }

  lines(points, sx, sy, x, y, box) {
    if (this.page.families.checked) {
      const groups = new Map();
      for (const p of points) {
        const kind = this.page.kind(p.i);
        groups.set(kind, [...(groups.get(kind) || []), p]);
      }
      for (const members of groups.values()) {
        const line = frontier(members, x.better, y.better);
        if (line.length > 1) this.svg.append(node("svg:path", {
          d: staircase(line, sx, sy), style: this.page.colour(line[0].i),
          class: "family" + this.page.hollow(line[0].i)}));
      }
    }
    const end = x.better === "lower" ? box.right : box.left;
    this.svg.append(node("svg:path", {
      d: staircase(frontier(points, x.better, y.better), sx, sy, end), class: "frontier"}));
  }

  bars(points, sx, sy, x, y, log) {
    for (const {i, px, py} of points) {
      const style = this.page.colour(i);
      if (y.low[i] !== null && y.high[i] !== null) this.svg.append(node("svg:line",
        {x1: px, x2: px, y1: sy(y.low[i]), y2: sy(y.high[i]), class: "bar", style}));
      if (x.low[i] !== null && x.high[i] !== null && !(log && x.low[i] <= 0)) this.svg.append(
        node("svg:line",
          {x1: sx(x.low[i]), x2: sx(x.high[i]), y1: py, y2: py, class: "bar", style}));
    }
  }

  point({i, px, py, name}, x, y) {
    const made = node("svg:g", {
      class: "point" + (this.page.active === i ? " active" : ""), tabindex: "-1", role: "img",
      transform: `translate(${px} ${py})`, style: this.page.colour(i), "data-index": i,
      "aria-label": `${name}: ${y.title} ${y.texts[i]}; ${x.title} ${x.texts[i]}`},
      node("svg:circle", {r: 11, class: "hit"}), node("svg:circle", {r: 9, class: "halo"}),
      node("svg:path", {d: markPath(this.page.mark(i), 5), class: "mark" + this.page.hollow(i)}));
    made.addEventListener("pointerenter", () => this.page.activate(i, made, this));
    made.addEventListener("pointerleave", () => this.page.rest());
    made.addEventListener("focus", () => this.page.activate(i, made, this));
    made.addEventListener("blur", () => this.page.rest());
    made.addEventListener("click", () => this.page.pin(i));
    return made;
  }

  // One stop of the tab key a plot; the arrows walk from point to point.
  key(event) {
    const last = this.points.length - 1, move = {ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1,
      ArrowDown: -1, Home: -last, End: last}[event.key];
    if (event.key === "Enter" || event.key === " ") {
      this.page.pin(Number(document.activeElement.dataset.index));
    } else if (move === undefined) return;
    else {
      const now = this.points.indexOf(document.activeElement);
      this.current = Math.max(0, Math.min(last, now + move));
      this.points.forEach((each, i) => each.setAttribute("tabindex", i === this.current ? 0 : -1));
      this.points[this.current].focus();
    }
    event.preventDefault();
  }
}
"""
