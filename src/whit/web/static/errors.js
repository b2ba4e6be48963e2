// The images that a run misclassifies; one click puts an image on the sheet.

import { drawGrey, element, percentOf } from "./panel.js";
import { fetchJson, hasNetwork, describeRun } from "./store.js";

export class ErrorsView {
  /** `show(id, pixels, rows, columns)` lets a run's network classify an image. */
  constructor(root, store, show) {
    this.store = store;
    this.show = show;
    this.id = "";
    this.select = element("select", {});
    this.classSelect = element("select", {});
    this.status = element("p", { class: "note", role: "status" });
    this.list = element("ul", { class: "wrong" });
    this.select.addEventListener("change", () => this.choose(this.select.value));
    this.classSelect.addEventListener("change", () => this.draw());
    root.append(
      element("p", { class: "choose" }, element("label", {}, "Run ", this.select), element("label", {}, "Class ", this.classSelect)),
      this.status, this.list,
    );
  }

  /** Offer every run that has a network. */
  refresh() {
    const runs = this.store.runs.filter(hasNetwork);
    this.select.replaceChildren(
      element("option", { value: "" }, runs.length ? "choose a run" : "no finished run yet"),
      ...runs.map((run) => element("option", { value: run.id }, describeRun(run))),
    );
    this.select.value = runs.some(({ id }) => id === this.id) ? this.id : "";
  }

  async choose(id) {
    this.id = id;
    this.select.value = id;
    this.analysis = null;
    this.list.replaceChildren();
    this.status.textContent = id ? "Reading the images…" : "";
    if (!id) return;
    try {
      const analysis = await fetchJson(`/api/runs/${id}/errors`);
      if (this.id !== id) return;
      this.analysis = analysis;
      this.classSelect.replaceChildren(element("option", { value: "" }, "all"),
        ...analysis.classes.map((name, index) => element("option", { value: String(index) }, name)));
      this.draw();
    } catch (error) {
      if (this.id === id) this.status.textContent = error.message;
    }
  }

  draw() {
    if (!this.analysis) return;
    const { errors, total, correct, split, classes, shape } = this.analysis;
    const label = this.classSelect.value;
    const selected = errors.filter((error) => label === "" || String(error.true) === label);
    const wrong = total - correct;
    const more = wrong > errors.length ? ` The worst ${errors.length} are here.` : "";
    this.status.textContent = `${wrong.toLocaleString("en")} of ${total.toLocaleString("en")} ${split} images wrong; ${selected.length} shown, the worst first.${more} Choose one to draw on it.`;
    this.list.replaceChildren(...selected.map((error) => element("li", {}, this.card(error, classes, shape))));
  }

  card(error, classes, [channels, rows, columns]) {
    const bytes = Uint8Array.from(atob(error.pixels), (character) => character.charCodeAt(0));
    // A colour image becomes grey, the mean of its channels.
    const pixels = Array.from({ length: rows * columns }, (_, i) => {
      let sum = 0;
      for (let channel = 0; channel < channels; channel++) sum += bytes[channel * rows * columns + i];
      return sum / channels;
    });
    const canvas = element("canvas", { "aria-hidden": "true" });
    drawGrey(canvas, pixels.map((value) => value / 255), rows, columns);
    const [label, predicted] = [classes[error.true], classes[error.predicted]];
    const button = element("button", { type: "button" }, canvas,
      element("span", {}, `${label}, taken for ${predicted}`),
      ...[error.predicted, error.true].map((index) => element("span", {}, `${classes[index]}: ${percentOf(error.probabilities[index])}`)),
      element("span", { class: "note" }, `image ${error.index}`),
      ...(error.disputed ? [element("span", { class: "disputed" }, "label disputed")] : []));
    button.addEventListener("click", () => this.show(this.id, pixels, rows, columns));
    return button;
  }
}
