// The images that a run misclassifies, one of them in detail.

import { drawImage, element, formatPercent, readsHandwriting } from "./panel.js";
import { fetchJson, runOptions } from "./store.js";

const MAX_PROBABILITIES = 5; // of the selected image

export class ErrorsView {
  /** `show(id, pixels, shape)` opens an image on the sheet, for a run's network. */
  constructor(root, store, show) {
    this.store = store;
    this.show = show;
    this.id = "";
    this.select = element("select", {});
    this.classSelect = element("select", {});
    this.status = element("p", { class: "note", role: "status" });
    this.detail = element("section", { class: "card detail", "aria-label": "Selected image", hidden: true });
    this.list = element("ul", { class: "misclassified" });
    this.select.addEventListener("change", () => this.choose(this.select.value));
    this.classSelect.addEventListener("change", () => this.draw());
    root.append(
      element("p", { class: "choose" }, element("label", {}, "Run ", this.select), element("label", {}, "Label ", this.classSelect)),
      this.status, this.detail, this.list,
    );
  }

  /** Offer every run that has a network; at first choose the one that is offered for drawing. */
  refresh() {
    const groups = this.store.networksByData();
    const runs = groups.flatMap(([, ofData]) => ofData);
    this.select.replaceChildren(...runOptions(groups));
    if (runs.some(({ id }) => id === this.id)) this.select.value = this.id;
    else this.chooseFirst(this.store.firstCandidates());
  }

  /** Choose the first of some runs that can be evaluated. */
  async chooseFirst(ids) {
    if (!ids.length) await this.choose("");
    for (const id of ids) {
      await this.choose(id);
      if (this.analysis || this.id !== id) return; // or the user has chosen another one meanwhile
    }
  }

  async choose(id) {
    this.id = id;
    this.select.value = id;
    this.analysis = null;
    this.list.replaceChildren();
    this.detail.hidden = true;
    this.classSelect.replaceChildren();
    this.status.textContent = id ? "Evaluating the network…" : this.store.noNetworkText;
    if (!id) return;
    try {
      const analysis = await fetchJson(`/api/runs/${id}/errors`);
      if (this.id !== id) return;
      this.analysis = analysis;
      const data = this.store.run(id)?.data;
      this.isInk = readsHandwriting({ imageShape: analysis.shape, classes: analysis.classes, data });
      this.classSelect.replaceChildren(element("option", { value: "" }, "all"),
        ...analysis.classes.map((name, index) => element("option", { value: String(index) }, name)));
      this.draw();
    } catch (error) {
      if (this.id === id) this.status.textContent = error.message;
    }
  }

  draw() {
    if (!this.analysis) return;
    const { errors } = this.analysis;
    const label = this.classSelect.value;
    const selected = errors.filter((error) => label === "" || String(error.true) === label);
    this.status.textContent = countText(this.analysis, label === "" ? null : Number(label), selected.length);
    this.list.replaceChildren(...selected.map((error) => element("li", {}, this.card(error))));
    this.detail.hidden = !selected.length;
    if (selected.length) this.showDetail(selected[0], this.list.querySelector("button"));
  }

  card(error) {
    const { classes, shape } = this.analysis;
    const canvas = element("canvas", { "aria-hidden": "true" });
    drawImage(canvas, pixelsOf(error), shape, this.isInk);
    const button = element("button", { type: "button", "aria-pressed": "false" }, canvas,
      element("span", {}, predictionText(error, classes)),
      ...[error.predicted, error.true].map((index) => element("span", {}, `${classes[index]}: ${formatPercent(error.probabilities[index])}`)),
      element("span", { class: "note" }, `image ${error.index}`),
      ...(error.disputed ? [element("span", { class: "disputed" }, "label disputed")] : []));
    button.addEventListener("click", () => this.showDetail(error, button));
    return button;
  }

  /** Show one image in detail. */
  showDetail(error, button) {
    const { classes, shape, split } = this.analysis;
    for (const pressed of this.list.querySelectorAll('[aria-pressed="true"]')) pressed.setAttribute("aria-pressed", "false");
    button.setAttribute("aria-pressed", "true");
    const canvas = element("canvas", { role: "img", "aria-label": `${split} image ${error.index}` });
    drawImage(canvas, pixelsOf(error), shape, this.isInk);
    const ranked = classes.map((name, index) => [error.probabilities[index], name]).sort(([a], [b]) => b - a);
    const open = element("button", { type: "button" }, "Open in Draw");
    open.addEventListener("click", () => this.show(this.id, pixelsOf(error), shape));
    this.detail.replaceChildren(canvas, element("div", {},
      element("p", { class: "prediction" }, predictionText(error, classes)),
      element("p", { class: "note" }, `${split} image ${error.index}${error.disputed ? ", label disputed" : ""}`),
      element("ol", { class: "ranked" }, ...ranked.slice(0, MAX_PROBABILITIES).map(([value, name]) => element("li", {}, `${name}: ${formatPercent(value)}`))),
      open));
  }
}

const predictionText = (error, classes) => `label ${classes[error.true]}, predicted ${classes[error.predicted]}`;

/** The pixels of an image, 0..255, channel by channel and line by line. */
const pixelsOf = (error) => Float64Array.from(atob(error.pixels), (character) => character.charCodeAt(0));

/** How many images are misclassified and how many of them are listed, with one label or in all. */
function countText({ errors, total, correct, split, classes }, label, numListed) {
  const number = (count) => count.toLocaleString("en");
  const wrong = total - correct;
  if (!wrong) return `All ${number(total)} ${split} images are classified correctly.`;
  const is = wrong === 1 ? "is" : "are";
  let text = `${number(wrong)} of ${number(total)} ${split} images ${is} misclassified, sorted by the probability of the label, lowest first.`;
  if (wrong > errors.length) text += ` The first ${number(errors.length)} are listed.`;
  if (label !== null) text += ` Listed with label ${classes[label]}: ${number(numListed)}.`;
  return text;
}
