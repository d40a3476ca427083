"""The style sheet of the page: sober, light and dark by the reader's preference, printable."""

STYLE = """
:root {
  color-scheme: light dark;
  --ground: #fcfcfa; --panel: #ffffff; --text: #1d2126; --muted: #5d6670; --line: #d9dcdf;
  --grid: #eceeef; --accent: #1f5fbf; --frontier: #1d2126; --stripe: #f5f6f6; --active: #fff3c4;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ground: #14171a; --panel: #1a1e22; --text: #e4e7ea; --muted: #98a2ad; --line: #343b42;
    --grid: #262c31; --accent: #84b4ff; --frontier: #e4e7ea; --stripe: #1e2327; --active: #46401f;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--ground); color: var(--text);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif;
}
main { max-width: 1240px; margin: 0 auto; padding: 2rem 1.25rem 3rem; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 .75rem; }
h2 { font-size: 1.15rem; margin: 2.25rem 0 .5rem; }
p { max-width: 78ch; margin: .4rem 0; }
.muted, .facts dt, .note { color: var(--muted); }
.note { font-size: .86rem; }
.facts {
  display: grid; grid-template-columns: max-content 1fr; gap: .1rem 1rem; margin: 0;
  font-size: .88rem; overflow-wrap: anywhere;
}
.facts dd { margin: 0; }
.tally { font-weight: 600; max-width: none; margin-top: 1rem; }

.legend { display: flex; flex-wrap: wrap; gap: .35rem; align-items: center; margin: .75rem 0; }
button, select {
  font: inherit; color: inherit; background: var(--panel); border: 1px solid var(--line);
  border-radius: 5px; padding: .15rem .5rem; font-size: .85rem; max-width: 100%;
}
button { cursor: pointer; }
button:hover, select:hover { border-color: var(--muted); }
.legend button { display: inline-flex; gap: .35rem; align-items: center; }
.legend button[aria-pressed="false"] { color: var(--muted); text-decoration: line-through; }
.legend button[aria-pressed="false"] svg { opacity: .3; }
.legend .gap { width: .75rem; }
.legend label, .axes label { font-size: .85rem; display: inline-flex; gap: .3rem; }
:focus-visible { outline: 2px solid var(--accent); outline-offset: 1px; }

.plots { display: grid; grid-template-columns: repeat(2, minmax(0, 1fr)); gap: 1rem; }
.plot {
  margin: 0; background: var(--panel); border: 1px solid var(--line); border-radius: 8px;
  padding: .7rem .8rem .5rem; min-width: 0;
}
.plot.wide { grid-column: 1 / -1; }
@media (max-width: 800px) { .plots { grid-template-columns: minmax(0, 1fr); } }
.axes { display: flex; gap: .5rem; align-items: center; font-size: .85rem; }
.axes select { min-width: 0; flex: 0 1 auto; }
.axes label { margin-left: auto; }
.plot svg { display: block; width: 100%; height: 330px; margin-top: .6rem; overflow: visible; }
.plot.wide svg { height: 430px; }
.plot svg text { fill: var(--muted); font-size: 11.5px; }
.plot svg text.axis { fill: var(--text); }
.plot svg text.name { fill: var(--text); font-size: 11px; }
.plot .missing { min-height: 1.3em; margin: 0; font-size: .8rem; color: var(--muted); }
.grid { stroke: var(--grid); } .rule { stroke: var(--line); }
.frontier { fill: none; stroke: var(--frontier); stroke-width: 1.4; opacity: .75; }
.family { fill: none; stroke: var(--colour); stroke-width: 1.1; opacity: .45; }
.family.rescored { stroke-dasharray: 4 3; }
.bar { stroke: var(--colour); stroke-width: 1; opacity: .38; }
.mark { fill: var(--colour); stroke: var(--panel); stroke-width: .8; }
.mark.rescored { fill: var(--panel); stroke: var(--colour); stroke-width: 1.7; }
.point { cursor: pointer; outline: none; }
.point .hit { fill: transparent; }
.point .halo { fill: none; stroke: transparent; stroke-width: 2; }
.point.active .halo { stroke: var(--text); }
.point:focus-visible .halo { stroke: var(--accent); stroke-width: 3; }
.faded .point:not(.active) .mark { opacity: .35; }

.tip {
  position: fixed; z-index: 9; max-width: min(36rem, 94vw); pointer-events: none;
  background: var(--panel); border: 1px solid var(--muted); border-radius: 6px;
  padding: .5rem .7rem; font-size: .8rem; line-height: 1.4; box-shadow: 0 4px 18px #0003;
}
.tip b { overflow-wrap: anywhere; }
.tip .figures { columns: 2; column-gap: 1.6rem; margin-top: .3rem; }
.tip .figures div { display: flex; gap: .8rem; justify-content: space-between; }
.tip .figures span { white-space: nowrap; font-variant-numeric: tabular-nums; }
.tip .drawn { font-weight: 650; }

.scroll { overflow-x: auto; border: 1px solid var(--line); border-radius: 8px; }
.scroll table { border-collapse: collapse; width: 100%; font-size: .85rem; }
.scroll th, .scroll td { padding: .28rem .6rem; text-align: right; white-space: nowrap; }
.scroll td { font-variant-numeric: tabular-nums; }
.scroll thead th {
  background: var(--stripe); border-bottom: 1px solid var(--line); vertical-align: bottom;
  font-weight: 600; white-space: normal;
}
.scroll tbody tr + tr > * { border-top: 1px solid var(--grid); }
.scroll th:first-child {
  position: sticky; left: 0; text-align: left; font-weight: 500; background: var(--panel);
  white-space: normal; min-width: 14.5rem; max-width: 22rem; overflow-wrap: anywhere;
}
.scroll thead th:first-child { background: var(--stripe); }
.scroll th.marked { padding-left: 1.75rem; text-indent: -1.15rem; }
.scroll tr.active > * { background: var(--active); }
.scroll th svg { vertical-align: -2px; margin-right: .4rem; }
.scroll td .interval { color: var(--muted); font-size: .92em; }
th button { all: unset; cursor: pointer; position: relative; padding-right: 1em; }
th button:focus-visible { outline: 2px solid var(--accent); }
th button::after {
  content: "↕"; position: absolute; right: 0; bottom: 0; color: var(--muted); opacity: .5;
}
th[aria-sort] button::after { color: var(--text); opacity: 1; }
th[aria-sort="ascending"] button::after { content: "↑"; }
th[aria-sort="descending"] button::after { content: "↓"; }
details { margin: .75rem 0; } summary { cursor: pointer; }
.scroll .text { text-align: left; }
.scroll .drawing { text-align: center; }
.forest .zero { stroke: var(--muted); stroke-dasharray: 2 2; }
.forest .whisker { stroke: var(--text); stroke-width: 1.6; }
.forest { display: block; margin: 0 auto; } .forest circle { fill: var(--text); }
.forest.open circle { fill: var(--panel); stroke: var(--text); stroke-width: 1.4; }
.forest.open .whisker { opacity: .55; }
footer { margin-top: 2.5rem; border-top: 1px solid var(--line); padding-top: .75rem; }
@media print {
  .legend, .axes label, footer button { display: none; }
  .plot, .scroll { break-inside: avoid; } .scroll { overflow: visible; }
}
"""
