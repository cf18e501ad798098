"""The style of ``report.html``: light, dark and print, from phone width up, safe for the colour-blind."""

from gristmill.pipelines.graph_picture import STYLE

CSS = """
:root {
  color-scheme: light dark;
  --paper: #fbfaf7; --card: #ffffff; --ink: #1c1d21; --soft: #5d606a; --line: #e3e1da; --grid: #eceae4;
  --accent: #0b5d8f; --good: #08704f; --bad: #a63d00;
  --s0: #6b7080; --s1: #0072b2; --s2: #d55e00; --s3: #009e73; --s4: #b0619a; --s5: #b98600; --s6: #3c9dd0;
  --s7: #1c1d21;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #14161a; --card: #1c1f25; --ink: #eceae5; --soft: #a3a7b2; --line: #33373f; --grid: #292d35;
    --accent: #7cc4f0; --good: #5fd3a9; --bad: #ff9d66;
    --s0: #a0a5b3; --s1: #4aa8e0; --s2: #f0864a; --s3: #34c79b; --s4: #d999c4; --s5: #e6b73c; --s6: #8accf0;
    --s7: #eceae5;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body {
  margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "Liberation Sans", sans-serif;
}
main, header, footer { max-width: 70rem; margin: 0 auto; padding: 0 1.25rem; }
header { padding-top: 2.5rem; }
.kicker {
  color: var(--accent); font-size: .8rem; font-weight: 650; letter-spacing: .09em;
  text-transform: uppercase; margin: 0;
}
h1 {
  font-size: clamp(1.6rem, 4.5vw, 2.4rem); line-height: 1.15; letter-spacing: -.02em; margin: .3rem 0 .8rem;
  text-wrap: balance;
}
.lead { font-size: clamp(1.05rem, 2.4vw, 1.25rem); line-height: 1.5; max-width: 50rem; margin: 0 0 1.4rem; }
.facts {
  display: grid; grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr)); gap: .8rem;
  margin: 0 0 1.2rem; padding: 0;
}
.facts div {
  background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: .8rem .95rem;
}
.facts dt { color: var(--soft); font-size: .82rem; line-height: 1.3; }
.facts dd {
  margin: .15rem 0 0; font-size: 1.5rem; font-weight: 650; letter-spacing: -.02em; line-height: 1.2;
  font-variant-numeric: tabular-nums;
}
.facts small { display: block; font-size: .78rem; font-weight: 400; color: var(--soft); white-space: nowrap; }
.facts small { letter-spacing: 0; }
.verdict { margin: 0 0 1.4rem; padding-left: 1.1rem; max-width: 52rem; font-size: .95rem; }
.verdict li { margin: 0 0 .3rem; }
.use { margin: 0 0 1.4rem; max-width: 52rem; font-size: .95rem; }
nav {
  border-block: 1px solid var(--line); padding: .55rem 0; font-size: .9rem; display: flex; flex-wrap: wrap;
  gap: .2rem 1.1rem;
}
nav a { color: var(--soft); text-decoration: none; }
nav a:hover, nav a:focus-visible { color: var(--accent); text-decoration: underline; }
section { margin: 2.6rem 0 0; }
h2 { font-size: 1.3rem; letter-spacing: -.01em; margin: 0 0 .35rem; scroll-margin-top: 1rem; }
h3 { font-size: 1rem; margin: 0 0 .4rem; }
p { margin: 0 0 .9rem; }
.hint, figcaption, .none { color: var(--soft); font-size: .88rem; max-width: 52rem; }
.grid { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 19rem), 1fr)); gap: 1rem; }
figure, .card {
  background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 1rem 1.1rem;
  margin: 0; min-width: 0;
}
figcaption { margin-top: .4rem; }
.grid + *, .flow + *, figure + details { margin-top: 1rem; }
.slim { max-width: 26rem; }
figure svg { display: block; width: 100%; max-width: 34rem; height: auto; margin: 0 auto; }
svg text {
  fill: var(--ink);
  font: 12px system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "Liberation Sans", sans-serif;
}
svg text.tick { fill: var(--soft); font-size: 10.5px; }
svg text.value { font-weight: 650; font-variant-numeric: tabular-nums; }
svg text.cell { font-weight: 600; }
svg text.name, svg text.value { paint-order: stroke; stroke: var(--card); stroke-width: 4px; stroke-linejoin: round; }
svg text.mono, code, .mono {
  font-family: ui-monospace, "SF Mono", Menlo, Consolas, "Liberation Mono", monospace;
}
svg text.mono { fill: var(--soft); font-size: 10.5px; }
line.grid { stroke: var(--grid); }
line.rule { stroke-dasharray: 3 3; opacity: .75; }
line.whisker { stroke-width: 2.5; } line.cap { stroke-width: 2; }
circle.dot { stroke: var(--card); stroke-width: 1.5; } circle.seed { opacity: .5; }
polyline.curve { fill: none; stroke-width: 1.6; stroke-linejoin: round; opacity: .85; }
rect.best, rect.chosen {
  fill: none; stroke-width: 2; } rect.chosen { stroke-dasharray: 2 3; stroke-width: 1.6;
}
.wide { overflow-x: auto; }
figure svg.graph { width: auto; max-width: none; }
.legend {
  display: flex; flex-wrap: wrap; gap: .2rem 1.1rem; margin: .2rem 0 .8rem; padding: 0; list-style: none;
  font-size: .88rem;
}
.legend i, td i.key, th i.key {
  display: inline-block; width: .7em; height: .7em; border-radius: 50%; margin-right: .45em;
}
.scroll {
  overflow-x: auto; border: 1px solid var(--line); border-radius: 10px; background: var(--card);
  margin-bottom: 1rem;
}
table { border-collapse: collapse; width: 100%; font-size: .88rem; font-variant-numeric: tabular-nums; }
th, td {
  padding: .42rem .8rem; text-align: right; border-top: 1px solid var(--line); white-space: nowrap;
  vertical-align: baseline;
}
thead th {
  border-top: 0; color: var(--soft); font-weight: 600; font-size: .8rem; background: var(--paper);
  vertical-align: bottom;
}
th:first-child, td.text, th.text { text-align: left; }
tbody th { font-weight: 500; position: sticky; left: 0; background: var(--card); }
tbody th.group { position: static; font-weight: 650; padding-top: .9rem; }
td.text { white-space: normal; min-width: 12rem; overflow-wrap: anywhere; }
.range { color: var(--soft); font-size: .92em; }
b.best { font-weight: 700; }
.better { color: var(--good); } .worse { color: var(--bad); }
mark {
  background: none; color: var(--bad); text-decoration: underline; text-decoration-thickness: 2px;
  text-underline-offset: 3px;
}
audio { display: block; width: min(100%, 22rem); height: 2.2rem; margin-top: .3rem; }
.flow { display: grid; gap: .85rem; }
.flow .name {
  display: flex; flex-wrap: wrap; justify-content: space-between; gap: 0 1rem; font-size: .9rem;
  margin-bottom: .25rem;
}
.flow .name span:last-child { color: var(--soft); font-variant-numeric: tabular-nums; }
.bar { display: flex; height: 14px; border-radius: 4px; overflow: hidden; background: var(--grid); }
.bar b { display: block; height: 100%; min-width: 3px; border-right: 1px solid var(--card); }
.bar b:last-child { border: 0; }
.pair { display: grid; gap: 1rem; }
.pair img { display: block; width: 100%; height: clamp(110px, 20vw, 170px); border-radius: 6px; }
.axis {
  display: flex; justify-content: space-between; color: var(--soft); font-size: .78rem; margin-top: .2rem;
  font-variant-numeric: tabular-nums;
}
details { margin: 0 0 1rem; }
summary { cursor: pointer; color: var(--accent); font-size: .92rem; padding: .3rem 0; }
pre {
  margin: 0; padding: .9rem 1.1rem; overflow-x: auto; font-size: .8rem; line-height: 1.5;
  background: var(--card); border: 1px solid var(--line); border-radius: 10px;
}
footer { color: var(--soft); font-size: .85rem; margin-top: 3rem; padding-block: 1.2rem 2.5rem; }
footer div { border-top: 1px solid var(--line); padding-top: 1rem; }
@media (max-width: 34rem) {
  main, header, footer {
    padding-inline: .9rem; } header { padding-top: 1.5rem; } section { margin-top: 2rem;
  }
  figure, .card { padding: .8rem .7rem; } th, td { padding: .4rem .6rem; }
  .facts { grid-template-columns: 1fr; gap: .5rem; } .facts dd { font-size: 1.2rem; text-align: right; }
  .facts div { display: flex; justify-content: space-between; gap: 1rem; padding: .55rem .8rem; }
}
@media print {
  :root { --paper: #fff; --card: #fff; --ink: #000; --soft: #444; --line: #ccc; --grid: #e4e4e4; }
  body { font-size: 10.5pt; print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  table { font-size: 8pt; } th, td { padding: .22rem .4rem; } .hint, .legend { break-after: avoid; }
  nav, audio, details:not([open]) { display: none; } section { margin-top: 1.4rem; }
  figure, .card, tr, .flow > div { break-inside: avoid; } h2 { break-after: avoid; }
  .scroll, .wide { overflow: visible; } figure svg.graph { width: 100%; height: auto; } tbody th { position: static; }
}
"""

CSS += STYLE
