"""Seconds of the published networks: in the write-ups' own loop, and under the recipes of uplift.

    python benchmarks/uplift.py               about 5 minutes
    python benchmarks/uplift.py --repeats 3

Nothing else may run on the machine meanwhile. An epoch of each is taken in turn, so a machine whose
speed drifts changes all three; a whole training is so many epochs. The median of the ratios counts.
Writes records/uplift/seconds.json, which `records/reproduce.py uplift --tables` shows.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
from pathlib import Path

import torch

from table import EPOCH_GOALS, NOTEBOOK_STEPS, notebook_epoch, whit_epoch
from whit.recipes.recipe import load_recipe

UPLIFT = Path(__file__).parents[1] / "records" / "uplift"


def trainings(published: str, better: Path) -> tuple[float, float, float]:
    """Seconds of three whole trainings: the notebook's, whit's as published, whit's better one."""
    epochs = load_recipe(published).train.epochs
    return (
        epochs * notebook_epoch(published, NOTEBOOK_STEPS[published]),
        epochs * whit_epoch(published, "auto"),
        load_recipe(better).train.epochs * whit_epoch(str(better), "auto"),
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=1, help="of each network's three")
    given = parser.parse_args()
    rows = {}
    for published in EPOCH_GOALS:
        better = UPLIFT / f"{published.replace('published', 'uplift')}.toml"
        taken = [trainings(published, better) for _ in range(given.repeats)]
        notebook, as_published, uplift = (
            statistics.median(column) for column in zip(*taken, strict=True)
        )
        rows[published] = {
            "notebook": round(notebook, 1),
            "published": round(as_published, 1),
            "uplift": round(uplift, 1),
            "ratio": round(statistics.median(ours / theirs for theirs, _, ours in taken), 4),
        }
        print(published, rows[published], flush=True)
    machine = (
        f"{torch.cpu.get_capabilities().get('cpu_name')}, {os.cpu_count()} cores, "
        f"{torch.get_num_threads()} threads, torch {torch.__version__}"
    )
    command = f"python benchmarks/uplift.py --repeats {given.repeats}"
    kept = {"command": command, "machine": machine, "seconds": rows}
    (UPLIFT / "seconds.json").write_text(json.dumps(kept, indent=1) + "\n")


if __name__ == "__main__":
    main()
