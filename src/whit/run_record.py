"""Run folders as read back, with suspicion: every file is checked before it is believed."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from whit.budget import Verdict
from whit.errors import InputError, RecipeError
from whit.ownership import Owner, owner_of
from whit.recipe import LARGEST, Recipe, parse_recipe
from whit.record import EpochRecord, Evaluation
from whit.strange_file import read_strange

# Far above what a run writes, and no more than parses into 100 MB; more is refused unread.
_MOST_BYTES = 2_000_000
_MOST_OF_EPOCH = 1_000  # bytes in the log
_MOST_KEPT = 5_000  # characters of a recipe that is kept once parsed; ours have about 1,000
# A run has the first of them from its first moment, and others if that one was lost.
_BESIDE_RECIPE = ("environment.json", "checkpoint", "log.jsonl", "result.json")


State = Literal["finished", "diverged", "running", "stopped"]


@dataclass(frozen=True)
class RunRecord:
    """A run folder as read back; `result` is None for a run that did not come to its end."""

    path: Path
    recipe: Recipe
    environment: dict[str, Any]
    log: tuple[EpochRecord, ...]
    result: dict[str, Any] | None

    @property
    def state(self) -> State:
        """`stopped` can be resumed; a run on another machine that cannot be seen is `running`."""
        if self.result is not None:
            state: State = self.result["state"]
            return state
        return "running" if self.owner and self.owner.is_alive() is not False else "stopped"

    @property
    def owner(self) -> Owner | None:
        return owner_of(self.path / "checkpoint")

    @property
    def seed(self) -> int | None:
        seed = self.environment.get("seed")
        return seed if type(seed) is int else None

    @property
    def last_val(self) -> Evaluation | None:
        """What the log says of the val split after the last epoch; None where it was not read."""
        readings = self.log[-1].evaluations if self.log else ()
        return next((reading for reading in readings if reading.split == "val"), None)

    @property
    def final_evaluation(self) -> Evaluation | None:
        """On the split that the run is judged on; None before its end, or without one."""
        if self.result is None or not self.recipe.train.test:
            return self.last_val if self.result else None
        test = self.result["test"]
        if test["correct"] is None:
            return None
        wrong = tuple(test["wrong"])
        return Evaluation("test", test["correct"], test["total"], test.get("loss"), wrong=wrong)


Natural = Annotated[int, Field(ge=0)]


class _Stored(BaseModel):
    """A part of `result.json` that others rely on; there may be more in it."""

    model_config = ConfigDict(strict=True, extra="ignore")


class _StoredTest(_Stored):
    correct: Natural | None
    total: Annotated[int, Field(ge=1)] | None
    wrong: list[int] | None = None

    @model_validator(mode="after")
    def _whole(self) -> _StoredTest:
        if (self.correct is None) != (self.total is None):
            raise ValueError("correct and total go together")
        if self.correct is not None and self.total is not None and self.correct > self.total:
            raise ValueError("more correct than there are")
        if self.correct is not None and self.wrong is None:
            raise ValueError("which images were wrong is missing")
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
    epochs: float
    test: _StoredTest
    seconds: _StoredSeconds
    weights_sha256: str
    changes: list[_StoredChange] = []


def read_run(path: Path) -> RunRecord:
    """Read a run folder. Raises InputError when it is not one, or a file in it is damaged."""
    if not _holds_recipe(path):
        raise InputError(f"{path}: not a run folder that can be read (no recipe.toml in it).")
    try:
        recipe = _recipe_in(path / "recipe.toml")
        environment = _read_json(path / "environment.json") or {}
        result = _read_json(path / "result.json")
        log_file = path / "log.jsonl"
        most = 10_000 + _MOST_OF_EPOCH * recipe.train.epochs
        lines = _read(log_file, most).split("\n") if os.path.lexists(log_file) else []
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error}.") from None
    try:
        if result is not None:
            _StoredResult.model_validate(result)
            # The first runs wrote none, and a result only when they had come to their end.
            result = {"state": "finished", **result}
    except ValidationError as error:
        raise InputError(_damages(path / "result.json", error)) from None
    if lines and (not lines[-1] or result is None):
        lines.pop()  # empty after the last newline; else the half line of a run that was killed
    log = []
    for number, line in enumerate(lines, start=1):
        try:
            log.append(_epoch_record().validate_json(line, strict=True))
        except ValidationError as error:
            raise InputError(_damages(path / f"log.jsonl, line {number}", error)) from None
    return RunRecord(path, recipe, environment, tuple(log), result)


def _recipe_in(file: Path) -> Recipe:
    text = _read(file, LARGEST)
    if len(text) <= _MOST_KEPT:
        try:
            return _kept_recipe(text)
        except RecipeError:
            pass  # once more, with its own name in what is said
    return parse_recipe(text, str(file))


@lru_cache(maxsize=256)
def _kept_recipe(text: str) -> Recipe:
    """Parse a text once: the seeds of a study share it, and it is most of the time of a list."""
    return parse_recipe(text, "")


@cache
def _epoch_record() -> TypeAdapter[EpochRecord]:
    return TypeAdapter(EpochRecord)


def _damages(file: Path, error: ValidationError) -> list[str]:
    """Return one sentence for each of pydantic's findings."""
    found = []
    for item in error.errors():
        key = ".".join(map(str, item["loc"]))
        said = {"model_type": "wanted an object", "json_invalid": "not valid JSON"}.get(
            item["type"], item["msg"].removeprefix("Value error, ")
        )
        parts = (f"{file}", "damaged", key, f"{said[0].lower()}{said[1:]}.")
        found.append(": ".join(part for part in parts if part))
    return found


def _read(path: Path, most: int = _MOST_BYTES) -> str:
    """Read a text of a run. Raises OSError; InputError for a link, or no text, or too much."""
    content = read_strange(path, most + 1)
    if content is None:
        raise InputError(f"{path}: not a file of its own; a run holds no links.")
    if len(content) > most:
        raise InputError(f"{path}: damaged: larger than {most:,} bytes.")
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


def why_no_weights(run: RunRecord) -> str | None:
    """Say why a run has no weights to judge or to go on with; None where it has."""
    weights = run.path / "weights.safetensors"
    if run.result is None:
        return "the run did not finish"
    if run.state == "diverged":
        where = run.result.get("diverged")
        place = f" in epoch {where.get('epoch')}" if isinstance(where, dict) else ""
        return f"the run diverged{place}"
    if weights.is_symlink() or not weights.is_file():
        return f"{weights.name} is missing"
    return None


def find_runs(roots: Sequence[Path]) -> list[Path]:
    """Return the run folders at or directly under `roots`, by name.

    Raises InputError for a folder that may not be listed.
    """
    found = []
    for root in roots:
        if _is_run(root):
            found.append(root)
        elif root.is_dir():
            try:
                inside = sorted(root.iterdir())
            except OSError as error:
                raise InputError(f"{root}: cannot be read: {error.strerror}.") from None
            found += [path for path in inside if _is_run(path)]
    return found


def _is_run(path: Path) -> bool:
    """Tell a run from the folder of a trial, which holds a recipe and the runs of it."""
    return _holds_recipe(path) and any(os.path.lexists(path / name) for name in _BESIDE_RECIPE)


def _holds_recipe(path: Path) -> bool:
    # os.path.isfile says no where Path.is_file raises: a folder without permission is no run.
    return os.path.isfile(path / "recipe.toml")
