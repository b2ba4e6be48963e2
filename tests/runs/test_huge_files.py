"""Files of 50 GB that are one hole, pipes, folders and devices, in place of the files of a run.

Reading one of them would take minutes or never end: all are refused by their kind or size.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from whit.data.datasets import load_dataset, probe_dataset
from whit.errors import InputError
from whit.models.build import load_model
from whit.recipes.recipe import load_recipe
from whit.runs import layout
from whit.runs.manifest import verify_manifest
from whit.runs.reader import read_run, weights_problem
from whit.runs.teacher import load_teacher
from whit.system.untrusted_files import unreadable_reason
from whit.training.checkpoint import file_name, find_latest_checkpoint

HUGE = 50 << 30


def make_hole(path: Path, size: int = HUGE, start: bytes = b"") -> None:
    with path.open("wb") as stream:
        stream.write(start)
        stream.truncate(size)


KINDS: dict[str, Callable[[Path], None]] = {
    "hole": make_hole,
    "pipe": os.mkfifo,
    "folder": Path.mkdir,
    "device": lambda path: path.symlink_to("/dev/zero"),
}


@pytest.fixture
def run(undisturbed: Path, tmp_path: Path) -> Path:
    shutil.copy(undisturbed.parent / "easy.npz", tmp_path)
    return Path(shutil.copytree(undisturbed, tmp_path / "run"))


@pytest.fixture(params=KINDS)
def replace(request: pytest.FixtureRequest) -> Callable[[Path], None]:
    def replace(path: Path) -> None:
        path.unlink()
        KINDS[request.param](path)

    return replace


def test_kinds_and_sizes(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"x" * 1000)
    assert unreadable_reason(file, 1000) is None
    assert unreadable_reason(file, 999) == "larger than 999 bytes"
    make_hole(file)
    assert unreadable_reason(file, 1 << 30) == "larger than 1,073,741,824 bytes"
    reason = unreadable_reason(file, 100 << 30)
    assert reason == f"{HUGE:,} bytes, but most of them are holes"
    make_hole(file, start=b"x" * 5000)
    assert "holes" in str(unreadable_reason(file, 100 << 30))
    make_hole(file, 1 << 20)
    assert unreadable_reason(file, 1 << 30) is None  # read in a moment
    for name, kind in KINDS.items():
        if name != "hole":
            kind(tmp_path / name)
            assert unreadable_reason(tmp_path / name, 1000) == "not a regular file"
    with pytest.raises(FileNotFoundError):
        unreadable_reason(tmp_path / "nothing", 1000)


@pytest.mark.parametrize("name", layout.RECORD_FILES)
def test_files_of_the_record(run: Path, replace: Callable[[Path], None], name: str) -> None:
    replace(run / name)
    with pytest.raises(InputError, match=r"recipe.toml|larger than|not a regular file"):
        read_run(run)


@pytest.mark.parametrize("name", [layout.WEIGHTS, layout.AUDIT])
def test_files_that_are_hashed(run: Path, replace: Callable[[Path], None], name: str) -> None:
    replace(run / name)
    record = read_run(run, allow_edited=True)
    ((changed, _, now),) = verify_manifest(record.stored_result or {}, run)
    assert changed == name
    assert now == "None" or now.startswith("not read: larger than ")
    if name == layout.WEIGHTS:
        problem = weights_problem(record)
        assert problem
        assert name in problem
        recipe = load_recipe("sprint").with_overrides([f"distill.teacher={run}"])
        with pytest.raises(InputError, match=re.escape(name)):
            load_teacher(recipe)
        with pytest.raises(InputError, match=r"larger than|not a regular file"):
            load_model(record.local_recipe, Path(os.path.realpath(run / name)))


def test_checkpoints(tmp_path: Path) -> None:
    for number, kind in enumerate(KINDS.values()):
        kind(tmp_path / file_name(number, b""))
    found, damaged = find_latest_checkpoint(tmp_path, 1_000_000)
    assert found is None
    assert len(damaged) == len(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_data_sets_and_models(tmp_path: Path, kind: str) -> None:
    for name in ("data.npz", "train-images-idx3-ubyte", "net.py", "net.ipynb"):
        KINDS[kind](tmp_path / name)
    for label in ("ant", "bee"):
        (tmp_path / "images" / label).mkdir(parents=True)
        KINDS[kind](tmp_path / "images" / label / "1.png")
    for path in (tmp_path / "data.npz", tmp_path / "images", tmp_path):
        for read in (load_dataset, probe_dataset):
            with pytest.raises(InputError):
                read(str(path))
    for name in ("net.py", "net.ipynb"):
        recipe = load_recipe("sprint").with_overrides([f"model.name={tmp_path / name}:Net"])
        with pytest.raises(InputError, match=re.escape(name)):
            load_model(recipe, tmp_path / "weights")


def test_the_page(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from whit.web.worker import handle_request

    monkeypatch.chdir(run.parent)
    make_hole(run / layout.WEIGHTS)
    for what in ("network", "errors"):
        reply = handle_request(what, "run", False)
        assert reply["status"] == 409
        assert "altered after the run: weights.safetensors" in reply["error"]
    assert "altered after the run" in handle_request("report", "run", False)["body"]


def test_the_journal_of_a_search(tmp_path: Path) -> None:
    journal = pytest.importorskip("whit.experiments.search.journal")
    for kind in KINDS.values():
        path = tmp_path / "journal.log"
        kind(path)
        with pytest.raises(InputError, match="not the journal of a search"):
            journal.repair_journal(path)
        path.rmdir() if path.is_dir() else path.unlink()
    assert journal.repair_journal(path) == []
