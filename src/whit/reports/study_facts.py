"""Runs of one recipe over seeds, with what can be found out about them together."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from whit.comparison import seed_order
from whit.data.splits import Split
from whit.errors import InputError
from whit.job import recipe_id
from whit.reports.run_facts import Account, account_of, mismatches_of, split_of
from whit.run_record import RunRecord, find_runs, read_run
from whit.seeds import Seeds, is_judged


@dataclass(frozen=True)
class Study:
    """Seeds of one recipe; `missing` says of each run without an accuracy why it has none.

    `altered` says what was altered in the others, by their seals. `middle` is the run of median
    accuracy, evaluated anew; None where a study is one of many. `images` are the split's.
    """

    seeds: Seeds
    missing: tuple[str, ...]
    altered: tuple[str, ...]
    middle: Account | None
    images: Split | None

    @property
    def often_wrong(self) -> tuple[tuple[int, int], ...]:
        """(place in the split, number of seeds) of images that more than half of the seeds miss.

        The most often missed come first. Records keep them for the test split only.
        """
        counts = Counter(place for reading in self.seeds.last for place in set(reading.wrong))
        half = len(self.seeds.runs) / 2
        found = [(place, count) for place, count in counts.items() if count > half]
        return tuple(sorted(found, key=lambda item: (-item[1], item[0])))


@dataclass(frozen=True)
class Group:
    """Runs of one recipe that lie together, in the order of their seeds, and what is damaged."""

    name: str
    runs: tuple[RunRecord, ...]
    damages: tuple[str, ...] = ()


Known = dict[object, Split | None]  # images by what they are known to be, loaded once


def study_of(group: Group, model: nn.Module | None = None, known: Known | None = None) -> Study:
    """Find out about a group of runs what can be.

    One of several studies shares the images that are `known`; a single one has its run of median
    accuracy evaluated anew. Raises InputError when none of them has finished.
    """
    judged = tuple(run for run in group.runs if is_judged(run))
    if not judged:
        raise InputError(
            [
                f"{group.name}: no finished run in it that read the test or val split.",
                *group.damages,
            ]
        )
    diverged = tuple(run for run in group.runs if run.state == "diverged")
    others = [run for run in group.runs if run not in judged and run not in diverged]
    missing = [f"seed {run.seed}: {run.state}, in no number below." for run in others]
    seeds = Seeds(group.name, judged, diverged)
    altered = tuple(v.message for run in judged for v in mismatches_of(run))
    middle = account_of(_middle(seeds), model) if known is None else None
    images = middle.images if middle else None
    if images is None:
        images = _images_of(judged[0], {} if known is None else known)
    return Study(seeds, (*group.damages, *missing), altered, middle, images)


def _images_of(run: RunRecord, known: Known) -> Split | None:
    key = (run.recipe.data.name, run.recipe.data.val, run.recipe.train.test,
           str(run.environment.get("data_sha256")))  # fmt: skip
    if key not in known:
        known[key] = split_of(run)
    return known[key]


def groups_in(folder: Path) -> list[Group]:
    """Return the runs of a folder, or of the folders in it, by recipe.

    Raises InputError for a folder that may not be listed, or without any run.
    """
    found: list[tuple[str, list[Path]]] = []
    direct = find_runs([folder])
    if direct:
        found.append((folder.name, direct))
    try:
        below = sorted(path for path in folder.iterdir() if path not in direct)
    except OSError as error:
        raise InputError(f"{folder}: cannot be read: {error.strerror}.") from None
    found += [(path.name, find_runs([path])) for path in below if os.path.isdir(path)]
    groups = [group for name, paths in found if paths for group in _by_recipe(name, paths)]
    if not groups:
        raise InputError(f"{folder}: no run in it, nor in a folder in it.")
    names = [group.name for group in groups]
    if len(set(names)) == len(names):
        return groups
    return [Group(f"{g.name} {place}", g.runs, g.damages) for place, g in enumerate(groups, 1)]


def _by_recipe(folder: str, paths: Sequence[Path]) -> list[Group]:
    runs: dict[str, list[RunRecord]] = {}
    damages: list[str] = []
    for path in paths:
        try:
            run = read_run(path)
        except InputError as error:
            damages += error.problems
            continue
        runs.setdefault(recipe_id(run.recipe), []).append(run)
    if not runs:
        return [Group(folder, (), tuple(damages))]
    names = [found[0].recipe.name for found in runs.values()]
    groups = []
    for name, (digest, found) in zip(names, runs.items(), strict=True):
        shown = name if names.count(name) == 1 else digest
        groups.append(Group(shown, tuple(sorted(found, key=seed_order)), tuple(damages)))
        damages = []  # once is enough
    return groups


def _middle(seeds: Seeds) -> RunRecord:
    ranked = sorted(
        zip(seeds.last, seeds.runs, strict=True),
        key=lambda pair: (pair[0].correct, seed_order(pair[1])),
    )
    return ranked[(len(ranked) - 1) // 2][1]
