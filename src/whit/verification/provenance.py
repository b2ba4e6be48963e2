"""Digests of the inputs of runs (model, data, teacher) and what changed since training."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from whit.data.datasets import DATASETS, load_dataset
from whit.data.splits import Dataset
from whit.models.run_source import read_model_source
from whit.models.user_code import Source
from whit.recipes.recipe import Recipe
from whit.runs.compatibility import REPRODUCIBILITY_KEYS, Change, diff_environments
from whit.runs.reader import RunRecord
from whit.runs.teacher import load_teacher


class InputDigests:
    """The current digests of models, teachers and data, each read once."""

    def __init__(self) -> None:
        self._load = cache(load_dataset)
        self._known: dict[tuple[Any, ...], dict[str, str]] = {}

    def read(self, recipe: Recipe, *, with_data: bool) -> dict[str, str]:
        """Return `current_digests` of a recipe.

        That of the data only `with_data`, and not of built-in data sets, which are verified when
        they are loaded. Raises DataError, ModelError or InputError for missing inputs.
        """
        data = recipe.data
        key = (recipe.model.name, recipe.model.run_whole_file, data, recipe.distill, with_data)
        if key not in self._known:
            is_read = with_data and data.name not in DATASETS
            dataset = self._load(data) if is_read else None
            self._known[key] = current_digests(recipe, dataset)
        return self._known[key]


def current_digests(
    recipe: Recipe,
    dataset: Dataset | None = None,
    *,
    with_teacher: bool = True,
    source: Source | None = None,
) -> dict[str, str]:
    """Return the SHA-256 of a user's model, of the data and of the teacher's weights.

    The keys are those of environment.json; inputs that a recipe does not have are omitted. `source`
    is the code of the model, if it was read already. Raises SourceError or
    InputError for a model or a teacher that is missing.
    """
    digests = {}
    if source := source or read_model_source(recipe.model):
        digests["model_sha256"] = source.sha256
    if dataset:
        digests["data_sha256"] = dataset.fingerprint
    if with_teacher and (teacher := load_teacher(recipe)):
        digests["teacher_sha256"] = teacher.sha256
    return digests


def diff_inputs(
    run: RunRecord, digests: dict[str, str], accepted: Sequence[Change] = ()
) -> list[Change]:
    """Return which `digests` differ from those of a run; `before` is None if it recorded none."""
    changes = diff_environments(run.environment, run.environment | digests, accepted)
    return [change for change in changes if change["what"] in digests]


def count_changed(runs: Sequence[RunRecord], digests: dict[str, str]) -> Counter[str]:
    """Count the runs that were trained with other inputs, by input."""
    counts: Counter[str] = Counter()
    for run in runs:
        changes = diff_inputs(run, digests, (run.result or {}).get("accepted_changes", ()))
        # Runs of the first versions did not record all of them.
        counts.update(change["what"] for change in changes if change["before"] is not None)
    return counts


def format_changes(folder: Path, counts: Counter[str], runs: str) -> list[str]:
    """Return a sentence for each input that changed; `runs` names the runs, such as `seeds`."""
    return [
        f"{folder}: {REPRODUCIBILITY_KEYS[key]} changed since {count} of its {runs} "
        f"{'was' if count == 1 else 'were'} trained. Give another --out, remove the folder, or "
        "add --allow-changes to use them anyway."
        for key, count in counts.items()
    ]
