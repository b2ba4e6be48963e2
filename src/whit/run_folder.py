"""The folder of a run: written once, whole file by whole file, and read back with suspicion.

    runs/<name>-<seed>-<stamp>/
        recipe.toml          complete, defaults written out
        environment.json     versions, processor, threads, code state
        log.jsonl            one record an epoch
        result.json          written last: a folder without it is an unfinished run
        weights.safetensors  after the last epoch
        audit.txt            the layer table and the verdict

Every file is written beside its name and then renamed, so it is whole or not there.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from whit.budget import Verdict
from whit.errors import InputError, RunFailed
from whit.recipe import Recipe, parse_recipe
from whit.record import EpochRecord

_LONGEST_NAME = 255  # bytes; what file systems allow for one folder


class RunFolder:
    """The only writer of a run folder."""

    def __init__(self, path: Path):
        self.path = path

    @staticmethod
    def refuse(out: Path) -> None:
        """Raise InputError if no new folder can be made at `out`; makes nothing itself."""
        if os.path.lexists(out):
            raise InputError(
                f"--out {out}: already there, and a run never overwrites: "
                "name a folder that does not exist, or leave --out away."
            )
        if any(len(os.fsencode(part)) > _LONGEST_NAME for part in out.parts):
            raise InputError(f"--out {out}: a name in it is longer than {_LONGEST_NAME} bytes.")
        above = next(place for place in out.absolute().parents if os.path.lexists(place))
        if not above.is_dir():
            raise InputError(f"--out {out}: {above} is not a folder.")
        if not os.access(above, os.W_OK | os.X_OK):
            raise InputError(f"--out {out}: no permission to write in {above}.")

    @classmethod
    def create(cls, out: Path | None, name: str, seed: int) -> RunFolder:
        """Make `out`, or a new folder under `runs/`. Raises InputError when it is there."""
        path = out or Path("runs") / f"{name}-{seed}-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
        if out is None:
            stem, again = path, 1
            while path.exists():
                again += 1
                path = stem.with_name(f"{stem.name}-{again}")
        cls.refuse(path)
        try:
            path.mkdir(parents=True)
        except OSError as error:
            raise InputError(f"--out {path}: cannot be made: {error.strerror}.") from None
        return cls(path)

    def write_text(self, name: str, text: str) -> None:
        self.write_bytes(name, text.encode())

    def write_json(self, name: str, value: Any) -> None:
        self.write_text(name, json.dumps(value, indent=2) + "\n")

    def write_bytes(self, name: str, content: bytes) -> None:
        """Write a whole file or none. Raises RunFailed naming the file."""
        target, beside = self.path / name, self.path / f".{name}.tmp"
        try:
            with beside.open("wb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
            beside.replace(target)
        except OSError as error:
            raise self._failed(name, error) from None

    def append_log(self, record: EpochRecord) -> None:
        try:
            with (self.path / "log.jsonl").open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(record.to_json()) + "\n")
                stream.flush()
                os.fsync(stream.fileno())
        except OSError as error:
            raise self._failed("log.jsonl", error) from None

    def _failed(self, name: str, error: OSError) -> RunFailed:
        return RunFailed(
            f"{self.path / name}: cannot be written: {error.strerror}. "
            "What was written before is kept; free space there or name another --out."
        )


@dataclass(frozen=True)
class RunRecord:
    """A run folder as read back; `result` is None for a run that did not finish."""

    path: Path
    recipe: Recipe
    environment: dict[str, Any]
    log: tuple[EpochRecord, ...]
    result: dict[str, Any] | None

    @property
    def seed(self) -> int | None:
        return self.environment.get("seed")


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


class _StoredResult(_Stored):
    verdict: Verdict
    params: Natural
    epochs: float
    test: _StoredTest
    seconds: _StoredSeconds
    weights_sha256: str


def read_run(path: Path) -> RunRecord:
    """Read a run folder. Raises InputError when it is not one, or a file in it is damaged."""
    if not _holds_recipe(path):
        raise InputError(f"{path}: not a run folder that can be read (no recipe.toml in it).")
    try:
        recipe = parse_recipe(
            (path / "recipe.toml").read_text(encoding="utf-8"), str(path / "recipe.toml")
        )
        environment = _read_json(path / "environment.json") or {}
        result = _read_json(path / "result.json")
        log_file = path / "log.jsonl"
        lines = log_file.read_text(encoding="utf-8").splitlines() if log_file.is_file() else []
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read: {error}.") from None
    try:
        if result is not None:
            _StoredResult.model_validate(result)
    except ValidationError as error:
        raise InputError(_damages(path / "result.json", error)) from None
    log = []
    for number, line in enumerate(lines, start=1):
        try:
            log.append(_epoch_record().validate_json(line, strict=True))
        except ValidationError as error:
            raise InputError(_damages(path / f"log.jsonl, line {number}", error)) from None
    return RunRecord(path, recipe, environment, tuple(log), result)


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


def _read_json(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        raise InputError(f"{path}: damaged: not valid JSON.") from None
    if not isinstance(value, dict):
        raise InputError(f"{path}: damaged: not a JSON object.")
    return value


def find_runs(roots: Sequence[Path]) -> list[Path]:
    """Return the run folders at or directly under `roots`, by name.

    Raises InputError for a folder that may not be listed.
    """
    found = []
    for root in roots:
        if _holds_recipe(root):
            found.append(root)
        elif root.is_dir():
            try:
                inside = sorted(root.iterdir())
            except OSError as error:
                raise InputError(f"{root}: cannot be read: {error.strerror}.") from None
            found += [path for path in inside if _holds_recipe(path)]
    return found


def _holds_recipe(path: Path) -> bool:
    # os.path.isfile says no where Path.is_file raises: a folder without permission is no run.
    return os.path.isfile(path / "recipe.toml")
