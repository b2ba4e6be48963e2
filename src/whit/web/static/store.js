// The server's list of runs and studies, polled every two seconds.

const POLL_MS = 2000;

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
      Object.assign(this, { runs: value.runs, studies: value.studies, roots: value.roots, isComplete: value.is_whole });
      this.onChange();
    } catch (error) {
      this.onStatus(`The server does not answer: ${error.message}`);
    }
  }
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

/** Whether a run's network can be loaded: finished, with weights, and not of a user's own file. */
export const hasNetwork = (run) => run.has_weights && !run.own_model;
