"""The trained network that a recipe learns from: found, and checked before it teaches."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from whit.errors import InputError
from whit.recipe import Recipe
from whit.run_record import RunRecord, read_run, weights_problem
from whit.runs import layout
from whit.seal import verify_manifest


@dataclass(frozen=True)
class Teacher:
    """A finished run, as a teacher, and the name it was asked for by."""

    name: str
    run: RunRecord

    @property
    def sha256(self) -> str:
        """The digest of its weights, as its result has it."""
        return str(self._result["weights_sha256"])

    @property
    def _result(self) -> dict[str, Any]:
        assert self.run.result is not None
        return self.run.result

    def to_json(self) -> dict[str, Any]:
        """Return what it cost and what it reached, which belongs beside what it taught."""
        return {
            "name": self.name,
            "params": self._result["params"],
            "epochs": self._result["epochs"],
            "test_accuracy": self._result["test"]["accuracy"],
            "weights_sha256": self.sha256,
        }

    def __str__(self) -> str:
        epochs = self._result["epochs"]
        accuracy = self._result["test"]["accuracy"]
        reached = "" if accuracy is None else f", {accuracy:.2f} % on test"
        return (
            f"{self.name}, a network of {self._result['params']:,} parameters trained for "
            f"{epochs:g} epoch{'s' if epochs != 1 else ''}{reached}"
        )


def load_teacher(recipe: Recipe) -> Teacher | None:
    """Return the teacher that a recipe names; None where it names none.

    Raises InputError when there is no such teacher, when it did not finish or was altered since,
    or when it learned from images that this recipe holds out.
    """
    if recipe.distill is None:
        return None
    name = recipe.distill.teacher
    path = Path(name)
    if not layout.has_recipe(path):
        raise InputError(f"distill.teacher = {name!r}: there is no such run folder.")
    run = read_run(path)
    problem = weights_problem(run)
    if problem:
        raise InputError(f"distill.teacher = {name!r}: {problem}, so it can teach nothing.")
    altered = [file for file, _, _ in verify_manifest(run.result or {}, path)]
    if altered:
        raise InputError(
            f"distill.teacher = {name!r}: altered after the run: {', '.join(altered)}. Train the "
            "teacher again."
        )
    taught, learned = recipe.data, run.recipe.data
    if taught.val and (learned.name != taught.name or learned.val != taught.val):
        raise InputError(
            f"distill.teacher = {name!r}: it was trained with data.name = {learned.name!r} and "
            f"data.val = {learned.val}, this recipe holds out {taught.val} images of "
            f"{taught.name!r}, which it may have seen. Take a teacher trained with the same "
            "data.val."
        )
    return Teacher(name, run)
