// The server's list of runs and studies, polled every two seconds.

import { element } from "./panel.js";

const POLL_MS = 2000;
const DIGITS = "mnist"; // the built-in data set
const MAX_CANDIDATES = 6;

/** Fetch JSON; an error response becomes an Error with the server's message. */
export async function fetchJson(url) {
  const response = await fetch(url, { cache: "no-cache" });
  const value = await response.json().catch(() => ({ error: `${response.status} ${response.statusText}` }));
  if (!response.ok) throw new Error(value.error);
  return value;
}

export class Store {
  constructor(onStatus) {
    this.runs = [];
    this.studies = [];
    this.onStatus = onStatus; // called with null or an error message
    this.onChange = () => {}; // called whenever the list of runs has changed
    this.json = ""; // of the last response
  }

  get isLoaded() {
    return this.json !== "";
  }

  run(id) {
    return this.runs.find((run) => run.id === id);
  }

  async begin() {
    for (;;) {
      await this.refresh();
      await new Promise((resolve) => setTimeout(resolve, POLL_MS));
    }
  }

  async refresh() {
    try {
      const value = await fetchJson("/api/runs");
      this.onStatus(null);
      const json = JSON.stringify(value);
      if (json === this.json) return;
      this.json = json;
      const { runs, studies, roots, is_complete: isComplete, trust_model_files: trustsModelFiles } = value;
      Object.assign(this, { runs, studies, roots, isComplete, trustsModelFiles });
      this.onChange();
    } catch (error) {
      this.onStatus(`No response from the server: ${error.message}`);
    }
  }

  /** The runs whose networks can be loaded, by data set: the set with most runs first. */
  networksByData() {
    const groups = new Map();
    for (const run of this.runs.filter((other) => this.hasNetwork(other))) {
      groups.set(run.data, [...(groups.get(run.data) || []), run]);
    }
    const accuracy = (run) => (run.total ? run.correct / run.total : 0);
    for (const runs of groups.values()) runs.sort((a, b) => accuracy(b) - accuracy(a));
    return [...groups].sort(([, a], [, b]) => b.length - a.length);
  }

  /**
   * The runs to try at first: the most accurate one of each data set, digits first, as the data of
   * a set may be missing; then the next ones, as the files of a run may be damaged.
   */
  firstCandidates() {
    const groups = this.networksByData().sort(([a], [b]) => (b === DIGITS) - (a === DIGITS));
    const ranks = groups.flatMap(([, runs], group) => runs.map(({ id }, rank) => ({ id, rank, group })));
    ranks.sort((a, b) => a.rank - b.rank || a.group - b.group);
    return ranks.slice(0, MAX_CANDIDATES).map(({ id }) => id);
  }

  /** Whether a run's network can be loaded: finished, with weights, its code trusted. */
  hasNetwork(run) {
    return run.has_weights && (!run.user_model || this.trustsModelFiles);
  }

  /** Why no run has a network that can be loaded. */
  get noNetworkText() {
    if (!this.isLoaded) return "Loading the list of runs…";
    if (this.runs.some((run) => run.has_weights)) {
      return "All finished runs use model files of your own. `whit serve --trust-model-files` executes these files.";
    }
    return "No finished run yet. Start one with `whit train`.";
  }
}

/** The options of a selection of runs, grouped where there are several data sets. */
export function runOptions(groups) {
  const options = (runs) => runs.map((run) => element("option", { value: run.id }, describeRun(run)));
  if (groups.length < 2) return groups.flatMap(([, runs]) => options(runs));
  return groups.map(([data, runs]) => element("optgroup", { label: data }, ...options(runs)));
}

/** A run's name, seed and accuracy. */
export function describeRun(run) {
  const seed = run.seed === null ? "" : `, seed ${run.seed}`;
  return `${run.name || run.path}${seed}${run.total ? `, ${formatAccuracy(run)} %` : ""}`;
}

/** Percent with two digits, never rounded up. */
export function formatAccuracy({ correct, total }) {
  if (!total) return "";
  const hundredths = Number((10000n * BigInt(correct)) / BigInt(total));
  return (hundredths / 100).toFixed(2);
}
