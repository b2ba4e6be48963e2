"""Run folders as read back: every file is untrusted input, and is validated."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Mapping, Sequence
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
from whit.runs.manifest import find_edited
from whit.runs.result import EpochRecord, Evaluation
from whit.system.untrusted_files import read_untrusted, unreadable_reason
from whit.system.validation_errors import describe_errors

# Far more than a run writes, and at most 100 MB when parsed; larger files are not read.
_MAX_BYTES = 2_000_000
_MAX_EPOCH_BYTES = 1_000  # bytes in the log
_MAX_COUNT = 1 << 63  # of images and steps
_MAX_CACHED = 5_000  # characters of a recipe that is cached once parsed; ours have about 1,000

State = Literal["finished", "diverged", "edited", "running", "stopped"]


@dataclass(frozen=True)
class RunRecord:
    """A run folder as read back; `result` is None for an unfinished run.

    Recipe and result are in the current schema; `stored_result` is the content of the file.
    `edited` names the files that were altered after the run: nothing in its result is valid.
    """

    path: Path
    recipe: Recipe
    environment: dict[str, Any]
    log: tuple[EpochRecord, ...]
    result: dict[str, Any] | None
    stored_result: dict[str, Any] | None = None
    # Whether the copy of a user's own model in the folder may be executed.
    trust_model_files: bool = False
    edited: tuple[str, ...] = ()

    @property
    def local_recipe(self) -> Recipe:
        """The recipe with data, model file and teacher where they are, seen from this folder."""
        recorded = self.environment.get(ENVIRONMENT_KEY)
        return locate_inputs(self.recipe, self.path, recorded)

    @property
    def state(self) -> State:
        """`stopped` can be resumed; a run that another machine has locked counts as `running`."""
        if self.edited:
            return "edited"
        if self.recorded_state:
            return self.recorded_state
        holder = self.lock_holder
        return "running" if holder and holder.is_alive() is not False else "stopped"

    @property
    def recorded_state(self) -> Literal["finished", "diverged"] | None:
        """How the run ended by its result, edited or not; None for an unfinished run."""
        return self.result["state"] if self.result is not None else None

    @property
    def lock_holder(self) -> LockHolder | None:
        return read_lock_holder(self.path / layout.CHECKPOINTS)

    @property
    def seed(self) -> int | None:
        seed = self.environment.get("seed")
        return seed if type(seed) is int and 0 <= seed < 1 << 63 else None

    @property
    def last_val(self) -> Evaluation | None:
        """The evaluation on val after the last epoch; None where there was none."""
        evaluations = self.log[-1].evaluations if self.log else ()
        return next((e for e in evaluations if e.split == "val"), None)

    @property
    def final_evaluation(self) -> Evaluation | None:
        """The one that the verdict uses; None for an unfinished run, or where there was none."""
        if self.result is None or self.edited:
            return None
        if not self.recipe.eval.test:
            return self.last_val
        test = self.result["test"]
        if test["correct"] is None:
            return None
        misclassified = tuple(test["misclassified"])
        return Evaluation(
            "test", test["correct"], test["total"], test.get("loss"), misclassified=misclassified
        )


# Integers of JSON have any length; no count of whit needs more than these.
Natural = Annotated[int, Field(ge=0, lt=1 << 63)]


class _Stored(BaseModel):
    """The keys of `result.json` that are used; others are ignored."""

    model_config = ConfigDict(strict=True, extra="ignore", allow_inf_nan=False)


class _StoredTest(_Stored):
    correct: Natural | None
    total: Annotated[int, Field(ge=1, lt=1 << 63)] | None
    misclassified: list[Natural] | None = None
    accuracy: Annotated[float, Field(ge=0, le=100)] | None = None
    loss: float | None = None

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
    train: Annotated[float, Field(ge=0)]
    total: Annotated[float, Field(ge=0)]


class _StoredChange(_Stored):
    what: str
    now: Any


class _StoredResult(_Stored):
    state: Literal["finished", "diverged"] = "finished"
    verdict: Verdict
    params: Natural
    macs: Natural | None = None  # results of older versions have none
    epochs: Annotated[float, Field(ge=0)]
    test: _StoredTest
    seconds: _StoredSeconds
    weights_sha256: str
    accepted_changes: list[_StoredChange] = []


def read_run(
    path: Path, *, trust_model_files: bool = False, allow_edited: bool = False
) -> RunRecord:
    """Read a run folder, and verify the manifest of a finished run.

    `trust_model_files` allows to execute the copy of its model's source. Raises InputError when it
    is not a run, a file in it is damaged, or one was altered after the run: only those that show or
    audit such a run read it with `allow_edited`.
    """
    if not layout.has_recipe(path):
        raise InputError(f"{path}: not a readable run folder (no recipe.toml).")
    try:
        texts = {layout.RECIPE: _read(path / layout.RECIPE, MAX_BYTES)}
        recipe = _parse_recipe(texts[layout.RECIPE], path / layout.RECIPE)
        limits = dict.fromkeys((layout.ENVIRONMENT, layout.RESULT), _MAX_BYTES)
        limits[layout.LOG] = 10_000 + _MAX_EPOCH_BYTES * recipe.train.epochs
        for name, max_bytes in limits.items():
            if os.path.lexists(path / name):
                texts[name] = _read(path / name, max_bytes)
        environment = _parse_json(texts, path / layout.ENVIRONMENT) or {}
        stored = _parse_json(texts, path / layout.RESULT)
        lines = texts[layout.LOG].split("\n") if layout.LOG in texts else []
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
        if problem := _range_problem(log[-1]):
            raise InputError(f"{path / layout.LOG}, line {number}: damaged: {problem}.")
    try:
        edited = find_edited(stored, path, texts) if stored is not None else ()
    except RecursionError:
        raise InputError(f"{path / layout.RESULT}: damaged: nested too deeply.") from None
    if edited and not allow_edited:
        raise InputError(edited_message(path, edited))
    return RunRecord(
        path,
        recipe,
        environment,
        tuple(log),
        result,
        stored,
        trust_model_files=trust_model_files,
        edited=edited,
    )


def edited_message(path: Path, edited: Sequence[str]) -> str:
    """Return why an edited run counts in nothing, and what to do."""
    return (
        f"{path}: altered after the run: {', '.join(edited)}. Its result counts in nothing; "
        f"`whit audit {shlex.quote(str(path))}` shows what does not match."
    )


def _range_problem(record: EpochRecord) -> str | None:
    """Return what in a line of the log is outside its range."""
    for e in record.evaluations:
        if not 0 <= e.correct <= e.total or not 0 < e.total < _MAX_COUNT:
            return "evaluations: correct must be from 0 to total, and total at least 1"
        if e.seconds < 0:
            return "evaluations: seconds must be at least 0"
    if not 0 <= record.correct <= record.total or not 0 < record.total < _MAX_COUNT:
        return "correct must be from 0 to total, and total at least 1"
    if record.epoch < 1 or record.seconds < 0:
        return "epoch must be at least 1, and seconds at least 0"
    if not all(0 <= count < _MAX_COUNT for count in (record.images_seen, record.steps)):
        return "images_seen and steps must be at least 0"
    return None


def _parse_recipe(text: str, file: Path) -> Recipe:
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


def _read(path: Path, max_bytes: int) -> str:
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


def _parse_json(texts: Mapping[str, str], path: Path) -> dict[str, Any] | None:
    """Return the object in a file of `texts`; None where the run has no such file."""
    if path.name not in texts:
        return None
    try:
        value = json.loads(texts[path.name], object_pairs_hook=_to_object)
    except _RepeatedKey as error:
        raise InputError(f"{path}: damaged: the key {error.args[0]!r} is there twice.") from None
    except (ValueError, RecursionError):
        raise InputError(f"{path}: damaged: not valid JSON.") from None
    if not isinstance(value, dict):
        raise InputError(f"{path}: damaged: not a JSON object.")
    return value


class _RepeatedKey(ValueError):
    """A key is in an object twice: of its values, one is read and another may be shown."""


def _to_object(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for key, item in pairs:
        if key in value:
            raise _RepeatedKey(key)
        value[key] = item
    return value


def weights_problem(run: RunRecord, *, allow_edited: bool = False) -> str | None:
    """Return why a run has no weights to load; None if it has.

    Those of an edited run are for its audit only, which reads them with `allow_edited`.
    """
    weights = run.path / layout.WEIGHTS
    if run.result is None:
        return "the run did not finish"
    if run.edited and not allow_edited:
        return f"altered after the run: {', '.join(run.edited)}"
    if run.recorded_state == "diverged":
        details = run.result.get("diverged")
        epoch = f" in epoch {details.get('epoch')}" if isinstance(details, dict) else ""
        return f"the run diverged{epoch}"
    if not os.path.lexists(weights):
        return f"{weights.name} is missing"
    if weights.is_symlink() or not weights.is_file():
        return f"{weights.name} is not a regular file"
    try:
        reason = unreadable_reason(weights, layout.MAX_WEIGHTS_BYTES)
    except OSError as error:
        reason = f"cannot be read ({error.strerror})"
    return None if reason is None else f"{weights.name}: {reason}"
