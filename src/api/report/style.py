"""How the report of a deliberation looks beyond what all pages share: seats, bars, streams and two panels of one weight."""

from __future__ import annotations

from application.pages.style import PAGE_STYLE

__all__ = ["STYLE"]

STYLE = (
    PAGE_STYLE
    + """:root { --on: #ffffff; }
@media (prefers-color-scheme: dark) { :root { --on: #15161a; } }
.first { background: var(--mark-ground); color: var(--mark); padding: .5rem 1rem; font-weight: 600; border-bottom: 1px solid var(--line); }
.first p { margin: 0 auto; max-width: 66rem; }
.warning { background: var(--mark-ground); color: var(--mark); padding: .35rem .6rem; border-left: .25rem solid currentColor; }
nav ul { display: flex; flex-wrap: wrap; gap: .25rem 1rem; list-style: none; padding: 0; margin: .5rem 0; font-size: .875rem; }
nav a { display: inline-block; padding: .2rem 0; }
a { color: var(--accent); }
:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
section { scroll-margin-top: 3rem; }
caption { text-align: left; font-weight: 600; padding: .25rem 0; }
tbody th { font-weight: 400; color: var(--ink); }
thead th.text { overflow-wrap: normal; }
blockquote { margin: .5rem 0; padding: .1rem .8rem; border-left: .25rem solid var(--line); }
pre { white-space: pre-wrap; overflow-wrap: anywhere; background: var(--ground); border: 1px solid var(--line); border-radius: .3rem;
  padding: .6rem; font: .8125rem/1.45 ui-monospace, monospace; }
/* What is unseen within it would widen the page. */
.wide { position: relative; }
.unseen { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap; }
.verdict { display: grid; gap: 0 1rem; align-items: start; }
@media (min-width: 52rem) {
  .verdict { grid-template-columns: 1fr 1fr; grid-template-rows: auto 1fr; } #minority { grid-area: 1 / 2 / 3 / 3; } }
.verdict > * { min-width: 0; }
#decision, #minority { border-top: .25rem solid var(--ink); }
.verdict h2 { font-size: 1.3rem; line-height: 1.25; }
.verdict h3 { font-size: 1.05rem; }
.reasons { padding-left: 1.1rem; margin: .25rem 0; }
.reasons li { margin: .25rem 0; }
svg { display: block; }
svg.mark { display: inline-block; width: 1.35em; height: 1.35em; vertical-align: -.3em; }
svg text { font-family: system-ui, -apple-system, "Segoe UI", sans-serif; font-weight: 700; text-anchor: middle; fill: var(--on); }
svg .none { fill: none; stroke: var(--soft); stroke-width: 1.5; stroke-dasharray: 3 2; }
svg .none text { fill: var(--soft); stroke: none; }
svg .empty { stroke: var(--line); }
svg .p0 { fill: var(--s0); } svg .p1 { fill: var(--s1); } svg .p2 { fill: var(--s2); } svg .p3 { fill: var(--s3); }
svg .p4 { fill: var(--s4); } svg .p5 { fill: var(--s5); } svg .p6 { fill: var(--s6); } svg .p7 { fill: var(--s7); }
.seats > svg { width: 100%; max-width: 44rem; margin: 0 auto; }
.legend { display: flex; flex-wrap: wrap; gap: .25rem 1rem; list-style: none; padding: 0; margin: .5rem 0; font-size: .9375rem;
  justify-content: center; color: var(--ink); }
table.bars td:nth-child(2) { width: 45%; min-width: 5rem; vertical-align: middle; }
svg.bar { width: 100%; height: .9rem; fill: var(--s7); }
svg.bar .ground, svg.interval .ground { fill: var(--line); fill-opacity: .55; }
svg.interval { width: 100%; min-width: 6rem; max-width: 16rem; height: .7rem; margin-top: .25rem; fill: var(--accent); }
svg.interval .at { fill: var(--ink); }
table.pairs td, table.pairs th { text-align: center; } table.pairs th:first-child { text-align: left; }
table.pairs b { color: var(--accent); }
.histogram svg { width: 100%; height: 11rem; fill: var(--accent); border-bottom: 1px solid var(--soft); }
.histogram line { stroke: var(--s1); stroke-width: 3; vector-effect: non-scaling-stroke; stroke-dasharray: 6 3; }
.histogram .axis { display: flex; justify-content: space-between; }
.flow svg { width: 100%; max-width: 40rem; }
.flow path.move { fill-opacity: .75; } .flow path.stay { fill-opacity: .25; }
.flow path.none { fill: var(--soft); stroke: none; } .flow rect { stroke: none; } .flow .none rect { fill: var(--soft); }
.flow text.size { fill: var(--ink); font-size: 22px; font-weight: 600; text-anchor: start; } .flow text.left { text-anchor: end; }
.flow line { stroke: var(--accent); stroke-width: 2.5; } .flow line.stay { stroke: var(--soft); stroke-width: 1; stroke-opacity: .5; }
footer { color: var(--soft); font-size: .8125rem; max-width: 68rem; margin: 0 auto; padding: 0 1rem 2rem; }
@media screen and (max-width: 40rem) {
  table.bars td:nth-child(2) { width: 30%; min-width: 3rem; }
  table.flowing thead { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
  table.flowing tr { display: flex; flex-wrap: wrap; gap: 0 .75rem; padding: .35rem 0; border-bottom: 1px solid var(--line); }
  table.flowing th[scope=row] { flex-basis: 100%; font-weight: 600; }
  table.flowing th[scope=row], table.flowing td { border: 0; padding: .05rem .2rem; text-align: left; white-space: normal; }
  table.flowing td::before { content: attr(data-name) " "; color: var(--soft); font-size: .75rem; }
  table.flowing td:empty { display: none; }
  .first { padding: .5rem .6rem; } footer { padding: 0 .6rem 2rem; }
}
@media print {
  :root { --on: #ffffff; }
  nav { display: none; }
  .first { border: 1px solid #111111; }
  .seats > svg { max-width: 13cm; } .flow svg { max-width: 12cm; } .histogram svg { height: 5cm; }
  .verdict { grid-template-columns: 1fr 1fr; grid-template-rows: auto 1fr; } #minority { grid-area: 1 / 2 / 3 / 3; }
  #decision, #minority { padding-top: .4rem; }
  section { break-inside: auto; } .seats, .flow, .histogram, .reasons li, pre { break-inside: avoid; }
  table { font-size: 8.5pt; } th, td { padding: .15rem .3rem; } thead { display: table-header-group; }
  .simulated { page: simulated; }
  @page simulated { @bottom-center { content: "Simulated: no model was asked"; font: 8pt sans-serif; color: #444444; } }
}
"""
)
