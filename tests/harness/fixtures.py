"""A small recipe whose training takes about a second, and its run when nothing happens to it."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import pytest

from harness.processes import whit

RECIPE = """\
schema = 2
name = "easy"
[model]
name = "plain"
widths = [8, 16]
pool_after = [1, 2]
[data]
name = "easy.npz"
val_size = 100
[train]
epochs = 4
batch_size = 4
precision = "fp32"
[augment]
translate = 1.0
degrees = 2.0
[ema]
decay = 0.9
start = 0.5
[eval]
each_epoch = "val"

[budget]
params = "< 20000"
epochs = "< 20"
accuracy = ">= 90"
"""


@pytest.fixture
def workplace(tmp_path: Path, easy_npz: Path) -> Path:
    shutil.copy(easy_npz, tmp_path / "easy.npz")
    (tmp_path / "easy.toml").write_text(RECIPE)
    return tmp_path


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, easy_npz: Path) -> Path:
    """The run folder of the recipe when nothing happens to it."""
    folder = tmp_path_factory.mktemp("undisturbed")
    shutil.copy(easy_npz, folder / "easy.npz")
    (folder / "easy.toml").write_text(RECIPE)
    for name in ("warm-up", "run"):  # the first one waits for the forkserver
        started = time.monotonic()
        code, said = whit(folder, "train", "easy.toml", "--out", name, "--threads", "1", "--quiet")
        assert code == 0, said
    (folder / "seconds").write_text(str(time.monotonic() - started))
    return folder / "run"
