"""What a run leaves behind: records as values, and the folder that holds them.

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
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from fractions import Fraction
from functools import cache
from math import isfinite
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from whit.budget import Budget, Usage, Verdict, Violation, floor_percent, json_number, percent
from whit.errors import InputError, RunFailed
from whit.recipe import Recipe, parse_recipe
from whit.text_table import wrapped

_LONGEST_NAME = 255  # bytes; what file systems allow for one folder


@dataclass(frozen=True)
class Evaluation:
    """One reading of a split. `loss` is the mean cross-entropy in nats per image.

    `wrong` holds the places in the split of the images that were not right.
    """

    split: str
    correct: int
    total: int
    loss: float
    seconds: float = 0.0
    wrong: tuple[int, ...] = field(default=(), repr=False)

    @property
    def accuracy(self) -> float:
        """Percent, never rounded up."""
        return floor_percent(self.correct, self.total)

    def __str__(self) -> str:
        return (
            f"{self.split.capitalize()} set: Average loss: {self.loss:.4f}, "
            f"Accuracy: {self.correct}/{self.total} ({percent(self.correct, self.total)}%)"
        )


@dataclass(frozen=True)
class EpochRecord:
    """One epoch of training; `correct` counts the training images as the model saw them."""

    epoch: int
    images_seen: int  # since the run began
    steps: int  # since the run began
    lr: float  # at the last step
    loss: float  # mean over the epoch's images, nats
    correct: int
    total: int
    seconds: float  # training alone
    evaluations: tuple[Evaluation, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the line of the log; which images were wrong stands in the result alone."""
        value = asdict(self)
        for evaluation in value["evaluations"]:
            del evaluation["wrong"]
        return value


@dataclass(frozen=True, repr=False)
class RunResult:
    """What `result.json` says, and what it was judged by."""

    verdict: Verdict
    violations: tuple[Violation, ...]
    params: int
    epochs: Fraction
    test: Evaluation | None  # None when the recipe leaves the test split alone
    test_reads: int
    best: tuple[int, Evaluation] | None  # epoch, on the split that was read most often
    seconds_train: float
    seconds_total: float
    images_seen: int
    seed: int
    weights_sha256: str
    notes: tuple[str, ...] = ()
    budget: Budget = field(default_factory=Budget, compare=False)
    usage: Usage = field(default_factory=Usage, compare=False)
    folder: Path | None = None

    def to_json(self) -> dict[str, Any]:
        test: dict[str, Any] = {"correct": None, "total": None, "accuracy": None, "loss": None}
        if self.test:
            test = {
                "correct": self.test.correct,
                "total": self.test.total,
                "accuracy": self.test.accuracy,
                "loss": self.test.loss if isfinite(self.test.loss) else None,  # JSON has no NaN
                "wrong": list(self.test.wrong),
            }
        best = None
        if self.best:
            epoch, evaluation = self.best
            best = {"epoch": epoch, "correct": evaluation.correct, "split": evaluation.split}
        return {
            "verdict": self.verdict,
            "violations": [violation.to_json() for violation in self.violations],
            "params": self.params,
            "epochs": json_number(self.epochs),
            "test": {
                **test,
                "reads": self.test_reads,
                "selected_on_test": self.usage.selected_on_test,
            },
            "best_epoch": best,
            "seconds": {"train": self.seconds_train, "total": self.seconds_total},
            "images_seen": self.images_seen,
            "seed": self.seed,
            "weights_sha256": self.weights_sha256,
            "notes": list(self.notes),
        }

    def text(self, width: int = 100) -> str:
        """Return the verdict and what a reader must know beside it, in `width` columns."""
        lines = [verdict_text(self.budget, self.usage, width)]
        if self.best and self.best[0] != self.epochs:
            epoch, evaluation = self.best
            said = (
                f"Best epoch on {evaluation.split}: {epoch}, "
                f"{evaluation.correct}/{evaluation.total} "
                "(shown only: the last epoch is judged)."
            )
            lines.append(wrapped(said, width))
        lines += [wrapped(f"Note: {note}", width) for note in self.notes]
        said = (
            f"Trained {self.images_seen:,} images in {self.seconds_train:.1f} s "
            f"({self.seconds_total:.1f} s in all), seed {self.seed}."
        )
        lines.append(wrapped(said, width))
        if self.folder:
            lines.append(f"Run folder: {self.folder}")
        return "\n".join(lines)

    def __str__(self) -> str:
        return self.text()

    __repr__ = __str__  # a prompt or a notebook cell shows what print shows


def verdict_text(budget: Budget, usage: Usage, width: int = 100) -> str:
    """Return the budget as a small table with each value beside its limit, then the verdict."""
    rows = budget.rows(usage)
    if not rows:
        return "Verdict: met. The recipe sets no limits."
    cells = [("budget", "limit", "value", "")]
    for rule, limit, value, kept in rows:
        cells.append((rule, limit, value, {True: "kept", False: "MISSED", None: "open"}[kept]))
    widths = [max(len(row[i]) for row in cells) for i in range(4)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    ]
    verdict = budget.verdict(usage)
    lines.append(f"Verdict: {verdict}.")
    lines += [wrapped(f"  - {found.message}", width) for found in budget.violations(usage)]
    return "\n".join(lines)


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
    if not (path / "recipe.toml").is_file():
        raise InputError(f"{path}: not a run folder (no recipe.toml in it).")
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
    """Return the run folders at or directly under `roots`, by name."""
    found = []
    for root in roots:
        if (root / "recipe.toml").is_file():
            found.append(root)
        elif root.is_dir():
            found += [p for p in sorted(root.iterdir()) if (p / "recipe.toml").is_file()]
    return found
