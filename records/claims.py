"""The claims of the project, and what their run folders hold.

A claim holds when the lower end of the one-sided 95 % interval of its mean test accuracy reaches
its limit: Student's t over at least MIN_SEEDS seeds from FIRST_SEED on, which tuning never used,
each evaluated on the test split once, after the last epoch.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any

from whit.errors import InputError
from whit.experiments.statistics import SampleStats
from whit.recipes.recipe import load_recipe, recipe_id
from whit.runs import layout
from whit.runs.reader import RunRecord, read_run
from whit.system.atomic_files import atomic_write

HERE = Path(__file__).parent
ROOT = HERE.parent
ATTEMPTS = HERE / "attempts.jsonl"
ONE_PASS = "one-pass.jsonl"  # beside the runs of a claim
MIN_SEEDS = 10
FIRST_SEED = 1000
PUBLISHED = tuple(f"published-{name}" for name in ("17098", "16848", "19122", "19130", "15938"))


@dataclass(frozen=True)
class Claim:
    """What is claimed of recipes: built-in ones, or files under the root."""

    name: str
    aim: str
    limit: float  # percent, for the mean
    recipes: tuple[str, ...]
    public: str = ""  # the best that others have published for the same aim
    root: Path = HERE

    @property
    def folder(self) -> Path:
        return self.root / self.name


CLAIMS = {
    claim.name: claim
    for claim in (
        Claim("smallest", "fewest parameters at 99.40 %", 99.40, ("smallest",),
              "4,838 (one run, best epoch)"),
        Claim("smallest-99", "fewest parameters at 99.0 %", 99.0, ("smallest-99",),
              "697 (up to 2,000 epochs, best of 700 runs)"),
        Claim("tiniest", "fewest bytes of constants at 99.40 %", 99.40,
              ("tiniest",), "9.3 kB (99.44 %, one run)"),
        Claim("sharpest", "highest accuracy", 99.65, ("sharpest",),
              "99.63 % (7,758 parameters, one run)"),
        Claim("fewest-epochs", "fewest epochs to 99.40 %", 99.40, ("fewest-epochs",),
              "10 as a full run; first touched in epoch 5"),
        Claim("sprint", "shortest time to 99.40 %", 99.40, ("sprint",),
              "none for two processor cores"),
        Claim("uplift", "a published network at 99.50 % in 10 epochs", 99.50,
              tuple(f"records/uplift/{path.name}"
                    for path in sorted((HERE / "uplift").glob("*.toml")))),
    )
}  # fmt: skip


@dataclass(frozen=True)
class Attempt:
    """A study that evaluated the test split for a claim; complete or not, successful or not.

    `correct` are images of 10,000, a seed each; `source` says where that is recorded.
    """

    date: str
    claim: str
    recipe: str
    seeds: str  # such as 1000-1009
    correct: tuple[int, ...]
    mean: float | None  # percent; of attempts whose seeds are not all known
    source: str
    recipe_id: str = ""


def read_attempts() -> list[Attempt]:
    """Return every attempt since the beginning, in the order of the file."""
    rows = map(json.loads, ATTEMPTS.read_text().splitlines()) if ATTEMPTS.is_file() else ()
    return [Attempt(**{**row, "correct": tuple(row["correct"])}) for row in rows]


def write_attempt(attempt: Attempt) -> None:
    """Add an attempt, in place of an earlier state of the same study."""

    def study(one: Attempt) -> tuple[str, str, str]:
        return one.claim, one.recipe_id, one.seeds

    attempts = read_attempts()
    is_known = attempt.recipe_id and any(study(one) == study(attempt) for one in attempts)
    if is_known:
        attempts = [attempt if study(one) == study(attempt) else one for one in attempts]
    else:
        attempts.append(attempt)
    text = "".join(json.dumps(asdict(one)) + "\n" for one in attempts)
    atomic_write(ATTEMPTS, text.encode())


@dataclass(frozen=True)
class Evidence:
    """The finished runs of one recipe of a claim, in the order of their seeds."""

    recipe: str
    limit: float
    runs: tuple[RunRecord, ...]  # at least one

    @cached_property
    def correct(self) -> tuple[int, ...]:
        return tuple(result(run)["test"]["correct"] for run in self.runs)

    @cached_property
    def accuracy(self) -> SampleStats:
        """Percent on the test split after the last epoch."""
        return SampleStats(tuple(count / 100 for count in self.correct))

    @property
    def seconds(self) -> float:
        """Mean of a whole training."""
        return fmean(result(run)["seconds"]["total"] for run in self.runs)

    @property
    def precision(self) -> str:
        """The precision of training, `fp32` or `bf16`."""
        return ", ".join(sorted({_precision(run) for run in self.runs}))

    @property
    def machine(self) -> str:
        """Processor, cores and threads of the runs."""
        kinds = {
            f"{e['processor']}, {e['cores']} cores, {e['threads']} thread"
            + ("s" if e["threads"] > 1 else "")
            for e in (run.environment for run in self.runs)
        }
        return "; ".join(sorted(kinds))

    def objections(self) -> list[str]:
        """Why the claim does not hold; empty where it does."""
        found = []
        if len(self.runs) < MIN_SEEDS:
            found.append(f"{len(self.runs)} of {MIN_SEEDS} seeds")
        if any((run.seed or 0) < FIRST_SEED for run in self.runs):
            found.append(f"seeds below {FIRST_SEED}, which tuning may have used")
        if any(result(run)["test"]["evaluations"] != 1 for run in self.runs):
            found.append("the test split was evaluated more than once for a seed")
        lower = self.accuracy.lower_end
        if lower is None or lower < self.limit:
            found.append("the lower end of the interval is below the limit")
        return found


def find_evidence(folder: Path, recipe: str, limit: float = 0.0) -> Evidence | None:
    """Return the finished runs of a recipe in a folder; None where there is none.

    They are those of the recipe as it is; where there is none, those of its name, whose recipe
    was written in an older schema.
    """
    wanted, runs = load_recipe(recipe), []
    for path in layout.find_runs(sorted(p for p in folder.iterdir() if p.is_dir())):
        try:
            runs.append(read_run(path))
        except InputError as error:  # edited or damaged: said, and counted in nothing
            print(f"not counted: {error}", file=sys.stderr)
    runs = [run for run in runs if run.result and run.recipe.name == wanted.name]
    same = [run for run in runs if recipe_id(run.recipe) == recipe_id(wanted)]
    new = [run for run in same or runs if (run.seed or 0) >= FIRST_SEED]
    found = sorted(new or same or runs, key=lambda run: run.seed or 0)
    return Evidence(recipe, limit, tuple(found)) if found else None


def result(run: RunRecord) -> dict[str, Any]:
    """Return the result of a finished run."""
    assert run.result is not None
    return run.result


def _precision(run: RunRecord) -> str:
    """Return what a run was trained in; `auto` took bf16 where the processor has it."""
    precision = run.recipe.train.precision
    if precision != "auto":
        return precision
    recorded = run.environment.get("precision")
    if recorded:
        return str(recorded)
    features = set(run.environment["processor_features"])
    return "bf16" if features & {"avx512_bf16", "amx_bf16"} else "fp32"
