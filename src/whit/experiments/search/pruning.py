"""Pruning: the accuracy below which a trial is stopped, from the trials that have ended."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median_low

from whit.experiments.search.space import Space
from whit.experiments.search.trials import Trial

# A trial is never pruned before this share of its epochs.
_MIN_PROGRESS = 0.3
# Trials at least as cheap that must have ended before a new one is compared with them.
_MIN_TRIALS = 5


def pruning_thresholds(
    costs: dict[str, float], epochs: int, trials: Sequence[Trial], space: Space
) -> tuple[tuple[int, float], ...]:
    """Return (epoch, percent on val) pairs: a run below one of them is pruned.

    A trial is compared with those that cost no more in any objective: where it stays below their
    median at the same progress, it cannot reach the Pareto front. Seconds are not known
    beforehand, so where they are an objective nothing is pruned.
    """
    if not costs.keys() >= set(space.costs):
        return ()
    cheaper = [t for t in trials if all(t.values[name] <= costs[name] for name in space.costs)]
    if len(cheaper) < _MIN_TRIALS:
        return ()
    return tuple(
        (epoch, median_low(_val_accuracy(trial, epoch / epochs) for trial in cheaper))
        for epoch in range(1, epochs)
        if epoch >= _MIN_PROGRESS * epochs
    )


def _val_accuracy(trial: Trial, progress: float) -> float:
    """Return percent on val at `progress` in (0, 1] of training, of the first seed."""
    log = trial.seeds.runs[0].log
    epoch = max(1, int(progress * len(log) + 1e-9))
    evaluation = next(e for e in log[epoch - 1].evaluations if e.split == "val")
    return 100 * evaluation.correct / evaluation.total
