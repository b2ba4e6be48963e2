"""Many runs: seeds, statistics, search, and where they execute."""

__all__ = [
    "comparison",
    "execution",
    "search",
    "seed_group",
    "statistics",
    "study",
    "study_progress",
]
