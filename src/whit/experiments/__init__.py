"""Experiments of many runs: seeds, statistics, studies, searches, and their execution."""

__all__ = [
    "comparison",
    "execution",
    "search",
    "seed_group",
    "statistics",
    "study",
    "study_progress",
]
