// What the server knows of runs and studies, asked again every two seconds.

const PAUSE = 2000;

/** Ask for JSON; an answer that is none becomes an Error with the server's own words. */
export async function ask(address) {
  const response = await fetch(address, { cache: "no-cache" });
  const value = await response.json().catch(() => ({ error: `${response.status} ${response.statusText}` }));
  if (!response.ok) throw new Error(value.error);
  return value;
}

export class Store {
  constructor(told) {
    this.runs = [];
    this.studies = [];
    this.told = told; // called with null or what is wrong
    this.changed = () => {}; // called whenever the list of runs is another
    this.text = "";
  }

  get isLoaded() {
    return this.text !== "";
  }

  run(id) {
    return this.runs.find((run) => run.id === id);
  }

  async begin() {
    for (;;) {
      await this.refresh();
      await new Promise((resolve) => setTimeout(resolve, PAUSE));
    }
  }

  async refresh() {
    try {
      const value = await ask("/api/runs");
      this.told(null);
      const text = JSON.stringify(value);
      if (text === this.text) return;
      this.text = text;
      Object.assign(this, { runs: value.runs, studies: value.studies, roots: value.roots, isWhole: value.is_whole });
      this.changed();
    } catch (error) {
      this.told(`The server does not answer: ${error.message}`);
    }
  }
}

/** A run in a few words: its name, seed and what it reached. */
export function titleOf(run) {
  const seed = run.seed === null ? "" : `, seed ${run.seed}`;
  return `${run.name || run.path}${seed}${run.total ? `, ${accuracyOf(run)} %` : ""}`;
}

/** Percent with two digits, never rounded up. */
export function accuracyOf({ correct, total }) {
  if (!total) return "";
  const hundredths = Number((10000n * BigInt(correct)) / BigInt(total));
  return (hundredths / 100).toFixed(2);
}

/** Whether a run's network can be had: finished, whole, and not made by a user's own file. */
export const hasNetwork = (run) => run.has_weights && !run.own_model;
