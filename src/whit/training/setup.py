"""The setup of a run: data, model and objective, checked and on their device."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from whit.data.kept_datasets import load_kept_dataset
from whit.data.loader import Loader
from whit.data.normalization import Normalize, build_normalize
from whit.data.splits import Dataset
from whit.errors import DataError, InputError, ModelError
from whit.models.build import build_initialized_model, materialize_lazy_layers
from whit.models.run_source import describe_copy
from whit.runs.environment import describe_environment
from whit.runs.input_paths import ENVIRONMENT_KEY, record_paths
from whit.training.hardware.device import enable_determinism, tune_malloc
from whit.training.hardware.threads import use_free_cores
from whit.training.optimization.distillation import build_distillation
from whit.training.optimization.objective import Objective, resolve_precision
from whit.training.plan import Plan
from whit.training.state import TrainingState


@dataclass
class RunSetup:
    """Everything that a run needs before it writes: data and model, on their device."""

    plan: Plan
    dataset: Dataset
    normalize: Normalize
    loader: Loader
    state: TrainingState
    objective: Objective
    data_sha256: str
    started: float  # seconds, of time.perf_counter

    def environment(self, threads: int, threads_fixed: bool, run: Path) -> dict[str, Any]:
        """Return what determines the bytes of the run in folder `run`, for environment.json.

        `threads_fixed`: the user chose the number of threads, so that no load changes it.
        """
        source, precision = self.plan.source, self.plan.recipe.train.precision
        return {
            **describe_environment(self.state.device, self.state.seed, threads),
            "threads_fixed": threads_fixed,
            "precision": resolve_precision(precision, self.state.device.type),
            "data_sha256": self.data_sha256,
            "model_sha256": source.sha256 if source else None,
            **(describe_copy(source) if source else {}),
            "teacher_sha256": self.plan.teacher.sha256 if self.plan.teacher else None,
            ENVIRONMENT_KEY: record_paths(self.plan.recipe, run),
        }


@use_free_cores()
def setup_run(plan: Plan, model: nn.Module | None, seed: int, device: torch.device) -> RunSetup:
    """Load the data and build the model. Writes nothing."""
    started = time.perf_counter()
    recipe = plan.recipe
    enable_determinism(device)
    tune_malloc()
    dataset = load_kept_dataset(recipe.data)
    _check_dataset(dataset, plan)
    if recipe.eval.each_epoch == "val" and dataset.val is None:
        raise InputError(
            f'eval.each_epoch = "val", but {recipe.data.name} has no validation split: '
            "set data.val_size, such as 1000."
        )
    normalize = build_normalize(recipe.data, dataset, device)
    if model is None:
        model = build_initialized_model(
            recipe, plan.image_shape, plan.num_classes, seed, plan.source
        )
    else:
        materialize_lazy_layers(model, plan.image_shape, recipe.model.name)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ModelError(f"{recipe.model.name}: no trainable parameters.")
    model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    loader = Loader(
        dataset.train,
        recipe.train.batch_size,
        normalize,
        recipe.augment,
        epochs=recipe.train.epochs,
        seed=seed,
        device=device,
    )
    distillation = None
    if plan.teacher:
        distillation = build_distillation(plan.teacher, recipe, normalize, device)
    state = TrainingState(model, recipe, seed, device)
    objective = Objective(model, recipe, distillation)
    return RunSetup(
        plan, dataset, normalize, loader, state, objective, dataset.fingerprint, started
    )


def _check_dataset(dataset: Dataset, plan: Plan) -> None:
    """Raise DataError when the data differs from the plan."""
    actual = (dataset.image_shape, dataset.num_classes, len(dataset.train))
    planned = (plan.image_shape, plan.num_classes, plan.num_train)
    if actual != planned:
        raise DataError(
            f"{plan.recipe.data.name}: expected images {planned[0]}, {planned[1]} classes and "
            f"{planned[2]} training images, found {actual[0]}, {actual[1]} and {actual[2]}."
        )
