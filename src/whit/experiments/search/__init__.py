"""Recipes suggested by Optuna, trained, pruned, and kept on a Pareto front."""

__all__ = [
    "driver",
    "plot",
    "progress",
    "pruning",
    "result",
    "space",
    "space_file",
    "storage",
    "trials",
]
