// All runs and studies: a table to sort and filter, overlaid curves, accuracy against parameters.

import { lines, MAX_SERIES, scatter, scatterLegend, swatch } from "./chart.js";
import { element } from "./panel.js";
import { formatAccuracy, fetchJson, describeRun } from "./store.js";

// Created once: creating one takes longer than a row of the table.
const MOMENT = new Intl.DateTimeFormat([], { dateStyle: "short", timeStyle: "short" });
const NUMBER = new Intl.NumberFormat("en");
const grouped = (number) => (number === null ? "" : NUMBER.format(number));
const FIRST_ROWS = 50; // added before the browser is given a turn

// How each kind of column is sorted and formatted; numbers are right-aligned, largest first.
const KINDS = {
  name: { text: (run) => run.name || run.path },
  text: {},
  state: { text: (run) => (run.state === "finished" ? run.verdict : run.state) },
  plain: { isNumber: true },
  grouped: { isNumber: true, text: (run, key) => grouped(run[key]) },
  percent: { isNumber: true, value: (run) => (run.total ? run.correct / run.total : null), text: formatAccuracy },
  seconds: { isNumber: true, text: (run, key) => (run[key] === null ? "" : run[key].toFixed(1)) },
  time: { isNumber: true, text: (run, key) => (run[key] ? MOMENT.format(1000 * run[key]) : "") },
};
const COLUMNS = (await fetchJson("/page/columns.json")).map((column) => ({ ...column, ...KINDS[column.kind] }));
const MEASURES = {
  "training loss": (row) => row.loss,
  "training accuracy, %": (row) => (100 * row.correct) / row.total,
  "test or val accuracy, %": (row) => firstPercent(row.evaluations),
  "learning rate": (row) => row.lr,
};
const firstPercent = (evaluations) => (evaluations.length ? (100 * evaluations[0].correct) / evaluations[0].total : NaN);
const ANCHOR_DATA = "mnist"; // of the published results

export class RunsView {
  constructor(root, store, goTo) {
    this.store = store;
    this.goTo = goTo;
    this.order = { key: "changed", down: true };
    this.selected = []; // ids whose curves are drawn
    this.logs = new Map();
    this.filter = element("input", { type: "search", placeholder: "name, path, verdict" });
    this.filter.addEventListener("input", () => this.drawTable());
    this.count = element("p", { class: "note", role: "status" });
    this.studies = element("div");
    // The roles are those of the elements: a narrow page displays rows as blocks, without them.
    this.head = element("tr", { role: "row" });
    this.body = element("tbody", { role: "rowgroup" });
    const table = element("table", { class: "list runs", role: "table" },
      element("caption", {}, "Select runs to overlay their curves."),
      element("thead", { role: "rowgroup" }, this.head), this.body);
    this.curves = element("div", { class: "plots" });
    this.legend = element("ul", { class: "legend" });
    this.scatter = element("figure", { class: "plot card" });
    this.dataSelect = element("select", {});
    this.dataLabel = element("p", { class: "choose" }, element("label", {}, "Data set ", this.dataSelect));
    this.dataSelect.addEventListener("change", () => this.drawScatter());
    this.anchors = [];
    fetchJson("/page/anchors.json").then((anchors) => {
      this.anchors = anchors;
      this.drawScatter();
    }).catch(() => {});
    root.append(
      element("p", { class: "choose" }, element("label", {}, "Filter ", this.filter)), this.count,
      element("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Table of runs" }, table),
      element("h3", {}, "Curves"), this.legend, this.curves,
      element("h3", {}, "Studies"), this.studies,
      element("h3", {}, "Accuracy against parameters"), this.dataLabel, this.scatter,
    );
  }

  refresh() {
    if (!this.store.isLoaded) return;
    const known = new Set(this.store.runs.map(({ id }) => id));
    this.selected = this.selected.filter((id) => known.has(id));
    this.drawTable();
    this.drawStudies();
    this.drawScatter();
    this.drawCurves();
  }

  /** The runs that match the filter, sorted. */
  filteredRuns() {
    const query = this.filter.value.trim().toLowerCase();
    const text = (run) => [run.name, run.path, run.state, run.verdict, run.differs].join(" ").toLowerCase();
    const runs = this.store.runs.filter((run) => text(run).includes(query));
    const column = COLUMNS.find(({ key }) => key === this.order.key);
    const value = column.value || ((run) => run[column.key]);
    const sign = this.order.down ? -1 : 1;
    return runs.sort((a, b) => {
      const [left, right] = [value(a), value(b)];
      if (left === null || right === null) return (left === null) - (right === null);
      return sign * (left < right ? -1 : left > right ? 1 : 0) || (a.path < b.path ? -1 : 1);
    });
  }

  drawTable() {
    const focused = document.activeElement && document.activeElement.dataset.key;
    this.head.replaceChildren(
      element("th", { scope: "col", class: "select", role: "columnheader" }, "curves"),
      ...COLUMNS.map((column) => this.heading(column)),
      element("th", { scope: "col", class: "open", role: "columnheader" }, "open"),
    );
    const runs = this.filteredRuns();
    this.fillBody(runs);
    const all = this.store.runs.length;
    this.count.textContent = all === 0
      ? "No runs yet. Start one with `whit train`."
      : `${runs.length} of ${all} runs${this.store.isComplete === false ? "; only the first runs found are listed" : ""}.`;
    if (focused) document.querySelector(`[data-key="${CSS.escape(focused)}"]`)?.focus();
  }

  /** Show the first rows at once, the others in the browser's next turn. */
  fillBody(runs) {
    const turn = (this.filling = (this.filling || 0) + 1);
    this.body.replaceChildren(...runs.slice(0, FIRST_ROWS).map((run) => this.row(run)));
    setTimeout(() => {
      if (turn === this.filling) this.body.append(...runs.slice(FIRST_ROWS).map((run) => this.row(run)));
    });
  }

  heading(column) {
    const mine = this.order.key === column.key;
    const button = element("button", { type: "button", "data-key": `sort ${column.key}` },
      `${column.heading}${mine ? (this.order.down ? " ↓" : " ↑") : ""}`);
    button.addEventListener("click", () => {
      this.order = { key: column.key, down: mine ? !this.order.down : Boolean(column.isNumber) };
      this.drawTable();
    });
    const sorted = mine ? (this.order.down ? "descending" : "ascending") : "none";
    const cell = element("th", { scope: "col", role: "columnheader", "aria-sort": sorted, class: `${column.key} ${column.isNumber ? "number" : ""}` }, button);
    cell.style.inlineSize = column.width; // as the policy forbids an attribute
    return cell;
  }

  row(run) {
    const box = element("input", {
      type: "checkbox", "aria-label": `curves of ${describeRun(run)}`, "data-key": run.id,
      checked: this.selected.includes(run.id), disabled: ["damaged", "edited"].includes(run.state),
    });
    box.addEventListener("change", () => this.toggle(run.id, box));
    const cells = COLUMNS.map((column) => {
      const text = column.text ? column.text(run, column.key) : run[column.key] ?? "";
      if (column.kind === "name") {
        const path = element("span", { class: "path" }, run.message || run.path);
        return element("th", { scope: "row", role: "rowheader", class: "name" }, String(text), path);
      }
      const kind = column.isNumber ? "number" : column.kind === "state" ? String(text) : "";
      const isEmpty = text === "" || text === null || text === undefined;
      return element("td", { role: "cell", class: kind, "data-heading": isEmpty ? null : column.heading }, String(text ?? ""));
    });
    const open = element("td", { role: "cell", class: "open" });
    if (run.state !== "damaged") open.append(element("a", { href: `/runs/${run.id}/report`, "aria-label": `report of ${describeRun(run)}` }, "report"));
    if (this.store.hasNetwork(run)) {
      for (const view of ["draw", "errors"]) {
        open.append(" ", this.link(view, run));
      }
    }
    return element("tr", { role: "row" }, element("td", { role: "cell", class: "select" }, box), ...cells, open);
  }

  link(view, run) {
    const link = element("a", { href: `#${view}`, "aria-label": `${view}: ${describeRun(run)}` }, view);
    link.addEventListener("click", () => this.goTo(view, run.id));
    return link;
  }

  toggle(id, box) {
    if (!box.checked) this.selected = this.selected.filter((other) => other !== id);
    else if (this.selected.length < MAX_SERIES) this.selected.push(id);
    else box.checked = false;
    this.drawCurves();
  }

  async drawCurves() {
    const turn = (this.turn = (this.turn || 0) + 1);
    const runs = this.selected.map((id) => this.store.run(id)).filter(Boolean);
    for (const run of runs) {
      const known = this.logs.get(run.id);
      if (known && known.changed === run.changed) continue;
      try {
        const { log } = await fetchJson(`/api/runs/${run.id}`);
        this.logs.set(run.id, { changed: run.changed, log });
      } catch (error) {
        this.logs.set(run.id, { changed: run.changed, log: [], message: error.message });
      }
    }
    if (turn !== this.turn) return;
    this.legend.replaceChildren(...runs.map((run, index) => {
      const { message } = this.logs.get(run.id);
      return element("li", {}, swatch(index), message ? `${describeRun(run)}: ${message}` : describeRun(run));
    }));
    if (!runs.length) {
      this.legend.replaceChildren(element("li", {}, "No run selected."));
    }
    const pictures = Object.entries(MEASURES).map(([label, measure]) => {
      const series = runs.map((run) => ({
        name: describeRun(run),
        points: this.logs.get(run.id).log.map((row) => [row.epoch, measure(row)]),
      }));
      const svg = lines(label, series);
      return svg && element("figure", { class: "plot card" }, element("figcaption", {}, label), svg);
    });
    this.curves.replaceChildren(...pictures.filter(Boolean));
  }

  drawStudies() {
    if (!this.store.studies.length) {
      this.studies.replaceChildren(element("p", { class: "note" }, "No studies yet. Start one with `whit study sprint --seeds 10`."));
      return;
    }
    const labels = ["study", "seeds", "mean %", "± sd", "min %", "max %", "met", "split", "parameters", "epochs"];
    const roundDown = (value) => (value === null ? "" : (Math.floor(1000 * value + 1e-6) / 1000).toFixed(3));
    const rows = this.store.studies.map((study) => element("tr", { role: "row" },
      element("th", { scope: "row", role: "rowheader", class: "name" }, study.name, element("span", { class: "path" }, study.path)),
      ...[
        study.finished, roundDown(study.mean), study.sd === null ? "" : study.sd.toFixed(3), roundDown(study.min), roundDown(study.max),
        study.met === null ? "" : `${study.met}/${study.judged}`, study.split, grouped(study.params), study.epochs,
      ].map((text, index) => element("td", {
        role: "cell", class: "number", "data-heading": text === "" || text === null ? null : labels[index + 1],
      }, String(text ?? "")))));
    this.studies.replaceChildren(element("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Table of studies" },
      element("table", { class: "list studies", role: "table" }, element("caption", {}, "One recipe over several seeds, after the last epoch."),
        element("thead", { role: "rowgroup" }, element("tr", { role: "row" },
          ...labels.map((label, index) => element("th", { scope: "col", role: "columnheader", class: index ? "number" : "" }, label)))),
        element("tbody", { role: "rowgroup" }, ...rows))));
  }

  /** Test accuracy against parameters on one data set: other sets have other accuracies. */
  drawScatter() {
    const runs = this.store.runs.filter(({ split, total, study }) => split === "test" && total && !study);
    const studies = this.store.studies.filter(({ split, mean }) => split === "test" && mean !== null);
    const names = [...new Set([...runs, ...studies].map(({ data }) => data))];
    const count = (name) => this.store.runs.filter(({ data }) => data === name).length;
    names.sort((a, b) => count(b) - count(a));
    const current = names.includes(this.dataSelect.value) ? this.dataSelect.value : names[0] || ANCHOR_DATA;
    this.dataSelect.replaceChildren(...names.map((name) => element("option", {}, name)));
    this.dataSelect.value = current;
    this.dataLabel.hidden = names.length < 2;
    const anchors = current === ANCHOR_DATA ? this.anchors : [];
    const svg = scatter([
      ...anchors.map((anchor) => ({ ...anchor, kind: "published" })),
      ...runs.filter(({ data }) => data === current).map((run) => (
        { kind: "run", name: describeRun(run), params: run.params, accuracy: (100 * run.correct) / run.total })),
      ...studies.filter(({ data }) => data === current).map((study) => (
        { kind: "study", name: study.name, params: study.params, accuracy: study.mean })),
    ]);
    const hasStudy = studies.some(({ data }) => data === current);
    const shown = { run: true, study: hasStudy, published: anchors.length > 0 };
    const legend = scatterLegend().filter(([, , kind]) => shown[kind]);
    this.scatter.replaceChildren(...(svg ? [
      element("figcaption", {}, `Test accuracy on ${current} after the last epoch${anchors.length ? ", with published results" : ""}.`), svg,
      element("ul", { class: "legend" }, ...legend.map(([mark, text]) => element("li", {}, mark, text))),
    ] : []));
  }
}
