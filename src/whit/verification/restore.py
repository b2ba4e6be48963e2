"""A finished run loaded again: its weights in its model, with the data it was trained on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor, nn

from whit.analysis import audit_model
from whit.data.datasets import load_dataset
from whit.data.normalization import Normalize, build_normalize
from whit.data.splits import Dataset, Split
from whit.errors import InputError
from whit.models.build import load_model
from whit.models.run_source import explain_misfit
from whit.models.tta import with_tta
from whit.models.user_code import Source
from whit.recipes.budget import Metrics
from whit.recipes.recipe import Recipe
from whit.runs import layout
from whit.runs.reader import RunRecord, weights_problem
from whit.runs.result import RunResult, history_rows
from whit.system.display.records import Records
from whit.training.evaluation import predict
from whit.training.hardware.threads import use_free_cores
from whit.training.outcome import best_epoch
from whit.training.plan import find_source


@dataclass(frozen=True, repr=False)
class LoadedRun:
    """A network on the CPU in evaluation mode, channels last, and its data."""

    run: RunRecord
    model: nn.Module
    dataset: Dataset
    normalize: Normalize
    source: Source | None = None  # of a user's own model

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

    @property
    def folder(self) -> Path:
        return self.run.path

    @property
    def recipe(self) -> Recipe:
        return self.run.recipe

    @property
    def history(self) -> Records:
        """One dict an epoch, as of `RunResult.history`."""
        return history_rows(self.run.log)

    @cached_property
    @use_free_cores()
    def result(self) -> RunResult:
        """The recorded result, as training returned it; `whit.audit` recomputes it instead."""
        run, stored = self.run, self.run.result
        assert stored is not None
        audit = audit_model(self.model, self.dataset.image_shape, self.dataset.num_classes)
        last = run.log[-1].evaluations if run.log else ()
        test = run.final_evaluation if run.recipe.eval.test else None
        if test:
            seconds = next((e.seconds for e in last if e.split == "test"), 0.0)
            test = replace(test, seconds=seconds)
        metrics = replace(
            Metrics.from_audit(audit, run.recipe.eval.forward_passes),
            params=stored["params"],
            epochs=Fraction(stored["epochs"]),
            correct=test.correct if test else None,
            total=test.total if test else None,
            leaked=self.dataset.overlap,
        )
        budget = run.recipe.budget.to_budget()
        num_evaluations = sum(e.split == "test" for record in run.log for e in record.evaluations)
        return RunResult(
            verdict=stored["verdict"],
            violations=budget.violations(metrics),
            params=stored["params"],
            epochs=Fraction(stored["epochs"]),
            test=test,
            test_evaluations=num_evaluations,
            best=best_epoch(list(run.log)),
            seconds_train=sum(record.seconds for record in run.log),
            seconds_total=stored["seconds"]["total"],
            images_seen=run.log[-1].images_seen if run.log else 0,
            seed=run.seed or 0,
            weights_sha256=stored["weights_sha256"],
            notes=tuple(map(str, stored.get("notes") or ())),
            optimizer_sha256=str(stored.get("optimizer_sha256", "")),
            accepted_changes=tuple(stored.get("accepted_changes", ())),
            teacher=stored.get("teacher"),
            budget=budget,
            metrics=metrics,
            folder=run.path,
            records=run.log,
        )

    def predict(self, images: Tensor | npt.NDArray[Any]) -> Tensor:
        """Return the class of each image, int64 (N,).

        `images` are pixels as the data set has them, uint8 (N, C, H, W), or (N, H, W) of one
        channel. Raises InputError for others.
        """
        return self.logits(images).argmax(1)

    def logits(self, images: Tensor | npt.NDArray[Any]) -> Tensor:
        """Return the logits, float32 (N, K), of images as `predict` takes them."""
        pixels = torch.as_tensor(images)
        shape = self.dataset.image_shape
        if pixels.ndim == 3 and shape[0] == 1:
            pixels = pixels[:, None]
        if pixels.dtype != torch.uint8 or pixels.ndim != 4 or tuple(pixels.shape[1:]) != shape:
            raise InputError(
                f"images: expected uint8 (N, {', '.join(map(str, shape))}), found "
                f"{str(pixels.dtype).removeprefix('torch.')} {tuple(pixels.shape)}."
            )
        labels = torch.zeros(len(pixels), dtype=torch.int64)
        return predict(self.predictor, Split("test", pixels.contiguous(), labels), self.normalize)

    def __repr__(self) -> str:
        return f"LoadedRun({str(self.folder)!r})"

    def _repr_html_(self) -> str:
        return self.result._repr_html_()


@use_free_cores()
def load_run_model(run: RunRecord, model: nn.Module | None = None) -> LoadedRun:
    """Build the run's network, load its weights and its data.

    `model` is the network of a run whose model was passed in Python. Executes a user's model file.
    Raises InputError when the run has no weights or they do not fit, ModelError when the network
    cannot be built, DataError when the data set is missing.
    """
    source, recipe = find_source(run), run.local_recipe
    if problem := weights_problem(run):
        raise InputError(f"{run.path}: {problem}: no network to load.")
    try:
        model = load_model(recipe, run.path / layout.WEIGHTS, model, run.seed or 0, source)
    except InputError as error:
        raise explain_misfit(error, run.path, run.environment, source) from None
    model.to("cpu", memory_format=torch.channels_last)  # type: ignore[call-overload]
    dataset = load_dataset(recipe.data)
    normalize = build_normalize(recipe.data, dataset, torch.device("cpu"))
    return LoadedRun(run, model.eval(), dataset, normalize, source)
