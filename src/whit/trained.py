"""A finished run as a network again: its weights in its model, beside the data it was made for."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from whit.data.datasets import load_dataset
from whit.data.loader import Normalise, data_normalise
from whit.data.splits import Dataset, Split
from whit.errors import InputError
from whit.model_ref import reject_code_in_run
from whit.models.build import load_model
from whit.models.user_code import user_model_sha256
from whit.recipe import Recipe
from whit.run_record import RunRecord, why_no_weights


@dataclass(frozen=True)
class Trained:
    """A network on the processor in evaluation mode, channels last, and what it reads."""

    run: RunRecord
    model: nn.Module
    dataset: Dataset
    normalise: Normalise

    @property
    def split(self) -> Split:
        """The split that the run was judged on: `test`, or `val` where test is left alone."""
        if self.run.recipe.train.test:
            return self.dataset.test
        if self.dataset.val is None:
            raise InputError(f"{self.run.path}: judged on neither test nor val images.")
        return self.dataset.val


def inputs_now(recipe: Recipe, dataset: Dataset | None) -> dict[str, str]:
    """Return the digests of a recipe's own model and of its data, under environment.json's keys."""
    found = {}
    if own := user_model_sha256(recipe.model.name):
        found["model_sha256"] = own
    if dataset:
        found["data_sha256"] = dataset.fingerprint
    return found


def load_trained(run: RunRecord, model: nn.Module | None = None) -> Trained:
    """Build the run's network, put its weights into it and load its data.

    `model` is the network of a run that was given one in Python. Runs a user's own model file.
    Raises InputError when the run has no weights or they do not fit, ModelError when the network
    cannot be built, DataError when the data set is not there.
    """
    reject_code_in_run(run.recipe.model.name, run.path)
    problem = why_no_weights(run)
    if problem:
        raise InputError(f"{run.path}: {problem}, so there is no network to go on with.")
    recipe = run.recipe
    model = load_model(recipe, run.path / "weights.safetensors", model, run.seed or 0)
    model.to("cpu", memory_format=torch.channels_last)  # type: ignore[call-overload]
    dataset = load_dataset(recipe.data.name, val=recipe.data.val)
    normalise = data_normalise(recipe.data, dataset, torch.device("cpu"))
    return Trained(run, model.eval(), dataset, normalise)
