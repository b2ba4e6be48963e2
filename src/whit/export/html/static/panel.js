// How one network classifies an image: probabilities, occlusion map, feature maps.

import { softmax } from "./network.js";

const PATCH = 6; // pixels: side of the square that is occluded, moved by STEP at a time
const STEP = 2;
const SLICE_MS = 8; // of work before the browser handles events again
const UNSURE = 0.6; // a prediction of less confidence is called unsure,
const CLOSE = 0.25; // and one with less distance from the second class
// Data sets of digits by their names; those of other images may have numbers as classes, too.
const DIGIT_DATA = /(mnist|digit|usps|svhn)[^/]*$/i;
const OTHER_DATA = /(fashion|kmnist|k-mnist|kuzushiji|notmnist)[^/]*$/i;
const LONGEST_CHARACTER = 2; // of the name of a class that is a digit or a letter

/** Create an element with attributes and children, which are elements or text. */
export function element(tag, attributes = {}, ...children) {
  const created = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === true) created.setAttribute(name, "");
    else if (value !== false && value !== null) created.setAttribute(name, value);
  }
  created.append(...children);
  return created;
}

/** Whether a network reads handwritten characters: light ink on black, centred as in MNIST. */
export const readsHandwriting = ({ imageShape: [channels], classes, data }) =>
  channels === 1 && classes.every((name) => name.length <= LONGEST_CHARACTER) && !OTHER_DATA.test(data);

/** Whether the classes are the ten digits, and not other classes that are numbered. */
export const isDigits = ({ classes, data }) =>
  classes.length === 10 && classes.every((name, index) => name === String(index))
  && (!data || (DIGIT_DATA.test(data) && !OTHER_DATA.test(data)));

/** Draw an image, 0..255, channel by channel and line by line; ink appears dark on white. */
export function drawImage(canvas, pixels, [channels, rows, columns], isInk) {
  canvas.width = columns;
  canvas.height = rows;
  const context = canvas.getContext("2d");
  const image = context.createImageData(columns, rows);
  const plane = rows * columns;
  for (let i = 0; i < plane; i++) {
    for (let c = 0; c < 3; c++) {
      const value = pixels[(channels === 1 ? 0 : c * plane) + i];
      image.data[4 * i + c] = isInk ? 255 - value : value;
    }
    image.data[4 * i + 3] = 255;
  }
  context.putImageData(image, 0, 0);
}

/** A fraction from 0 to 1 in percent with one decimal, never rounded up. */
export const formatPercent = (fraction) => `${(Math.floor(1000 * fraction + 1e-9) / 10).toFixed(1)} %`;

export class Panel {
  constructor(root) {
    this.root = root;
    this.network = null;
    this.input = null; // the image that is shown, 0..255, channel by channel
    this.inputCanvas = element("canvas", { class: "input", role: "img" });
    this.occlusionCanvas = element("canvas", { class: "occlusion", role: "img" });
    this.verdict = element("output", { class: "verdict", "aria-live": "polite" });
    this.bars = element("table", { class: "bars" });
    this.maps = element("div", { class: "maps" });
    this.details = element("details", {}, element("summary", {}, "Feature maps"), this.maps);
    this.details.addEventListener("toggle", () => this.drawFeatureMaps());
    this.timing = element("p", { class: "note" });
    root.replaceChildren(
      this.verdict,
      element("div", { class: "pictures" },
        element("figure", {}, this.inputCanvas, element("figcaption", {}, "Input of the network")),
        element("figure", {}, this.occlusionCanvas,
          element("figcaption", {}, "Occlusion map: orange supports the prediction, blue opposes it")),
      ),
      this.bars, this.timing, this.details,
    );
  }

  /** Show another network; null shows none. */
  use(network) {
    this.network = network;
    if (!network) return;
    this.rows = network.classes.map((name) => {
      const bar = element("span", { class: "bar" });
      const value = element("td", { class: "value" });
      const row = element("tr", {}, element("th", { scope: "row" }, name),
        element("td", { class: "track", "aria-hidden": "true" }, bar), value);
      return { row, bar, value, name };
    });
    this.bars.replaceChildren(
      element("caption", {}, `Class probabilities of ${network.name}`), element("tbody", {}, ...this.rows.map(({ row }) => row)),
    );
    this.stages = findStages(network);
    this.maps.replaceChildren(...this.stages.map((stage) => stage.figure));
  }

  /** Classify an image, 0..255, channel by channel; of an empty one nothing is shown. */
  show(image, empty) {
    this.input = image;
    this.empty = empty;
    if (!this.network) return;
    const [, rows, columns] = this.network.imageShape;
    const start = performance.now();
    this.probabilities = softmax(this.network.logits(this.input));
    this.milliseconds = performance.now() - start;
    drawImage(this.inputCanvas, image, this.network.imageShape, readsHandwriting(this.network));
    this.inputCanvas.setAttribute("aria-label", empty ? "an empty image" : `the image of ${columns} by ${rows} pixels`);
    this.drawBars();
    this.drawFeatureMaps();
    this.updateOcclusion();
  }

  drawBars() {
    const best = this.probabilities.indexOf(Math.max(...this.probabilities));
    this.best = best;
    this.verdict.textContent = this.empty ? "Nothing drawn yet" : formatVerdict(this.network.classes, this.probabilities);
    this.rows.forEach(({ row, bar, value }, index) => {
      const probability = this.empty ? 0 : this.probabilities[index];
      bar.style.inlineSize = `${100 * probability}%`;
      value.textContent = this.empty ? "" : formatPercent(probability);
      row.classList.toggle("best", index === best && !this.empty);
    });
    this.timing.textContent = `Computed in this browser in ${this.milliseconds.toFixed(1)} ms. `
      + `Whatever the image shows, the network chooses one of its ${this.probabilities.length} classes.`;
  }

  drawFeatureMaps() {
    if (!this.details.open || !this.network || !this.input) return;
    for (const stage of this.stages) stage.draw(this.network.valueOf(stage.name).values);
  }

  /** Cover one patch after another while the page is idle, and measure the change of confidence. */
  updateOcclusion() {
    const turn = (this.turn = (this.turn || 0) + 1);
    const [channels, rows, columns] = this.network.imageShape;
    const effect = new Float64Array(rows * columns);
    const counts = new Float64Array(rows * columns);
    this.drawOcclusion(effect, rows, columns);
    if (this.empty) return;
    const { network, input, best } = this;
    const before = this.probabilities[best];
    const patches = [];
    for (let y = 0; y <= rows - PATCH; y += STEP) {
      for (let x = 0; x <= columns - PATCH; x += STEP) {
        if (hasInk(input, columns, y, x)) patches.push([y, x]);
      }
    }
    const continueOcclusion = () => {
      if (turn !== this.turn || network !== this.network) return;
      const start = performance.now();
      while (patches.length && performance.now() - start < SLICE_MS) {
        const [top, left] = patches.pop();
        const covered = input.slice();
        for (let channel = 0; channel < channels; channel++) {
          for (let y = top; y < top + PATCH; y++) {
            covered.fill(0, (channel * rows + y) * columns + left, (channel * rows + y) * columns + left + PATCH);
          }
        }
        const drop = before - softmax(network.logits(covered))[best];
        for (let y = top; y < top + PATCH; y++) {
          for (let x = left; x < left + PATCH; x++) {
            effect[y * columns + x] += drop;
            counts[y * columns + x] += 1;
          }
        }
      }
      if (patches.length) {
        setTimeout(continueOcclusion);
        return;
      }
      network.logits(input); // the feature maps are again those of the image itself
      for (let i = 0; i < effect.length; i++) effect[i] /= counts[i] || 1;
      this.drawOcclusion(effect, rows, columns);
    };
    setTimeout(continueOcclusion, 150);
  }

  drawOcclusion(effect, rows, columns) {
    const largest = Math.max(0.05, ...Array.from(effect, Math.abs));
    this.occlusionCanvas.width = columns;
    this.occlusionCanvas.height = rows;
    const context = this.occlusionCanvas.getContext("2d");
    const picture = context.createImageData(columns, rows);
    const isInk = readsHandwriting(this.network);
    for (let i = 0; i < rows * columns; i++) {
      const strength = Math.min(1, Math.abs(effect[i]) / largest);
      const colour = effect[i] > 0 ? [213, 94, 0] : [0, 114, 178];
      const background = isInk ? 255 - 0.55 * this.input[i] : 115 + 0.55 * this.input[i];
      for (let c = 0; c < 3; c++) picture.data[4 * i + c] = background * (1 - strength) + colour[c] * strength;
      picture.data[4 * i + 3] = 255;
    }
    context.putImageData(picture, 0, 0);
    const strongest = effect.indexOf(Math.max(...effect));
    const where = `row ${Math.floor(strongest / columns) + 1}, column ${(strongest % columns) + 1}`;
    this.occlusionCanvas.setAttribute("aria-label", this.empty || !effect[strongest]
      ? "no occlusion map yet" : `strongest support for the prediction around ${where}`);
  }
}

/** The prediction with its confidence; with little of it, or a close second class, it is unsure. */
export function formatVerdict(classes, probabilities) {
  const [best, second] = Array.from(probabilities.keys()).sort((a, b) => probabilities[b] - probabilities[a]);
  const text = (index) => `${classes[index]}: ${formatPercent(probabilities[index])}`;
  const margin = probabilities[best] - (probabilities[second] ?? 0);
  if (probabilities[best] >= UNSURE && margin >= CLOSE) return text(best);
  return margin < CLOSE ? `Unsure, ${text(best)} or ${text(second)}` : `Unsure, ${text(best)}`;
}

function hasInk(input, columns, top, left) {
  for (let y = top; y < top + PATCH; y++) {
    for (let x = left; x < left + PATCH; x++) if (input[y * columns + x] > 0) return true;
  }
  return false;
}

/** The feature maps that are shown: the output of each block of operations, not of each step. */
function findStages(network) {
  const inside = new Set(["scale", "activation"]);
  const consumersOf = new Map();
  for (const operation of network.operations) {
    for (const name of operation.inputs) consumersOf.set(name, [...(consumersOf.get(name) || []), operation]);
  }
  return network.operations
    .filter(({ name, shape, kind }) => {
      const consumers = consumersOf.get(name) || [];
      const last = consumers.length !== 1 || !inside.has(consumers[0].kind);
      return last && kind !== "constant" && (shape.length === 3 || kind === "mean");
    })
    .map((operation) => buildStage(operation));
}

function buildStage(operation) {
  const [channels, rows = 1, columns = 1] = operation.shape;
  const across = Math.min(channels, rows > 1 ? 8 : 16);
  const canvas = element("canvas", { role: "img" });
  const text = rows > 1 ? `${channels} feature map${channels === 1 ? "" : "s"} of ${rows}×${columns}` : `${channels} values`;
  canvas.setAttribute("aria-label", `${operation.name}: ${text}`);
  const figure = element("figure", {}, element("figcaption", {}, `${operation.name}: ${text}`), canvas);
  const draw = (values) => {
    const gap = 1;
    const lines = Math.ceil(channels / across);
    canvas.width = across * (columns + gap) + gap;
    canvas.height = lines * (rows + gap) + gap;
    canvas.style.setProperty("--across", canvas.width * Math.min(10, Math.max(2, Math.round(48 / columns))));
    const context = canvas.getContext("2d");
    const picture = context.createImageData(canvas.width, canvas.height);
    for (let i = 0; i < picture.data.length; i += 4) picture.data.set([128, 128, 128, 255], i);
    const largest = Math.max(1e-9, ...Array.from(values, Math.abs));
    for (let channel = 0, i = 0; channel < channels; channel++) {
      const top = gap + Math.floor(channel / across) * (rows + gap);
      const left = gap + (channel % across) * (columns + gap);
      for (let y = 0; y < rows; y++) {
        for (let x = 0; x < columns; x++, i++) {
          const strength = values[i] / largest;
          const colour = strength >= 0 ? [213, 94, 0] : [0, 114, 178];
          const offset = 4 * ((top + y) * canvas.width + left + x);
          for (let c = 0; c < 3; c++) {
            picture.data[offset + c] = 255 + (colour[c] - 255) * Math.abs(strength);
          }
        }
      }
    }
    context.putImageData(picture, 0, 0);
  };
  return { name: operation.name, figure, draw };
}
