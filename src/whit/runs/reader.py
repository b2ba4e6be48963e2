"""Run folders as read back: every file is untrusted input, and is validated."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from whit.errors import InputError, RecipeError
from whit.recipes.budget import Verdict
from whit.recipes.recipe import MAX_BYTES, Recipe, parse_run_recipe
from whit.recipes.schema1 import upgrade_result
from whit.runs import layout
from whit.runs.input_paths import ENVIRONMENT_KEY, locate_inputs
from whit.runs.lock import LockHolder, read_lock_holder
from whit.runs.result import EpochRecord, Evaluation
from whit.system.untrusted_files import read_untrusted, unreadable_reason
from whit.system.validation_errors import describe_errors

# Far more than a run writes, and at most 100 MB when parsed; larger files are not read.
_MAX_BYTES = 2_000_000
_MAX_EPOCH_BYTES = 1_000  # bytes in the log
_MAX_CACHED = 5_000  # characters of a recipe that is cached once parsed; ours have about 1,000

State = Literal["finished", "diverged", "running", "stopped"]


@dataclass(frozen=True)
class RunRecord:
    """A run folder as read back; `result` is None for an unfinished run.

    Recipe and result are in the current schema; `stored_result` is the content of the file.
    """

    path: Path
    recipe: Recipe
    environment: dict[str, Any]
    log: tuple[EpochRecord, ...]
    result: dict[str, Any] | None
    stored_result: dict[str, Any] | None = None

    @property
    def local_recipe(self) -> Recipe:
        """The recipe with data, model file and teacher where they are, seen from this folder."""
        recorded = self.environment.get(ENVIRONMENT_KEY)
        return locate_inputs(self.recipe, self.path, recorded)

    @property
    def state(self) -> State:
        """`stopped` can be resumed; a run that another machine has locked counts as `running`."""
        if self.result is not None:
            state: State = self.result["state"]
            return state
        holder = self.lock_holder
        return "running" if holder and holder.is_alive() is not False else "stopped"

    @property
    def lock_holder(self) -> LockHolder | None:
        return read_lock_holder(self.path / layout.CHECKPOINTS)

    @property
    def seed(self) -> int | None:
        seed = self.environment.get("seed")
        return seed if type(seed) is int else None

    @property
    def last_val(self) -> Evaluation | None:
        """The evaluation on val after the last epoch; None where there was none."""
        evaluations = self.log[-1].evaluations if self.log else ()
        return next((e for e in evaluations if e.split == "val"), None)

    @property
    def final_evaluation(self) -> Evaluation | None:
        """The one that the verdict uses; None for an unfinished run, or where there was none."""
        if self.result is None or not self.recipe.eval.test:
            return self.last_val if self.result else None
        test = self.result["test"]
        if test["correct"] is None:
            return None
        misclassified = tuple(test["misclassified"])
        return Evaluation(
            "test", test["correct"], test["total"], test.get("loss"), misclassified=misclassified
        )


Natural = Annotated[int, Field(ge=0)]


class _Stored(BaseModel):
    """The keys of `result.json` that are used; others are ignored."""

    model_config = ConfigDict(strict=True, extra="ignore", allow_inf_nan=False)


class _StoredTest(_Stored):
    correct: Natural | None
    total: Annotated[int, Field(ge=1)] | None
    misclassified: list[int] | None = None

    @model_validator(mode="after")
    def _check_counts(self) -> _StoredTest:
        if (self.correct is None) != (self.total is None):
            raise ValueError("correct and total must both be numbers or both be null")
        if self.correct is not None and self.total is not None and self.correct > self.total:
            raise ValueError("correct is larger than total")
        if self.correct is not None and self.misclassified is None:
            raise ValueError("misclassified is missing")
        return self


class _StoredSeconds(_Stored):
    total: float


class _StoredChange(_Stored):
    what: str
    now: Any


class _StoredResult(_Stored):
    state: Literal["finished", "diverged"] = "finished"
    verdict: Verdict
    params: Natural
    macs: Natural | None = None  # results of older versions have none
    epochs: float
    test: _StoredTest
    seconds: _StoredSeconds
    weights_sha256: str
    accepted_changes: list[_StoredChange] = []


def read_run(path: Path) -> RunRecord:
    """Read a run folder. Raises InputError when it is not one, or a file in it is damaged."""
    if not layout.has_recipe(path):
        raise InputError(f"{path}: not a readable run folder (no recipe.toml).")
    try:
        recipe = _read_recipe(path / layout.RECIPE)
        environment = _read_json(path / layout.ENVIRONMENT) or {}
        stored = _read_json(path / layout.RESULT)
        log_file = path / layout.LOG
        max_bytes = 10_000 + _MAX_EPOCH_BYTES * recipe.train.epochs
        lines = _read(log_file, max_bytes).split("\n") if os.path.lexists(log_file) else []
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error}.") from None
    try:
        result = None
        if stored is not None:
            # The first versions wrote no state, and a result only for finished runs.
            result = {"state": "finished", **upgrade_result(stored)}
            _StoredResult.model_validate(result)
    except ValidationError as error:
        source = f"{path / layout.RESULT}: damaged"
        raise InputError(describe_errors(error, source, is_stored=True)) from None
    if lines and (not lines[-1] or result is None):
        lines.pop()  # empty after the last newline, or the partial line of a killed run
    log = []
    for number, line in enumerate(lines, start=1):
        try:
            log.append(_epoch_record().validate_json(line, strict=True))
        except ValidationError as error:
            source = f"{path / layout.LOG}, line {number}: damaged"
            raise InputError(describe_errors(error, source, is_stored=True)) from None
        if not all(0 <= e.correct <= e.total > 0 for e in log[-1].evaluations):
            raise InputError(
                f"{path / layout.LOG}, line {number}: damaged: evaluations: correct must be from 0 "
                "to total, and total at least 1."
            )
    return RunRecord(path, recipe, environment, tuple(log), result, stored)


def _read_recipe(file: Path) -> Recipe:
    text = _read(file, MAX_BYTES)
    if len(text) <= _MAX_CACHED:
        try:
            return _parse_cached(text)
        except RecipeError:
            pass  # parsed again, so that messages name the file
    return parse_run_recipe(text, str(file))


@lru_cache(maxsize=256)
def _parse_cached(text: str) -> Recipe:
    """Parse a text once: the seeds of a study share it, and parsing dominates a list of runs."""
    return parse_run_recipe(text, "")


@cache
def _epoch_record() -> TypeAdapter[EpochRecord]:
    return TypeAdapter(EpochRecord)


def _read(path: Path, max_bytes: int = _MAX_BYTES) -> str:
    """Read a text file. Raises OSError; InputError if it is a link, too large or not text."""
    content = read_untrusted(path, max_bytes + 1)
    if content is None:
        raise InputError(f"{path}: not a regular file; run folders contain no links.")
    if len(content) > max_bytes:
        raise InputError(f"{path}: damaged: larger than {max_bytes:,} bytes.")
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: damaged: not UTF-8 text ({error.reason}).") from None


def _read_json(path: Path) -> dict[str, Any] | None:
    if not os.path.lexists(path):
        return None
    try:
        value = json.loads(_read(path))
    except (ValueError, RecursionError):
        raise InputError(f"{path}: damaged: not valid JSON.") from None
    if not isinstance(value, dict):
        raise InputError(f"{path}: damaged: not a JSON object.")
    return value


def weights_problem(run: RunRecord) -> str | None:
    """Return why a run has no weights to load; None if it has."""
    weights = run.path / layout.WEIGHTS
    if run.result is None:
        return "the run did not finish"
    if run.state == "diverged":
        details = run.result.get("diverged")
        epoch = f" in epoch {details.get('epoch')}" if isinstance(details, dict) else ""
        return f"the run diverged{epoch}"
    if weights.is_symlink() or not weights.is_file():
        return f"{weights.name} is missing"
    try:
        reason = unreadable_reason(weights, layout.MAX_WEIGHTS_BYTES)
    except OSError as error:
        reason = f"cannot be read ({error.strerror})"
    return None if reason is None else f"{weights.name}: {reason}"


def find_runs(roots: Sequence[Path]) -> list[Path]:
    """Return the run folders at or directly under `roots`, by name.

    Raises InputError for a folder that may not be listed.
    """
    runs = []
    for root in roots:
        if layout.is_run(root):
            runs.append(root)
        elif root.is_dir():
            try:
                paths = sorted(root.iterdir())
            except OSError as error:
                raise InputError(f"{root}: cannot be read: {error.strerror}.") from None
            runs += [path for path in paths if layout.is_run(path)]
    return runs
