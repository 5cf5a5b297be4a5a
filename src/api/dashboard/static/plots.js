// Draws the figures of a run with uPlot: in the colours of the page, with lines that differ by dash too, and at any width.

import { element, formatted } from "/static/page.js";

const DASHES = [[], [9, 5], [2, 5], [12, 4, 2, 4]];
const COLOURS = ["--position-0", "--position-1", "--position-5", "--position-2"];
const HEIGHT = 260;
const MOST_NAMED_MARKS = 12;
const MAX_UNITS = 2;
const WHOLE_STEPS = Array.from({ length: 10 }, (_, power) => [1, 2, 5].map((step) => step * 10 ** power)).flat();

/** The figures of one page, each in its place, drawn again when the data, the width or the theme is another. */
export class Plots {
  /** @param {(name: string) => {plot: HTMLElement, legend: HTMLElement} | null} placeOf where a figure is drawn */
  constructor(placeOf) {
    this.placeOf = placeOf;
    /** @type {Map<string, {figure: any, chart: any, plot: HTMLElement, shape: string}>} */
    this.drawn = new Map();
    this.watch = new ResizeObserver((entries) => {
      for (const { target } of entries) this.fit(target);
    });
    const again = () => this.redraw();
    document.addEventListener("conclave:theme", again);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", again);
  }

  /** @param {any[]} figures as `/room/runs/{id}/series` has them */
  show(figures) {
    const names = new Set(figures.map((figure) => figure.name));
    for (const name of [...this.drawn.keys()]) {
      if (!names.has(name) || !this.drawn.get(name).plot.isConnected) this.drop(name);
    }
    for (const figure of figures) this.draw(figure);
  }

  redraw() {
    for (const { figure } of [...this.drawn.values()]) {
      this.drop(figure.name);
      this.draw(figure);
    }
  }

  draw(figure) {
    const place = this.placeOf(figure.name);
    if (!place || !figure.positions.length) return;
    const shape = JSON.stringify([figure.shape, figure.lines.map((line) => [line.label, line.unit])]);
    const before = this.drawn.get(figure.name);
    if (before?.shape === shape) {
      before.figure = figure;
      before.chart.setData(dataOf(figure));
      return;
    }
    if (before) this.drop(figure.name);
    const holder = { figure, plot: place.plot, shape };
    const values = legendOf(place.legend, figure);
    holder.chart = new window.uPlot(optionsOf(holder, values, place.plot.clientWidth), dataOf(figure), place.plot);
    this.drawn.set(figure.name, holder);
    this.watch.observe(place.plot);
  }

  drop(name) {
    const { chart, plot } = this.drawn.get(name);
    this.watch.unobserve(plot);
    chart.destroy();
    this.drawn.delete(name);
  }

  fit(plot) {
    for (const holder of this.drawn.values()) {
      if (holder.plot === plot && plot.clientWidth) holder.chart.setSize({ width: plot.clientWidth, height: HEIGHT });
    }
  }
}

function dataOf(figure) {
  return [figure.positions, ...figure.lines.map((line) => line.values)];
}

function token(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

function optionsOf(holder, values, width) {
  const { figure } = holder;
  const units = [...new Set(figure.lines.map((line) => line.unit))].slice(0, MAX_UNITS);
  const scaleOf = (unit) => (units.indexOf(unit) === 1 ? "y2" : "y");
  const font = `12px ${token("--sans") || "sans-serif"}`;
  const axis = (scale, label, more) => ({
    scale,
    label,
    labelSize: 22,
    labelFont: font,
    font,
    stroke: token("--muted"),
    grid: { stroke: token("--line"), width: 1 },
    ticks: { stroke: token("--line"), width: 1 },
    values: (_chart, splits) => splits.map(short),
    ...more,
  });
  return {
    width,
    height: HEIGHT,
    legend: { show: false },
    cursor: { drag: { x: false, y: false }, points: { size: 7 } },
    scales: { x: { time: false }, ...Object.fromEntries(units.map((unit) => [scaleOf(unit), { range: unit === "%" ? [0, 104] : roomy }])) },
    axes: [
      axis("x", figure.axis, { size: 34, ...(figure.positions.every(Number.isInteger) && { incrs: WHOLE_STEPS }) }),
      ...units.map((unit) => axis(scaleOf(unit), unit, { size: 58, side: scaleOf(unit) === "y2" ? 1 : 3, ...(scaleOf(unit) === "y2" && { grid: { show: false } }) })),
    ],
    series: [{}, ...figure.lines.map((line, place) => seriesOf(figure, line, place, scaleOf(line.unit)))],
    hooks: { draw: [(chart) => drawMarks(chart, holder.figure.marks)], setCursor: [(chart) => readOut(chart, values)] },
  };
}

function seriesOf(figure, line, place, scale) {
  const colour = token(COLOURS[place % COLOURS.length]);
  return {
    label: line.label,
    scale,
    stroke: colour,
    width: line.level ? 1.5 : 2,
    dash: DASHES[place % DASHES.length],
    spanGaps: true,
    points: { show: line.level || figure.positions.length > 60 ? false : undefined, size: 5, fill: colour },
    ...(figure.shape === "steps" && { paths: window.uPlot.paths.stepped({ align: 1 }), points: { show: false } }),
  };
}

// From nothing on where that costs little of the picture, and never less than a fiftieth of the values, so that small differences are
// not made to look large.
function roomy(_chart, least, greatest) {
  if (least === null || greatest === null) return [0, 1];
  if (least === greatest) return least === 0 ? [0, 1] : [Math.min(0, least * 1.2), Math.max(0, greatest * 1.2)];
  const room = Math.max((greatest - least) * 0.08, (Math.abs(greatest) * 0.02 - (greatest - least)) / 2);
  return [least >= 0 && least < greatest * 0.7 ? 0 : least - room, greatest + room];
}

function short(value) {
  if (value === null || value === undefined) return "";
  const size = Math.abs(value);
  if (size >= 10_000) return new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 }).format(value);
  return new Intl.NumberFormat("en", { maximumSignificantDigits: 4 }).format(value);
}

function drawMarks(chart, marks) {
  if (!marks.length) return;
  const { ctx, bbox } = chart;
  ctx.save();
  ctx.strokeStyle = token("--bad");
  ctx.fillStyle = token("--bad");
  ctx.font = `${11 * devicePixelRatio}px ${token("--sans") || "sans-serif"}`;
  ctx.setLineDash([3 * devicePixelRatio, 3 * devicePixelRatio]);
  const places = new Map();
  for (const { position, label } of marks) places.set(position, [...(places.get(position) ?? []), label]);
  for (const [position, labels] of places) {
    const x = Math.round(chart.valToPos(position, "x", true));
    ctx.beginPath();
    ctx.moveTo(x, bbox.top);
    ctx.lineTo(x, bbox.top + bbox.height);
    ctx.stroke();
    if (places.size > MOST_NAMED_MARKS) continue;
    labels.forEach((label, row) => {
      const isRight = x > bbox.left + bbox.width * 0.8;
      ctx.textAlign = isRight ? "right" : "left";
      ctx.fillText(label, x + (isRight ? -4 : 4) * devicePixelRatio, bbox.top + (row + 1) * 13 * devicePixelRatio);
    });
  }
  ctx.restore();
}

function legendOf(list, figure) {
  list.replaceChildren();
  return figure.lines.map((line, place) => {
    const swatch = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    swatch.setAttribute("viewBox", "0 0 36 6");
    swatch.setAttribute("width", "36");
    swatch.setAttribute("height", "6");
    const stroke = document.createElementNS("http://www.w3.org/2000/svg", "line");
    const given = { x1: 0, y1: 3, x2: 36, y2: 3, class: `stroke-${place % COLOURS.length}`, "stroke-dasharray": DASHES[place % DASHES.length].join(" ") };
    for (const [name, value] of Object.entries(given)) stroke.setAttribute(name, String(value));
    swatch.append(stroke);
    const value = element("span", { class: "number" });
    list.append(element("li", {}, swatch, element("span", { text: line.label }), value));
    return { value, unit: line.unit };
  });
}

function readOut(chart, values) {
  const place = chart.cursor.idx;
  values.forEach(({ value, unit }, line) => {
    const found = place === null || place === undefined ? null : chart.data[line + 1]?.[place];
    value.textContent = found === null || found === undefined ? "" : `${formatted.number(found, 4)} ${unit}`;
  });
}
