"""How the page of a population looks beyond what all pages share: its curves, bars and heat map."""

from __future__ import annotations

from application.pages.style import PAGE_STYLE

__all__ = ["STYLE"]

STYLE = (
    PAGE_STYLE
    + """.plot { display: grid; grid-template-columns: auto 1fr; column-gap: .5rem; }
.y { display: flex; flex-direction: column; justify-content: space-between; text-align: right; line-height: 1; min-width: 2.5rem;
  font-variant-numeric: tabular-nums; }
.x { grid-column: 2; display: flex; justify-content: space-between; font-variant-numeric: tabular-nums; padding-top: .25rem; }
svg { display: block; width: 100%; height: 13rem; background: var(--panel); border: 1px solid var(--line); }
svg.tall { height: 19rem; }
svg.low { height: 7rem; }
svg image { image-rendering: pixelated; }
svg path, svg line { fill: none; vector-effect: non-scaling-stroke; stroke-width: 2; }
svg line.grid { stroke: var(--line); stroke-width: 1; }
svg path.mean { stroke: var(--ink); }
svg path.thin { stroke-width: 1; stroke-opacity: .55; }
svg path.faint { stroke-width: 1; stroke-opacity: .6; stroke-dasharray: 3 3; }
svg rect { fill: var(--accent); }
svg rect.hover { fill: transparent; }
svg rect.hover:hover { fill: var(--ink); fill-opacity: .15; }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(16rem, 1fr)); gap: 0 1.5rem; }
.legend { display: flex; flex-wrap: wrap; gap: .25rem 1rem; list-style: none; padding: 0; margin: .25rem 0; font-size: .875rem; }
.legend i { display: inline-block; width: 1.2rem; height: .3rem; border-radius: 2px; margin-right: .35rem; vertical-align: middle; }
.legend i.ink { background: var(--ink); }
.legend i.box { height: .9rem; background: var(--accent); border: 1px solid var(--line); }
.o1 { opacity: .06; } .o2 { opacity: .16; } .o3 { opacity: .4; } .o4 { opacity: 1; }
svg path.s0 { stroke: var(--s0); } svg path.s1 { stroke: var(--s1); } svg path.s2 { stroke: var(--s2); }
svg path.s3 { stroke: var(--s3); } svg path.s4 { stroke: var(--s4); } svg path.s5 { stroke: var(--s5); }
svg path.s6 { stroke: var(--s6); } svg path.s7 { stroke: var(--s7); }
i.s0 { background: var(--s0); } i.s1 { background: var(--s1); } i.s2 { background: var(--s2); } i.s3 { background: var(--s3); }
i.s4 { background: var(--s4); } i.s5 { background: var(--s5); } i.s6 { background: var(--s6); } i.s7 { background: var(--s7); }
@media print {
  svg.tall { height: 9cm; } svg { height: 6cm; }
  @page { margin: 1.6cm; @bottom-center { content: "Simulated: rows of numbers, not people"; font: 8pt sans-serif; color: #444444; } }
}
"""
)
