"""The teacher of a recipe with distillation: loaded, and verified before it is used."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from whit.errors import InputError
from whit.recipes.recipe import Recipe
from whit.recipes.recipe_tables import DataSpec
from whit.runs import layout
from whit.runs.input_paths import is_same_input
from whit.runs.reader import RunRecord, read_run, weights_problem
from whit.system.numbers import floor_percent


@dataclass(frozen=True)
class Teacher:
    """A finished run as a teacher, and its name in the recipe."""

    name: str
    run: RunRecord

    @property
    def sha256(self) -> str:
        """The digest of its weights, as recorded in its result."""
        return str(self._result["weights_sha256"])

    @property
    def accuracy(self) -> float | None:
        """Its accuracy on test in percent; None if it was not evaluated on test."""
        test = self._result["test"]
        return None if test["correct"] is None else floor_percent(test["correct"], test["total"])

    @property
    def _result(self) -> dict[str, Any]:
        assert self.run.result is not None
        return self.run.result

    def to_json(self) -> dict[str, Any]:
        """Return its cost and accuracy, which are shown with those of its student."""
        return {
            "name": self.name,
            "params": self._result["params"],
            "epochs": self._result["epochs"],
            "test_accuracy": self.accuracy,
            "weights_sha256": self.sha256,
        }

    def __str__(self) -> str:
        epochs, accuracy = self._result["epochs"], self.accuracy
        on_test = "" if accuracy is None else f", {accuracy:.2f} % on test"
        return (
            f"{self.name}, a network of {self._result['params']:,} parameters trained for "
            f"{epochs:g} epoch{'s' if epochs != 1 else ''}{on_test}"
        )


def load_teacher(recipe: Recipe) -> Teacher | None:
    """Return the teacher of a recipe; None where it has none.

    Raises InputError when there is no such run, when it did not finish or was altered, or when it
    was trained on images that this recipe holds out.
    """
    if recipe.distill is None:
        return None
    name = recipe.distill.teacher
    path = Path(name)
    if not layout.has_recipe(path):
        raise InputError(f"distill.teacher = {name!r}: no such run folder.")
    run = read_run(path, allow_edited=True)
    if problem := weights_problem(run):
        advice = " Train the teacher again." if run.edited else ""
        raise InputError(f"distill.teacher = {name!r}: {problem}.{advice}")
    data, teacher_data = recipe.data, run.local_recipe.data
    is_same = data.held_out == teacher_data.held_out
    is_same = is_same and is_same_input(teacher_data.name, data.name)
    if data.val_size and not is_same:
        raise InputError(
            f"distill.teacher = {name!r}: it was trained with {_describe_val(teacher_data)}; this "
            f"recipe has {_describe_val(data)}: the teacher may have seen images that it holds "
            "out. Use a teacher trained with the same values."
        )
    return Teacher(name, run)


def _describe_val(data: DataSpec) -> str:
    keys = {"name": repr(data.name), "val_size": data.val_size}
    if data.val_size:
        keys |= {"val_by": data.val_by, "val_block": data.val_block}
    return ", ".join(f"data.{key} = {value}" for key, value in keys.items() if value is not None)
