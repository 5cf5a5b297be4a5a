"""How every page made here looks: on a desk and on a phone, in light and in dark, and on paper."""

from __future__ import annotations

__all__ = ["PAGE_STYLE"]

PAGE_STYLE = """
:root { color-scheme: light dark; --ground: #f6f5f2; --panel: #ffffff; --ink: #1d1c1a; --soft: #5c5850; --line: #dcd8d0;
  --accent: #1f5fbf; --mark: #7a4b00; --mark-ground: #fff3da;
  --s0: #1f5fbf; --s1: #c2501a; --s2: #1d7f4d; --s3: #8c3fa8; --s4: #8a5f0c; --s5: #b32b52; --s6: #23808f; --s7: #6a6a6a; }
@media (prefers-color-scheme: dark) {
  :root { --ground: #15161a; --panel: #1e2025; --ink: #ecebe7; --soft: #aaa69c; --line: #3a3d45;
    --accent: #7fb0ff; --mark: #ffd489; --mark-ground: #3a2f18;
    --s0: #7fb0ff; --s1: #ff9d66; --s2: #6fd39c; --s3: #d59bf0; --s4: #e4c05a; --s5: #ff86a5; --s6: #6fd0de; --s7: #a5a5a5; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink); font: 16px/1.5 system-ui, -apple-system, "Segoe UI", sans-serif;
  overflow-wrap: anywhere; }
main { max-width: 68rem; margin: 0 auto; padding: 1rem; }
.everywhere { position: sticky; top: 0; z-index: 1; background: var(--mark-ground); color: var(--mark); padding: .35rem 1rem;
  text-align: center; font-size: .875rem; font-weight: 600; border-bottom: 1px solid var(--line); }
h1 { font-size: 1.6rem; line-height: 1.2; margin: .75rem 0 .25rem; }
h2 { font-size: 1.15rem; margin: 0 0 .25rem; }
h3 { font-size: .95rem; margin: 1rem 0 .25rem; }
p { margin: .25rem 0 .75rem; max-width: 46rem; }
.soft, figcaption, .axis, dt { color: var(--soft); }
.axis, figcaption { font-size: .8125rem; }
section { background: var(--panel); border: 1px solid var(--line); border-radius: .5rem; padding: 1rem; margin: 1rem 0; }
.badge { display: inline-block; font-size: .7rem; font-weight: 600; letter-spacing: .03em; color: var(--mark);
  background: var(--mark-ground); border-radius: 1rem; padding: .05rem .5rem; margin-left: .4rem; vertical-align: middle; }
dl.tiles { display: grid; grid-template-columns: repeat(auto-fill, minmax(9.5rem, 1fr)); gap: .75rem; margin: 1rem 0; }
dl.tiles div { background: var(--panel); border: 1px solid var(--line); border-radius: .5rem; padding: .5rem .75rem; }
dt { font-size: .8125rem; }
dd { margin: 0; font-size: 1rem; font-weight: 600; font-variant-numeric: tabular-nums; }
figure { margin: .5rem 0 1rem; }
.wide { overflow-x: auto; margin: .5rem 0; }
table { border-collapse: collapse; width: 100%; font-size: .875rem; }
th, td { text-align: right; padding: .3rem .4rem; border-bottom: 1px solid var(--line); vertical-align: top;
  font-variant-numeric: tabular-nums; overflow-wrap: normal; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; overflow-wrap: anywhere; white-space: normal; min-width: 6rem; }
td.text, th.text { text-align: left; overflow-wrap: anywhere; white-space: normal; }
th { font-weight: 600; color: var(--soft); }
code { font-size: .8125rem; overflow-wrap: anywhere; }
@media screen and (max-width: 40rem) { main { padding: .6rem; } section { padding: .75rem .6rem; }
  table.cards thead { display: none; }
  table.cards tr { display: grid; grid-template-columns: repeat(2, 1fr); gap: 0 .5rem; padding: .4rem 0;
    border-bottom: 1px solid var(--line); }
  table.cards td { border: 0; text-align: left; white-space: normal; }
  table.cards td:first-child { grid-column: 1 / -1; font-weight: 600; }
  table.cards td.text { grid-column: 1 / -1; }
  table.cards td[data-name]:not(.text)::before { content: attr(data-name); display: block; color: var(--soft); font-size: .75rem; }
  th, td { padding: .25rem .2rem; font-size: .8125rem; } h1 { font-size: 1.3rem; } }
@media print {
  :root { --ground: #ffffff; --panel: #ffffff; --ink: #111111; --soft: #444444; --line: #bbbbbb; --accent: #1f5fbf;
    --mark: #111111; --mark-ground: #eeeeee;
    --s0: #1f5fbf; --s1: #c2501a; --s2: #1d7f4d; --s3: #8c3fa8; --s4: #8a5f0c; --s5: #b32b52; --s6: #23808f; --s7: #6a6a6a; }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  body { font-size: 10.5pt; }
  .everywhere { position: static; }
  main { padding: 0; max-width: none; }
  section { border: 0; padding: 0; margin: 1rem 0; }
  figure, dl.tiles div, tr { break-inside: avoid; }
  h2, h3 { break-after: avoid; }
  .wide { overflow: visible; }
  @page { margin: 1.6cm; }
}
"""
"""Colours by name (`--s0` to `--s7` tell eight things apart), text, sections, tiles and tables; a page adds what it draws."""
