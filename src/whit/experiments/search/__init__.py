"""Recipes suggested by Optuna, trained, pruned, and kept on a Pareto front."""

__all__ = [
    "database",
    "driver",
    "journal",
    "plot",
    "pruning",
    "result",
    "search_progress",
    "space",
    "space_file",
    "space_schema",
    "storage",
    "suggestion",
    "trials",
]
