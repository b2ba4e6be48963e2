// The drawing view: one sheet, and one or two networks that classify it.

import { Network } from "./network.js";
import { element, isDigits, Panel } from "./panel.js";
import { Sheet, subjectOf } from "./sheet.js";
import { fetchJson, runOptions } from "./store.js";

export class DrawView {
  constructor(root, store) {
    this.store = store;
    this.title = root.querySelector("h2");
    this.networks = new Map(); // by run id
    const left = element("div", { class: "card" });
    const right = element("div", { class: "networks" });
    this.noRuns = element("p", {});
    this.sides = ["Network", "Compare with"].map((label, index) => this.side(label, index));
    right.append(
      element("p", { class: "choose" }, ...this.sides.map(({ label, select }) => element("label", {}, `${label} `, select))),
      ...this.sides.map(({ card }) => card),
    );
    root.append(this.noRuns, element("div", { class: "desk" }, left, right));
    this.sheet = new Sheet(left, () => this.changed());
  }

  side(label, index) {
    const select = element("select", {});
    const output = element("div");
    const message = element("p", { class: "note", role: "status" });
    const card = element("section", { class: "card", "aria-label": index ? "Second network" : "First network", hidden: true }, message, output);
    const side = { label, select, card, message, output, panel: new Panel(output), index, network: null, id: "" };
    select.addEventListener("change", () => this.choose(side, select.value));
    return side;
  }

  /** Offer every run that has a network, the most accurate of each data set first. */
  refresh() {
    const groups = this.store.networksByData();
    const runs = groups.flatMap(([, ofData]) => ofData);
    this.noRuns.hidden = runs.length > 0;
    this.noRuns.textContent = this.store.noNetworkText;
    for (const side of this.sides) {
      const options = runOptions(groups);
      if (side.index > 0 || !runs.length) options.unshift(element("option", { value: "" }, "none"));
      side.select.replaceChildren(...options);
      const selected = runs.some(({ id }) => id === side.id) ? side.id : "";
      if (selected || side.index > 0) side.select.value = selected;
      if (side.select.value === side.id) continue;
      if (side.index > 0 || selected) this.choose(side, side.select.value);
      else this.chooseFirst(side, this.store.firstCandidates());
    }
  }

  /** Choose the first of some runs that classifies digits, or else the first that can be loaded. */
  async chooseFirst(side, ids) {
    if (side.isSearching) return; // the list of runs has changed meanwhile
    await this.choose(side, "");
    if (!ids.length) return;
    side.isSearching = true;
    side.card.hidden = false;
    side.message.textContent = "Loading the network…";
    let found = "";
    for (const id of ids) {
      const network = await this.load(id).catch(() => null);
      if (side.id) break; // the user has chosen one
      if (network && (!found || isDigits(network))) found = id;
      if (network && isDigits(network)) break;
    }
    side.isSearching = false;
    if (!side.id) await this.choose(side, found || ids[0]);
  }

  /** Return a run's network, fetched once. */
  async load(id) {
    if (!this.networks.has(id)) this.networks.set(id, new Network(await fetchJson(`/api/runs/${id}/network`)));
    return this.networks.get(id);
  }

  /** Let a run's network classify the sheet, on one side; return whether it could be loaded. */
  async choose(side, id) {
    side.id = id;
    side.select.value = id;
    side.card.hidden = !id;
    side.output.hidden = true;
    side.message.textContent = id ? "Loading the network…" : "";
    side.network = null;
    side.panel.use(null);
    if (!id) return false;
    try {
      const network = await this.load(id);
      if (side.id !== id) return false;
      side.network = network;
      side.message.textContent = "";
      side.output.hidden = false;
      side.panel.use(side.network);
      if (side.index === 0) {
        this.sheet.use(side.network);
        this.title.textContent = `Draw ${subjectOf(side.network)}`;
      }
      this.classify(side);
      return true;
    } catch (error) {
      if (side.id === id) side.message.textContent = error.message;
      return false;
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
    const { image, empty } = this.sheet.imageFor(side.network.imageShape);
    side.panel.show(image, empty);
  }

  /** Put an image of a data set on the sheet, for the run that misclassifies it. */
  async show(id, pixels, shape) {
    if (await this.choose(this.sides[0], id)) this.sheet.show(pixels, ...shape);
  }
}
