"""What recipes name beside themselves, and what of that is another since runs of them ended."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from whit.data.datasets import DATASETS, load_dataset
from whit.doing import teacher_sha256
from whit.recipe import Recipe
from whit.run_record import RunRecord
from whit.sameness import DECIDING, changes_between
from whit.trained import inputs_now


class Inputs:
    """The digests of models, teachers and data as they are now, each read once."""

    def __init__(self) -> None:
        self._load = cache(load_dataset)
        self._found: dict[tuple[Any, ...], dict[str, str]] = {}

    def of(self, recipe: Recipe, *, with_data: bool) -> dict[str, str]:
        """Return the digests of what a recipe names, under the keys of environment.json.

        Of data only `with_data`, and of none that is shipped: that is verified whenever it is
        loaded. Raises DataError, ModelError or InputError for what is not there.
        """
        data = recipe.data
        known = (recipe.model.name, data, recipe.distill, with_data)
        if known not in self._found:
            read = with_data and data.name not in DATASETS
            found = inputs_now(recipe, self._load(data.name, val=data.val) if read else None)
            if teacher := teacher_sha256(recipe):
                found["teacher_sha256"] = teacher
            self._found[known] = found
        return self._found[known]


def changed(runs: Sequence[RunRecord], now: dict[str, str]) -> Counter[str]:
    """Count the runs that were made from something else, by what that is."""
    counts: Counter[str] = Counter()
    for run in runs:
        accepted = (run.result or {}).get("changes", ())
        for change in changes_between(run.environment, run.environment | now, accepted):
            # The first runs did not note all of them.
            if change["what"] in now and change["before"] is not None:
                counts[change["what"]] += 1
    return counts


def said_of(folder: Path, counts: Counter[str], what: str) -> list[str]:
    """Return a sentence for each that changed; `what` are the runs there, as `seeds`."""
    return [
        f"{folder}: {DECIDING[key]} changed since {count} of its {what} "
        f"{'was' if count == 1 else 'were'} trained. Give another --out, remove the folder, or "
        "add --accept-changes to keep them."
        for key, count in counts.items()
    ]
