"""The page's script, first part: scales, marks, and one plot. Vanilla JavaScript, no library."""

SCRIPT_PLOT = r"""
const SVG = "http://www.w3.org/2000/svg";

function node(tag, attributes, ...children) {
  const made = tag.startsWith("svg:")
    ? document.createElementNS(SVG, tag.slice(4)) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) made.setAttribute(name, value);
  made.append(...children);  // texts become text nodes: nothing of the data is parsed as HTML
  return made;
}

function markPath(mark, r) {
  const h = 0.89 * r, d = 1.25 * r;
  switch (mark) {
    case "square": return `M${-h} ${-h}H${h}V${h}H${-h}Z`;
    case "diamond": return `M0 ${-d}L${d} 0L0 ${d}L${-d} 0Z`;
    case "triangle": return `M0 ${-1.2 * r}L${1.15 * r} ${0.85 * r}H${-1.15 * r}Z`;
    case "wedge": return `M0 ${1.2 * r}L${1.15 * r} ${-0.85 * r}H${-1.15 * r}Z`;
    default: return `M${-r} 0a${r} ${r} 0 1 0 ${2 * r} 0a${r} ${r} 0 1 0 ${-2 * r} 0Z`;
  }
}

function linearTicks(low, high, count) {
  const raw = (high - low) / count, power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map(each => each * power).find(each => each >= raw);
  const digits = Math.min(Math.max(0, -Math.floor(Math.log10(step) + 1e-9)), 9);
  const ticks = [];
  for (let i = Math.ceil(low / step); i * step <= high * (1 + 1e-12); i++) {
    const value = i * step + 0;  // + 0 makes 0 of -0
    ticks.push([value, value.toLocaleString("en",
      {minimumFractionDigits: digits, maximumFractionDigits: digits})]);
  }
  return ticks;
}

function logTicks(low, high, count) {
  const first = Math.floor(Math.log10(low)), last = Math.ceil(Math.log10(high));
  for (const parts of [[1, 2, 3, 5, 7], [1, 2, 5], [1, 3], [1]]) {
    const ticks = [];
    for (let power = first; power <= last; power++) {
      for (const part of parts) {
        const value = part * 10 ** power;
        if (value >= low && value <= high) ticks.push(value);
      }
    }
    if (ticks.length <= count || parts.length === 1) {
      if (ticks.length < 2) return linearTicks(low, high, count);
      return ticks.map(each =>
        [each, each.toLocaleString("en", {maximumSignificantDigits: 3})]);
    }
  }
}

// A map from values to pixels `from`..`to`, over all `values`, with room at both ends.
function scale(values, log, from, to) {
  const place = log ? Math.log10 : each => each, value = log ? each => 10 ** each : each => each;
  let low = Math.min(...values.map(place)), high = Math.max(...values.map(place));
  const room = (high - low) * 0.06 || Math.abs(high) * 0.1 || 1;
  low -= room; high += room;
  if (!log && low < 0 && Math.min(...values) >= 0) low = 0;
  const map = each => from + (to - from) * (place(each) - low) / (high - low);
  map.ticks = count => (log ? logTicks : linearTicks)(value(low), value(high), count);
  return map;
}

// Positions of the points that no other dominates, from the best x to the worst.
function frontier(points, xBetter, yBetter) {
  const xs = xBetter === "lower" ? 1 : -1, ys = yBetter === "lower" ? 1 : -1;
  const order = points.slice().sort((a, b) => xs * (a.x - b.x) || ys * (a.y - b.y));
  const kept = [];
  for (const each of order) {
    if (!kept.length || ys * each.y < ys * kept[kept.length - 1].y) kept.push(each);
  }
  return kept;
}

// What is attainable: the best y at every x, a staircase through the frontier.
function staircase(points, x, y, end) {
  const start = `M${x(points[0].x)} ${y(points[0].y)}`;
  const steps = points.slice(1).map(each => `H${x(each.x)}V${y(each.y)}`);
  return start + steps.join("") + (end === undefined ? "" : `H${end}`);
}

// Names beside the points of the frontier, wherever there is room for one.
function placeNames(points, marks, width) {
  const taken = marks.map(([x, y]) => [x - 6, y - 6, x + 6, y + 6]);
  const free = box => box[0] >= 50 && box[2] <= width - 4 && box[1] >= 4 && !taken.some(each =>
    box[0] < each[2] && each[0] < box[2] && box[1] < each[3] && each[1] < box[3]);
  const placed = [];
  for (const {px, py, name} of points) {
    const shown = name.length > 34 ? name.slice(0, 33) + "…" : name, w = 6.3 * shown.length;
    const spots = [["end", px - 9, py - 7], ["start", px + 9, py + 14], ["start", px + 9, py - 7],
      ["end", px - 9, py + 14], ["middle", px, py - 13], ["middle", px, py + 21]];
    for (const [anchor, x, y] of spots) {
      const left = anchor === "end" ? x - w : anchor === "middle" ? x - w / 2 : x;
      const box = [left, y - 9, left + w, y + 3];
      if (!free(box)) continue;
      taken.push(box);
      placed.push(node("svg:text", {x, y, class: "name", "text-anchor": anchor}, shown));
      break;
    }
  }
  return placed;
}
"""
