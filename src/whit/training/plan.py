"""The plan of a run: its network, steps and predicted verdict, before any data is read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from math import prod
from typing import Any

from torch import nn

from whit.analysis import Audit, audit_model
from whit.data.datasets import probe_dataset
from whit.data.loader import count_batches
from whit.errors import InputError, ModelError
from whit.models.build import build_initialized_model
from whit.models.registry import in_memory_spec
from whit.models.run_source import find_run_source, read_model_source
from whit.models.user_code import Source
from whit.recipes.budget import BudgetInfeasible, Metrics, Verdict, Violation
from whit.recipes.recipe import Recipe
from whit.runs.input_paths import input_paths
from whit.runs.reader import RunRecord
from whit.runs.result import (
    budget_json,
    forward_passes_text,
    pending_reason,
    verdict_html,
    verdict_text,
)
from whit.runs.teacher import Teacher, load_teacher
from whit.system.display.html_tables import html_block, html_text
from whit.system.numbers import exact_decimal
from whit.system.text_tables import wrap
from whit.training.hardware.threads import use_free_cores


@dataclass(frozen=True, repr=False)
class Plan:
    """A recipe with its audited model, its number of steps and its predicted verdict.

    `num_train` counts the images of the training split, without those held out for `val`.
    """

    recipe: Recipe
    audit: Audit
    image_shape: tuple[int, int, int]
    num_classes: int
    num_train: int
    teacher: Teacher | None = None
    source: Source | None = None  # of a user's own model: the code that is trained

    @property
    def images_per_epoch(self) -> int:
        return self.recipe.images_per_epoch(self.num_train)

    @property
    def steps_per_epoch(self) -> int:
        return count_batches(self.images_per_epoch, self.recipe.train.batch_size)

    @property
    def num_steps(self) -> int:
        return self.steps_per_epoch * self.recipe.train.epochs

    @property
    def num_images(self) -> int:
        return self.images_per_epoch * self.recipe.train.epochs

    @property
    def epochs(self) -> Fraction:
        """Images seen / images in the training split, as a budget counts."""
        return Fraction(self.num_images, self.num_train)

    @property
    def metrics(self) -> Metrics:
        metrics = Metrics.from_audit(self.audit, self.recipe.eval.forward_passes)
        return replace(metrics, epochs=self.epochs)

    @property
    def violations(self) -> tuple[Violation, ...]:
        """The rules that no training can keep: those on the network, and on the epochs."""
        return self.recipe.budget.to_budget().violations(self.metrics)

    def check_feasible(self) -> None:
        """Raise BudgetInfeasible, with all violations, when the run can never meet its budget."""
        if self.violations:
            raise BudgetInfeasible(self.violations)

    def check_trainable(self) -> None:
        """Raise ModelError if the forward pass fails: the plan is shown, and no training starts."""
        if self.audit.failure:
            raise ModelError(f"{self.audit.failure}.")

    @property
    def verdict(self) -> Verdict:
        return self.recipe.budget.to_budget().verdict(self.metrics)

    def to_json(self) -> dict[str, Any]:
        return {
            **self.audit.to_json(),
            "macs": self.metrics.macs,
            "forward_passes": self.metrics.forward_passes,
            "recipe": self.recipe.name,
            **({"teacher": self.teacher.to_json()} if self.teacher else {}),
            "steps": self.num_steps,
            "images": self.num_images,
            "budget": budget_json(self.recipe.budget.to_budget(), self.metrics),
            "violations": [violation.to_json() for violation in self.violations],
            "verdict": self.verdict,
            "notes": list(self.audit.all_notes),
        }

    @property
    def title(self) -> str:
        """The recipe, its model and its data in a line."""
        shape = "x".join(map(str, self.image_shape))
        return (
            f"{self.recipe.name}: {self.recipe.model.name} on {self.recipe.data.name} "
            f"({shape}, {self.num_classes} classes)"
        )

    def _costs(self) -> list[str]:
        train = self.recipe.train
        images, counted = f"{self.num_train:,} images", ""
        if self.recipe.sampling:
            images = f"{self.images_per_epoch:,} of {images}"
            counted = f" A budget counts the images seen: {exact_decimal(self.epochs)} epochs."
        steps = (
            f"{train.epochs} epoch{'s' if train.epochs > 1 else ''} of {images} "
            f"in batches of {train.batch_size}: {self.steps_per_epoch:,} steps each, "
            f"{self.num_steps:,} in total.{counted}"
        )
        return [steps, *([f"Distillation from {self.teacher}."] if self.teacher else [])]

    def table(self, width: int = 100) -> str:
        """Return the layer table, the steps and the predicted verdict in `width` columns."""
        lines = [
            wrap(self.title, width),
            "",
            self.network_table(width),
            "",
            *(wrap(line, width) for line in self._costs()),
            "",
            verdict_text(
                self.recipe.budget.to_budget(), self.metrics, width, pending_reason(self.recipe)
            ),
        ]
        return "\n".join(lines)

    def network_table(self, width: int) -> str:
        """Return the layer table, and what test-time augmentation costs."""
        passes = forward_passes_text(self.metrics, width)
        return self.audit.table(width) + (f"\n{passes}" if passes else "")

    def __str__(self) -> str:
        return self.table()

    __repr__ = __str__  # the same at a prompt as printed

    def _repr_html_(self) -> str:
        verdict = verdict_html(
            self.recipe.budget.to_budget(), self.metrics, pending_reason(self.recipe)
        )
        costs = html_text("\n".join(self._costs()))
        passes = html_text(forward_passes_text(self.metrics, 10_000))
        return html_block(self.audit.html(), passes, costs, verdict, title=self.title)


@use_free_cores()
def make_plan(recipe: Recipe, model: nn.Module | None = None, source: Source | None = None) -> Plan:
    """Plan a recipe, or a recipe for `model`; reads no images.

    `source` is the code of a user's model in place of the file that the recipe names.

    Raises ModelError when the model cannot be built or gives the wrong shape (of one whose forward
    pass fails, everything but the parameters is unknown in the plan), DataError when the
    data set is missing, InputError when batch or validation sizes do not fit it.
    """
    image_shape, num_classes, num_images = probe_dataset(recipe.data)
    problems = []
    if recipe.data.val_size >= num_images:
        problems.append(
            f"data.val_size = {recipe.data.val_size}: the training data has only {num_images} "
            "images."
        )
    elif recipe.data.val_size and recipe.data.val_block is not None:
        num_blocks = num_images // recipe.data.val_size
        if recipe.data.val_block >= num_blocks:
            problems.append(
                f"data.val_block = {recipe.data.val_block}: the training data has {num_blocks} "
                f"blocks of {recipe.data.val_size} images. Allowed: 0 to {num_blocks - 1}."
            )
    if recipe.data.mean is not None and len(recipe.data.mean) != image_shape[0]:
        problems.append(
            f"data.mean has {len(recipe.data.mean)} numbers, but the images have "
            f"{image_shape[0]} channel(s)."
        )
    num_train = num_images - recipe.data.val_size
    if recipe.train.batch_size > num_train > 0:
        problems.append(
            f"train.batch_size = {recipe.train.batch_size}: the training split has only "
            f"{num_train} images."
        )
    if model is not None:
        recipe = recipe.model_copy(update={"model": in_memory_spec(model)})
    teacher = audit = None
    try:
        teacher = load_teacher(recipe)
        if teacher:
            problems += _teacher_problems(teacher, image_shape, num_classes)
    except InputError as error:
        problems += error.problems
    try:
        if model is None:
            source = source or read_model_source(recipe.model)
            model = build_initialized_model(recipe, image_shape, num_classes, source=source)
        audit = audit_model(model, image_shape, num_classes, name=recipe.model.name)
        if audit.output_problem and not audit.failure:
            problems.append(f"{recipe.model.name}: {audit.output_problem}.")
        if min(recipe.train.batch_size, num_train) == 1:
            problems += _single_image_problems(recipe, audit)
    except InputError as error:
        problems += error.problems
    if problems:
        raise ModelError(problems)
    assert audit is not None
    return Plan(recipe, audit, image_shape, num_classes, num_train, teacher, source)


_plans: dict[str, Plan] = {}  # by the text of the recipe
_MAX_PLANS = 16


def make_kept_plan(recipe: Recipe) -> Plan:
    """Return what `make_plan` returns, made once in a process for a recipe that names no file.

    Such a plan depends on the recipe and on whit alone. One whose model, data or teacher is a file
    is made again each time. Raises as `make_plan`.
    """
    if input_paths(recipe):
        return make_plan(recipe)
    key = recipe.to_toml()
    if key not in _plans:
        plan = make_plan(recipe)
        if len(_plans) >= _MAX_PLANS:
            _plans.clear()
        _plans[key] = plan
    return _plans[key]


def find_source(run: RunRecord) -> Source | None:
    """Return what `find_run_source` returns for a run as it was read."""
    return find_run_source(
        run.path, run.local_recipe.model, run.environment, trust_copy=run.trust_model_files
    )


def _single_image_problems(recipe: Recipe, audit: Audit) -> Iterator[str]:
    """Yield the BatchNorm layers that have one value per channel in a batch of one image."""
    for layer in audit.layers:
        shape = layer.output_shape
        if layer.kind == "batchnorm" and shape is not None and prod(shape[1:]) == 1:
            yield (
                f"train.batch_size = {recipe.train.batch_size}: {layer.name} of "
                f"{recipe.model.name} normalizes by the statistics of the batch, and a batch of "
                "one image has one value per channel: use batches of 2 or more images."
            )


def _teacher_problems(
    teacher: Teacher, image_shape: tuple[int, int, int], num_classes: int
) -> Iterator[str]:
    """Yield how the images the teacher was trained on differ from those of the recipe."""
    data = teacher.run.local_recipe.data
    shape, classes, _ = probe_dataset(data)
    if (shape, classes) != (image_shape, num_classes):
        yield (
            f"distill.teacher = {teacher.name!r}: trained on images {shape} of {classes} classes "
            f"({data.name}), but this recipe trains on {image_shape} of {num_classes}."
        )
