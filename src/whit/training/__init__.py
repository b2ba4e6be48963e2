"""One run, from plan to result."""

__all__ = ["callback", "evaluation", "hardware", "optimization", "plan", "progress", "run"]
