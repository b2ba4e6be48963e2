"""One run, from plan to result."""

__all__ = ["callback", "device", "evaluation", "optimization", "plan", "progress", "run"]
