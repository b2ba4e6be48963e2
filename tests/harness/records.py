"""The runs in `records/` that tests read."""

from __future__ import annotations

from pathlib import Path

RECORDS = Path(__file__).parents[2] / "records"


def first_runs() -> list[Path]:
    """Return the run of the lowest seed of each study of a record, sorted by path."""
    studies = {recipe.parents[1] for recipe in RECORDS.glob("*/*/seed-*/recipe.toml")}
    return [
        min(study.glob("seed-*"), key=lambda run: int(run.name.removeprefix("seed-")))
        for study in sorted(studies)
    ]
