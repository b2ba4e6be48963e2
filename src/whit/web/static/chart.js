// Charts as SVG: curves over the epochs, and points of accuracy against parameters.

const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 480, HEIGHT = 300;
const MARGIN = { left: 58, right: 12, top: 12, bottom: 42 };
// The colour-blind safe palette of Okabe and Ito; dashes and marks also distinguish the series.
const COLOURS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#8a8a8a", "#7a5c00"];
const DASHES = ["", "7 3", "2 3", "9 3 2 3", "12 4", "4 4", "1 2", "8 2 2 2"];
export const MAX_SERIES = COLOURS.length;

function node(tag, attributes, ...children) {
  const created = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) created.setAttribute(name, value);
  created.append(...children);
  return created;
}

/** Round numbers between two values, at most about `count`. */
export function ticksBetween(low, high, count) {
  const raw = (high - low) / count || 1;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].find((factor) => factor * power >= raw) * power;
  const ticks = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + 1e-9 * step; i++) ticks.push(i * step);
  return ticks;
}

const formatNumber = (value) => String(Number(value.toPrecision(6)));

function frame(label, x, y) {
  const svg = node("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": label });
  for (const tick of y.ticks) {
    svg.append(
      node("line", { class: "grid", x1: MARGIN.left, x2: WIDTH - MARGIN.right, y1: y.at(tick), y2: y.at(tick) }),
      node("text", { x: MARGIN.left - 6, y: y.at(tick) + 4, "text-anchor": "end" }, formatNumber(tick)),
    );
  }
  for (const tick of x.ticks) {
    svg.append(
      node("line", { class: "axis", x1: x.at(tick), x2: x.at(tick), y1: HEIGHT - MARGIN.bottom, y2: HEIGHT - MARGIN.bottom + 4 }),
      node("text", { x: x.at(tick), y: HEIGHT - MARGIN.bottom + 17, "text-anchor": "middle" }, (x.format || formatNumber)(tick)),
    );
  }
  svg.append(
    node("line", { class: "axis", x1: MARGIN.left, x2: WIDTH - MARGIN.right, y1: HEIGHT - MARGIN.bottom, y2: HEIGHT - MARGIN.bottom }),
    node("text", { x: (MARGIN.left + WIDTH - MARGIN.right) / 2, y: HEIGHT - 8, "text-anchor": "middle" }, x.label),
    node("text", { x: 0, y: 0, transform: `translate(13 ${(HEIGHT - MARGIN.bottom) / 2}) rotate(-90)`, "text-anchor": "middle" }, y.label),
  );
  return svg;
}

function axis(low, high, from, to, label, count) {
  if (low === high) {
    const padding = Math.abs(low) / 200 || 1;
    low -= padding;
    high += padding;
  }
  if (label.includes("%")) high = Math.min(high, 100);  // no accuracy is larger
  const at = (value) => from + ((value - low) / (high - low)) * (to - from);
  return { at, label, ticks: ticksBetween(low, high, count) };
}

const xAxis = (low, high, label) => axis(low, high, MARGIN.left, WIDTH - MARGIN.right, label, 8);
const yAxis = (low, high, label) => axis(low, high, HEIGHT - MARGIN.bottom, MARGIN.top, label, 6);

/** The line of one series in a legend. */
export function swatch(index) {
  const svg = node("svg", { width: 28, height: 10, "aria-hidden": "true" });
  svg.append(node("line", { x1: 0, x2: 28, y1: 5, y2: 5, stroke: COLOURS[index], "stroke-width": 2.5, "stroke-dasharray": DASHES[index] }));
  return svg;
}

/** Lines over the epochs; `series` are [{name, points: [[epoch, value]]}], in the legend's order. */
export function lines(label, series) {
  const points = series.flatMap(({ points }) => points).filter(([, value]) => Number.isFinite(value));
  if (!points.length) return null;
  const epochs = points.map(([epoch]) => epoch);
  const values = points.map(([, value]) => value);
  const last = Math.max(...epochs);
  const x = xAxis(Math.min(1, ...epochs), last, "epoch");
  x.ticks = x.ticks.filter(Number.isInteger);
  const y = yAxis(Math.min(...values), Math.max(...values), label);
  const ends = series.filter(({ points }) => points.length)
    .map(({ name, points }) => `${name} ends at ${formatNumber(points[points.length - 1][1])}`);
  const svg = frame(`${label} over ${last} epochs: ${ends.join("; ")}.`, x, y);
  series.forEach(({ points }, index) => {
    const coordinates = points.filter(([, value]) => Number.isFinite(value)).map(([epoch, value]) => `${x.at(epoch)},${y.at(value)}`);
    svg.append(node("polyline", { points: coordinates.join(" "), fill: "none", stroke: COLOURS[index], "stroke-width": 2.2, "stroke-dasharray": DASHES[index] }));
    if (coordinates.length === 1) {
      const [cx, cy] = coordinates[0].split(",");
      svg.append(node("circle", { cx, cy, r: 4, fill: COLOURS[index] }));
    }
  });
  return svg;
}

/** Accuracy against parameters. Points are {name, params, accuracy, kind: "run"|"study"|"published"}. */
export function scatter(points) {
  const valid = points.filter(({ params, accuracy }) => params > 0 && Number.isFinite(accuracy));
  if (!valid.length) return null;
  // Points far below the best would compress the others into a line.
  const best = Math.max(...valid.map(({ accuracy }) => accuracy));
  const floor = Math.max(Math.min(...valid.map(({ accuracy }) => accuracy)), best - 4 * (100 - best) - 0.5);
  const inside = valid.filter(({ accuracy }) => accuracy >= floor);
  const logs = inside.map(({ params }) => Math.log10(params));
  const x = xAxis(Math.min(...logs) - 0.05, Math.max(...logs) + 0.05, "parameters");
  x.ticks = [1, 2, 5].flatMap((digit) => [1, 2, 3, 4, 5, 6, 7].map((power) => Math.log10(digit * 10 ** power)))
    .filter((tick) => tick >= Math.min(...logs) - 0.05 && tick <= Math.max(...logs) + 0.05);
  x.format = (tick) => Math.round(10 ** tick).toLocaleString("en");
  if (x.ticks.length < 2) x.ticks = [...new Set([Math.min(...logs), Math.max(...logs)])];
  const y = yAxis(floor === best ? best - 1 : floor, best, "test accuracy, %");
  const below = valid.length - inside.length;
  const svg = frame(
    `Accuracy against parameters: ${inside.length} points from ${floor.toFixed(2)} to ${best.toFixed(2)} percent` +
      (below ? `; ${below} below the plotted range.` : "."), x, y);
  for (const { name, params, accuracy, kind } of inside) {
    const cx = x.at(Math.log10(params));
    const cy = y.at(accuracy);
    const title = node("title", {}, `${name}: ${params.toLocaleString("en")} parameters, ${formatNumber(accuracy)} %`);
    if (kind === "published") {
      svg.append(node("path", { d: `M${cx - 5} ${cy - 5}l10 10m0 -10l-10 10`, stroke: "#8a8a8a", "stroke-width": 2.2, fill: "none" }, title));
    } else if (kind === "study") {
      svg.append(node("path", { d: `M${cx} ${cy - 7}l7 7l-7 7l-7 -7z`, fill: "#d55e00" }, title));
    } else {
      svg.append(node("circle", { cx, cy, r: 4.5, fill: "#0072b2", "fill-opacity": 0.65 }, title));
    }
  }
  return svg;
}

/** The marks of the scatter plot: [mark, text, kind]. */
export function scatterLegend() {
  const mark = (shape) => node("svg", { width: 16, height: 16, viewBox: "0 0 16 16", "aria-hidden": "true" }, shape);
  return [
    [mark(node("circle", { cx: 8, cy: 8, r: 5, fill: "#0072b2" })), "run", "run"],
    [mark(node("path", { d: "M8 1l7 7l-7 7l-7 -7z", fill: "#d55e00" })), "study, mean over seeds", "study"],
    [mark(node("path", { d: "M3 3l10 10m0 -10l-10 10", stroke: "#8a8a8a", "stroke-width": 2.2 })), "published result", "published"],
  ];
}
