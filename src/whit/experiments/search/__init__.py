"""Recipes suggested by Optuna, trained, pruned, and kept on a Pareto front."""

__all__ = [
    "driver",
    "plot",
    "pruning",
    "result",
    "search_progress",
    "space",
    "space_file",
    "space_schema",
    "storage",
    "trials",
]
