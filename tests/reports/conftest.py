"""A small study of three seeds whose networks leave many images wrong."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from report_page import train

from whit.recipes.recipe import Recipe, load_recipe


@pytest.fixture(scope="session")
def easy(easy_npz: Path) -> Recipe:
    """A recipe that leaves many images wrong."""
    return load_recipe("sprint").with_overrides(
        [
            "name=easy",
            "model.name=plain",
            "model.widths=[4, 8]",
            "model.pool_after=[1, 2]",
            f"data.name={easy_npz}",
            "train.epochs=2",
            "train.batch_size=50",
            "budget.accuracy=>= 10",
        ]
    )


@pytest.fixture(scope="session")
def runs(easy: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of three seeds."""
    folder = tmp_path_factory.mktemp("runs") / "easy-study"
    for seed in range(3):
        train(easy, folder / f"seed-{seed}", seed)
    return folder


@pytest.fixture
def finished(runs: Path, tmp_path: Path) -> Path:
    """A run that a test may spoil."""
    return Path(shutil.copytree(runs / "seed-0", tmp_path / "seed-0"))
