"""The recorded runs that tests read."""

from __future__ import annotations

from pathlib import Path

RECORDS = Path(__file__).parents[2] / "records"

# Ten runs that stay as they are, whatever becomes of the records: a network with shared weights and
# residual blocks, seeds 0 to 9, one forward pass per decision.
KEPT = Path(__file__).parent / "runs" / "fewest-epochs"


def first_runs() -> list[Path]:
    """Return the run of the lowest seed of each study of a record, sorted by path."""
    studies = {recipe.parents[1] for recipe in RECORDS.glob("*/*/seed-*/recipe.toml")}
    return [min(study.glob("seed-*"), key=_seed) for study in sorted(studies)]


def runs_of(record: str) -> list[Path]:
    """Return the runs of a record with one recipe, sorted by seed."""
    return sorted((RECORDS / record).glob("*/seed-*"), key=_seed)


def _seed(run: Path) -> int:
    return int(run.name.removeprefix("seed-"))
