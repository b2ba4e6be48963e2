"""The claims of the project, and what their run folders hold.

A claim holds when the lower end of the one-sided 95 % interval of its mean test accuracy reaches
its limit: Student's t over at least MIN_SEEDS seeds from FIRST_SEED on, which tuning never used,
each evaluated on the test split once, after the last epoch. Claims about microcontrollers are
judged by the int8 networks that run there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from evidence import FIRST_SEED, Evidence, cost_text, cut, percentages, result

from whit.system.atomic_files import atomic_write

HERE = Path(__file__).parent
ROOT = HERE.parent
ATTEMPTS = HERE / "attempts.jsonl"
ONE_PASS = "one-pass.jsonl"  # beside the runs of a claim
MIN_SEEDS = 10
PUBLISHED = tuple(f"published-{name}" for name in ("17098", "16848", "19122", "19130", "15938"))


@dataclass(frozen=True)
class Claim:
    """What is claimed of recipes: built-in ones, or files under the root.

    limit: percent that the mean must reach.
    worst: percent that every seed must reach.
    costs: units of COSTS, in which the claim is judged; none where it is judged by accuracy.
    at_most: limits of costs, by unit.
    public: the best that others have published for the same aim.
    """

    name: str
    aim: str
    limit: float
    recipes: tuple[str, ...]
    public: str = ""
    costs: tuple[str, ...] = ()
    worst: float | None = None
    at_most: Mapping[str, float] = field(default_factory=dict)
    root: Path = HERE

    @property
    def folder(self) -> Path:
        return self.root / self.name

    @property
    def needs_board(self) -> bool:
        """Whether it is judged by what is counted on an emulated microcontroller."""
        return "instructions" in self.costs

    @property
    def is_int8(self) -> bool:
        """Whether it is judged by the int8 networks."""
        return self.needs_board or "bytes of constants" in self.costs

    def correct(self, evidence: Evidence) -> tuple[int, ...]:
        """Return the correct test images of each seed that the claim is judged by.

        Those in int8 are empty where not every seed was measured.
        """
        if not self.is_int8:
            return evidence.correct
        return tuple(row.correct for row in evidence.int8) if evidence.has_int8 else ()

    def objections(self, evidence: Evidence) -> list[str]:
        """Return why the claim does not hold; empty where it does."""
        found, runs = [], evidence.runs
        if len(runs) < MIN_SEEDS:
            found.append(f"{len(runs)} of {MIN_SEEDS} seeds")
        if any((run.seed or 0) < FIRST_SEED for run in runs):
            found.append(f"seeds below {FIRST_SEED}, which tuning may have used")
        if any(result(run)["test"]["evaluations"] != 1 for run in runs):
            found.append("the test split was evaluated more than once for a seed")
        if self.is_int8 and not evidence.has_int8:
            found.append(f"{len(evidence.int8)} of {len(runs)} seeds measured in int8")
        if correct := self.correct(evidence):
            accuracy = percentages(correct)
            lower, worst = accuracy.lower_end, min(accuracy.values)
            if lower is not None and lower < self.limit:
                text = f"the lower end of the one-sided interval, {cut(lower)} %"
                found.append(f"{text}, is below {self.limit:.2f} %")
            if self.worst is not None and worst < self.worst:
                found.append(f"the worst seed, {worst:.2f} %, is below {self.worst:.2f} %")
        for unit, limit in self.at_most.items():
            cost = evidence.cost(unit)
            if cost is not None and cost > limit:
                found.append(f"{cost_text(cost, unit)}, above {limit:,.0f}")
        return found

    def verdict(self, evidence: Evidence) -> str:
        """Return `yes`, or `no` with the reasons."""
        objections = self.objections(evidence)
        return f"no: {'; '.join(objections)}" if objections else "yes"


_ON_BOARD = ("instructions", "bytes of RAM", "bytes of stack")
CLAIMS = {
    claim.name: claim
    for claim in (
        Claim("smallest", "fewest parameters at 99.40 %", 99.40, ("smallest",),
              "4,838 (one run, best epoch)", ("parameters",)),
        Claim("smallest-99", "fewest parameters at 99.0 %", 99.0, ("smallest-99",),
              "697 (up to 2,000 epochs, best of 700 runs)", ("parameters",)),
        Claim("tiniest", "fewest bytes of constants at 99.40 % in int8", 99.40,
              ("tiniest",), "9.3 kB (99.44 %, one run)", ("bytes of constants",)),
        Claim("quickest", "fewest instructions of a decision on Cortex-M4 at 99.40 % in int8",
              99.40, ("quickest",),
              "2.08 million cycles on a core without multiply-accumulate (99.44 %, one run)",
              _ON_BOARD,
              at_most={"instructions": 2_000_000, "bytes of memory": 4_000}),
        Claim("quickest-99", "fewest instructions of a decision on Cortex-M4 at 99.0 % in int8",
              99.0, ("quickest-99",), "", _ON_BOARD),
        Claim("sharpest", "highest accuracy: 99.68 %, every seed 99.60 %", 99.68, ("sharpest",),
              "99.63 % (7,758 parameters, one run)", worst=99.60),
        Claim("sharpest-plain", "highest accuracy of one network with one forward pass: 99.60 %",
              99.60, ("sharpest-plain",), "99.63 % (7,758 parameters, one run)",
              at_most={"forward passes": 1}),
        Claim("fewest-epochs", "fewest epochs to 99.40 %", 99.40, ("fewest-epochs",),
              "10 as a full run; after one epoch 99.04 % (216,000 parameters)", ("epochs",),
              at_most={"epochs": 1}),
        Claim("sprint", "shortest time to 99.40 %", 99.40, ("sprint",),
              "none for two processor cores", ("seconds",)),
        Claim("uplift", "a published network at 99.50 % in 10 epochs", 99.50,
              tuple(f"records/uplift/{path.name}"
                    for path in sorted((HERE / "uplift").glob("*.toml"))),
              at_most={"epochs": 10}),
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
