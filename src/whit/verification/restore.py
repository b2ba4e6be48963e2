"""A finished run as a network again: its weights in its model, beside the data it was made for."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from whit.data.datasets import load_dataset
from whit.data.normalization import Normalize, build_normalize
from whit.data.splits import Dataset, Split
from whit.errors import InputError
from whit.models.build import load_model
from whit.models.tta import with_tta
from whit.recipes.model_ref import reject_code_in_run
from whit.runs import layout
from whit.runs.reader import RunRecord, weights_problem


@dataclass(frozen=True)
class LoadedRun:
    """A network on the CPU in evaluation mode, channels last, and the data that it was made for."""

    run: RunRecord
    model: nn.Module
    dataset: Dataset
    normalize: Normalize

    @property
    def predictor(self) -> nn.Module:
        """The network as it is evaluated: with the recipe's test-time augmentation."""
        return with_tta(self.model, self.run.recipe.eval.tta_shifts)

    @property
    def split(self) -> Split:
        """The split that the run is evaluated on: `test`, or `val` if its recipe omits test."""
        if self.run.recipe.eval.test:
            return self.dataset.test
        if self.dataset.val is None:
            raise InputError(f"{self.run.path}: evaluated on neither test nor val.")
        return self.dataset.val


def load_run_model(run: RunRecord, model: nn.Module | None = None) -> LoadedRun:
    """Build the run's network, put its weights into it and load its data.

    `model` is the network of a run that was given one in Python. Runs a user's own model file.
    Raises InputError when the run has no weights or they do not fit, ModelError when the network
    cannot be built, DataError when the data set is missing.
    """
    reject_code_in_run(run.recipe.model.name, run.path)
    if problem := weights_problem(run):
        raise InputError(f"{run.path}: {problem}, so there is no network to load.")
    recipe = run.recipe
    model = load_model(recipe, run.path / layout.WEIGHTS, model, run.seed or 0)
    model.to("cpu", memory_format=torch.channels_last)  # type: ignore[call-overload]
    dataset = load_dataset(recipe.data.name, val=recipe.data.val_size)
    normalize = build_normalize(recipe.data, dataset, torch.device("cpu"))
    return LoadedRun(run, model.eval(), dataset, normalize)
