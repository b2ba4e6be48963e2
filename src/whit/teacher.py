"""The trained network that a recipe learns from: found, and checked before it teaches."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from whit.errors import InputError, did_you_mean
from whit.recipe import Recipe
from whit.run_record import RunRecord, read_run, why_no_weights


@cache
def shipped_teachers() -> dict[str, Path]:
    """Return the run folders that come with whit, by name."""
    folder = Path(str(resources.files("whit") / "teachers"))
    inside = sorted(folder.iterdir()) if folder.is_dir() else []
    return {path.name: path for path in inside if path.is_dir()}


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


def teacher_of(recipe: Recipe) -> Teacher | None:
    """Return the teacher that a recipe names; None where it names none.

    Raises InputError when there is no such teacher, when it did not finish, or when it learned
    from images that this recipe holds out.
    """
    if recipe.distill is None:
        return None
    name = recipe.distill.teacher
    path = shipped_teachers().get(name, Path(name))
    if not (path / "recipe.toml").is_file():
        shipped = shipped_teachers()
        raise InputError(
            f"distill.teacher = {name!r}: neither a shipped teacher ({', '.join(shipped)}) nor a "
            f"run folder.{did_you_mean(name, shipped)}"
        )
    run = read_run(path)
    problem = why_no_weights(run)
    if problem:
        raise InputError(f"distill.teacher = {name!r}: {problem}, so it can teach nothing.")
    taught, learned = recipe.data, run.recipe.data
    if taught.val and (learned.name != taught.name or learned.val != taught.val):
        raise InputError(
            f"distill.teacher = {name!r}: it was trained with data.name = {learned.name!r} and "
            f"data.val = {learned.val}, this recipe holds out {taught.val} images of "
            f"{taught.name!r}, which it may have seen. Take a teacher trained with the same "
            "data.val."
        )
    return Teacher(name, run)
