"""The journal of a search, cut, filled with zeros or damaged: repaired, or refused with advice."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import optuna
import pytest

from whit.errors import InputError, RunFailed
from whit.experiments.search.journal import Journal, repair_journal
from whit.experiments.search.space import Space
from whit.experiments.search.storage import TrialStorage
from whit.recipes.recipe import load_recipe


@pytest.fixture
def space() -> Space:
    return Space(
        name="tiny",
        source="tiny.toml",
        base=load_recipe("sprint"),
        objectives=("params", "accuracy"),
        val=100,
        seeds=1,
        min_accuracy=0.0,
        suggest=lambda trial: {"train.epochs": trial.suggest_int("train.epochs", 1, 4)},
        text="{}",
    )


def fill(space: Space, folder: Path, count: int) -> list[str]:
    """Record trials that ended; return their recipes, by number."""
    storage = TrialStorage(space, folder, None, 0)
    recipes = []
    for number in range(count):
        trial = storage.ask()
        trial.suggest_int("train.epochs", 1, 4)
        recipe = space.base.with_overrides([f"name=tiny-{number:04d}", f"optim.lr=0.{number + 1}"])
        recipes.append(recipe.to_toml())
        assert storage.accept(trial, recipes[-1], 99) == "accepted"
        storage.tell(trial.number, [1000.0, 90.0 + number], "finished", {})
    return recipes


def records(journal: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in journal.read_bytes().splitlines()]


def test_a_journal_cut_at_every_byte_is_repaired(space: Space, tmp_path: Path) -> None:
    fill(space, tmp_path, 2)
    journal = tmp_path / "journal.log"
    content = journal.read_bytes()
    for size in range(len(content)):
        journal.write_bytes(content[:size])
        repairs = repair_journal(journal)
        kept = journal.read_bytes()
        assert kept in (content[: len(kept)], content[:size] + b"\n")
        complete = content[:size].count(b"\n") + (content[size : size + 1] == b"\n")
        assert kept.count(b"\n") == complete
        assert bool(repairs) == (len(kept) < size)
        (tmp_path / "journal.log.torn").unlink(missing_ok=True)


@pytest.mark.parametrize("part", range(12))
def test_a_search_resumes_from_any_part_of_its_journal(
    space: Space, tmp_path: Path, part: int
) -> None:
    recipes = dict(enumerate(fill(space, tmp_path, 2)))
    journal = tmp_path / "journal.log"
    content = journal.read_bytes()
    journal.write_bytes(content[: len(content) * part // 12])
    storage = TrialStorage(space, tmp_path, None, 0)
    assert storage.adopt(recipes) <= 2
    orphans = dict(storage.orphaned())
    ended = [t for t in storage.study.get_trials() if t.values]
    assert orphans.keys() | {t.number for t in ended} == recipes.keys()
    assert all(orphans[number] == recipes[number] for number in orphans)
    for number in orphans:
        storage.tell(number, [1000.0, 90.0], "finished", {})
    assert storage.num_trials() == 2
    trial = storage.ask()  # the sampler accepts trials without parameters
    assert trial.number == 2
    assert 1 <= trial.suggest_int("train.epochs", 1, 4) <= 4
    again = TrialStorage(space, tmp_path, None, 0)
    assert again.repairs == []
    assert {t.number for t in again.study.get_trials() if t.values} == {0, 1}


@pytest.mark.parametrize(
    ("spoil", "removed"),
    [
        (lambda c: c + b"\0" * 4096, True),
        (lambda c: c + b"\0" * 100 + b"\n" + b"\0" * 100, True),
        (lambda c: c[:-40], True),
        (lambda c: c[:-1], False),
        (lambda c: c + c.splitlines()[-1][:30], True),
        (lambda c: c + b"\n\n", False),
        # A write that failed halfway, and one that had space again: in one line.
        (lambda c: c.replace(b'\n{"op_code":8', b'\n{"op_code":8,"work{"op_code":8', 1), True),
        (lambda c: b"\0" * 512 + c, True),
    ],
    ids=["zeros", "lines of zeros", "cut", "line end", "torn", "empty lines", "failed", "start"],
)
def test_what_was_not_written_to_its_end_is_removed_and_kept(
    space: Space, tmp_path: Path, spoil: Callable[[bytes], bytes], removed: bool
) -> None:
    fill(space, tmp_path, 2)
    journal = tmp_path / "journal.log"
    content = journal.read_bytes()
    spoilt = spoil(content)
    assert spoilt != content
    journal.write_bytes(spoilt)
    storage = TrialStorage(space, tmp_path, None, 0)
    assert len(storage.study.get_trials()) == 2
    assert bool(storage.repairs) == removed
    assert (tmp_path / "journal.log.torn").exists() == removed
    if removed:
        assert "bytes of incomplete records" in storage.repairs[0]
    assert all(isinstance(record, dict) for record in records(journal))
    assert TrialStorage(space, tmp_path, None, 0).repairs == []


@pytest.mark.parametrize("content", [b"", b"\n", b"\0" * 300, b'{"op_co'])
def test_a_journal_without_a_record_is_begun_again(
    space: Space, tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "journal.log").write_bytes(content)
    storage = TrialStorage(space, tmp_path, None, 0)
    assert storage.ask().number == 0


@pytest.mark.parametrize(
    "line", [b'{"op_code":5,"wor', b"nonsense", b"[1, 2]", b"\xff\xfe", b"{}" * 5]
)
def test_a_damaged_record_that_others_follow_is_named(
    space: Space, tmp_path: Path, line: bytes
) -> None:
    fill(space, tmp_path, 2)
    journal = tmp_path / "journal.log"
    lines = journal.read_bytes().splitlines()
    spoilt = b"\n".join([*lines[:3], line, *lines[4:]]) + b"\n"
    journal.write_bytes(spoilt)
    with pytest.raises(InputError, match=r"journal\.log: line 4 of .* Restore .* or remove it"):
        TrialStorage(space, tmp_path, None, 0)
    assert journal.read_bytes() == spoilt


@pytest.mark.parametrize("record", [{"op_code": 4}, {"op_code": 99, "worker_id": "x"}])
def test_records_that_contradict_each_other_are_named(
    space: Space, tmp_path: Path, record: dict[str, object]
) -> None:
    fill(space, tmp_path, 1)
    with (tmp_path / "journal.log").open("ab") as stream:
        stream.write(json.dumps(record, separators=(",", ":")).encode() + b"\n")
    with pytest.raises(InputError, match=r"journal\.log: damaged: .* Restore the file"):
        TrialStorage(space, tmp_path, None, 0)


def test_a_record_without_space_leaves_nothing_behind(
    space: Space, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(space, tmp_path, 1)
    storage = TrialStorage(space, tmp_path, None, 0)
    journal = tmp_path / "journal.log"
    before = journal.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(RunFailed, match="No space left"):
            storage.ask()
    assert journal.read_bytes() == before
    assert storage.ask().number == 1
    assert TrialStorage(space, tmp_path, None, 0).repairs == []


def test_a_lock_that_an_earlier_version_left_has_no_effect(space: Space, tmp_path: Path) -> None:
    os.symlink("journal.log", tmp_path / "journal.log.lock")
    fill(space, tmp_path, 1)
    journal = Journal(tmp_path / "journal.log")
    assert len(optuna.storages.JournalStorage(journal).get_all_studies()) == 1
