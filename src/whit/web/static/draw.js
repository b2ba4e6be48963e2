// The drawing view: one sheet, and one or two networks that classify it.

import { Network } from "./network.js";
import { element, Panel } from "./panel.js";
import { Sheet } from "./sheet.js";
import { fetchJson, hasNetwork, describeRun } from "./store.js";

export class DrawView {
  constructor(root, store) {
    this.store = store;
    this.networks = new Map(); // by run id
    const left = element("div", { class: "card" });
    const right = element("div", { class: "networks" });
    this.noRuns = element("p", {}, "No finished run yet. ", element("code", {}, "whit train"), " makes one.");
    root.append(this.noRuns, element("div", { class: "desk" }, left, right));
    this.sides = ["Network", "Beside it"].map((label, index) => this.side(label, index));
    right.append(...this.sides.map(({ card }) => card));
    this.sheet = new Sheet(left, () => this.changed());
  }

  side(label, index) {
    const select = element("select", {});
    const output = element("div");
    const message = element("p", { class: "note", role: "status" });
    const card = element("section", { class: "card", "aria-label": label },
      element("p", { class: "choose" }, element("label", {}, `${label} `, select)), message, output);
    const side = { select, card, message, output, panel: new Panel(output), index, network: null, id: "" };
    select.addEventListener("change", () => this.choose(side, select.value));
    return side;
  }

  /** Offer every run that has a network, the most accurate first. */
  refresh() {
    const runs = this.store.runs.filter(hasNetwork);
    this.noRuns.hidden = runs.length > 0;
    runs.sort((a, b) => b.correct / b.total - a.correct / a.total || 0);
    for (const side of this.sides) {
      const options = runs.map((run) => element("option", { value: run.id }, describeRun(run)));
      if (side.index > 0 || !runs.length) options.unshift(element("option", { value: "" }, "none"));
      side.select.replaceChildren(...options);
      const selected = runs.some(({ id }) => id === side.id) ? side.id : "";
      if (selected || side.index > 0) side.select.value = selected;
      if (side.select.value !== side.id) this.choose(side, side.select.value);
    }
  }

  /** Let a run's network classify the sheet, on one side. */
  async choose(side, id) {
    side.id = id;
    side.select.value = id;
    side.output.hidden = true;
    side.message.textContent = id ? "Loading the network…" : "";
    side.network = null;
    side.panel.use(null);
    if (!id) return;
    try {
      if (!this.networks.has(id)) this.networks.set(id, new Network(await fetchJson(`/api/runs/${id}/network`)));
      if (side.id !== id) return;
      side.network = this.networks.get(id);
      side.message.textContent = "";
      side.output.hidden = false;
      side.panel.use(side.network);
      this.classify(side);
    } catch (error) {
      if (side.id === id) side.message.textContent = error.message;
    }
  }

  changed() {
    if (this.isScheduled) return;
    this.isScheduled = true;
    requestAnimationFrame(() => {
      this.isScheduled = false;
      for (const side of this.sides) this.classify(side);
    });
  }

  classify(side) {
    if (!side.network) return;
    const [, rows, columns] = side.network.imageShape;
    const { image, empty } = this.sheet.imageFor(rows, columns);
    side.panel.show(image, empty);
  }

  /** Put an image of a data set on the sheet, for the run that misclassifies it. */
  show(id, pixels, rows, columns) {
    this.choose(this.sides[0], id);
    this.sheet.show(pixels, rows, columns);
  }
}
