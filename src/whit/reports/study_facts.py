"""Runs of one recipe over several seeds, and their joint results."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from whit.data.splits import Split
from whit.errors import InputError
from whit.experiments.comparison import seed_order
from whit.experiments.seed_group import SeedGroup, is_judged
from whit.recipes.recipe import sample_id
from whit.reports.run_facts import (
    RunFacts,
    collect_run_facts,
    find_mismatches,
    load_run_split,
)
from whit.runs import layout
from whit.runs.reader import RunRecord, edited_message, read_run
from whit.system.console import OnStage, ignore_stage

_SEARCH_DEPTH = 5  # of the runs in a folder of searches
SplitCache = dict[object, Split | None]  # by data set, size of val, split and digest


@dataclass(frozen=True)
class StudyFacts:
    """Seeds of one recipe; `missing` has the reason for each run without an accuracy.

    `altered` lists what was altered in those of them that are edited, by their digests.
    `median_run` is the run of median accuracy, evaluated again; None for a study among several.
    `images` is the split.
    """

    seeds: SeedGroup
    missing: tuple[str, ...]
    altered: tuple[str, ...]
    median_run: RunFacts | None
    images: Split | None

    @property
    def commonly_misclassified(self) -> tuple[tuple[int, int], ...]:
        """(index in the split, number of seeds) of images misclassified by most of the seeds.

        The most often misclassified come first. Runs record them for the test split only.
        """
        counts = Counter(index for last in self.seeds.last for index in set(last.misclassified))
        half = len(self.seeds.runs) / 2
        common = [(index, count) for index, count in counts.items() if count > half]
        return tuple(sorted(common, key=lambda item: (-item[1], item[0])))


@dataclass(frozen=True)
class RunGroup:
    """Runs of one recipe in one folder, sorted by seed, and the problems of damaged ones."""

    name: str
    runs: tuple[RunRecord, ...]
    damages: tuple[str, ...] = ()


def collect_study_facts(
    group: RunGroup,
    model: nn.Module | None = None,
    cache: SplitCache | None = None,
    on_stage: OnStage = ignore_stage,
) -> StudyFacts:
    """Collect all that the files of a group of runs allow.

    With a `cache` of images, as for one of several studies, nothing is recomputed; without one
    the run of median accuracy is evaluated again. `on_stage` is called with the name of each slow
    stage. Raises InputError without a finished run.
    """
    judged = tuple(run for run in group.runs if is_judged(run))
    edited = [run for run in group.runs if run.edited]
    if not judged:
        problem = f"{group.name}: contains no finished run that was evaluated on test or val."
        messages = [edited_message(run.path, run.edited) for run in edited]
        raise InputError([problem, *group.damages, *messages])
    diverged = tuple(run for run in group.runs if run.state == "diverged")
    others = [run for run in group.runs if run not in judged and run not in diverged]
    missing = [f"seed {run.seed}: {run.state}, not included in the results." for run in others]
    seeds = SeedGroup(group.name, judged, diverged)
    altered = tuple(v.message for run in edited for v in find_mismatches(run))
    median_run = None
    if cache is None:
        median_run = collect_run_facts(_find_median_run(seeds), model, on_stage)
    images = median_run.images if median_run else None
    if images is None:
        images = _load_cached(judged[0], {} if cache is None else cache)
    return StudyFacts(seeds, (*group.damages, *missing), altered, median_run, images)


def _load_cached(run: RunRecord, cache: SplitCache) -> Split | None:
    key = (run.recipe.data.name, run.recipe.data.held_out, run.recipe.eval.test,
           str(run.environment.get("data_sha256")))  # fmt: skip
    if key not in cache:
        cache[key] = load_run_split(run)
    return cache[key]


def find_groups(folder: Path) -> list[RunGroup]:
    """Return the runs of a folder, or of the folders in it, by recipe; of a search its trials.

    Raises InputError for a folder that cannot be listed, or without any run.
    """
    if os.path.isdir(folder / "trials"):
        folder = folder / "trials"
    direct = layout.find_runs([folder])
    children = [path for path in layout.list_folder(folder) if path not in direct]
    folders = [(folder.name, direct)]
    folders += [(path.name, layout.find_runs([path])) for path in children if os.path.isdir(path)]
    groups = [group for name, paths in folders if paths for group in _group_by_recipe(name, paths)]
    if not groups:
        raise InputError(_no_runs_message(folder))
    names = [group.name for group in groups]
    if len(set(names)) == len(names):
        return groups
    return [RunGroup(f"{g.name} {number}", g.runs, g.damages) for number, g in enumerate(groups, 1)]


def _no_runs_message(folder: Path) -> str:
    """Return where runs are, if they lie deeper, as those of several searches do."""
    message = f"{folder}: no run folder here or one level below"
    below: dict[str, int] = {}
    for path in layout.walk_runs(str(folder), _SEARCH_DEPTH, [layout.MAX_FOLDERS]):
        part = os.path.join(folder, Path(path).relative_to(folder).parts[0])
        below[part] = below.get(part, 0) + 1
    if not below:
        return f"{message}."
    found = ", ".join(f"{path} ({count} runs)" for path, count in below.items())
    return f"{message}. Report on one of these: {found}."


def _group_by_recipe(folder: str, paths: Sequence[Path]) -> list[RunGroup]:
    runs: dict[str, list[RunRecord]] = {}
    damages: list[str] = []
    for path in paths:
        try:
            run = read_run(path, allow_edited=True)
        except InputError as error:
            damages += error.problems
            continue
        runs.setdefault(sample_id(run.recipe), []).append(run)
    if not runs:
        return [RunGroup(folder, (), tuple(damages))]
    names = Counter(seeds[0].recipe.name for seeds in runs.values())
    groups = []
    for digest, seeds in runs.items():
        name = seeds[0].recipe.name
        unique = name if names[name] == 1 else digest
        groups.append(RunGroup(unique, tuple(sorted(seeds, key=seed_order)), tuple(damages)))
        damages = []  # listed once
    return groups


def _find_median_run(seeds: SeedGroup) -> RunRecord:
    pairs = zip(seeds.last, seeds.runs, strict=True)
    ranked = sorted(pairs, key=lambda pair: (pair[0].correct, seed_order(pair[1])))
    return ranked[(len(ranked) - 1) // 2][1]
