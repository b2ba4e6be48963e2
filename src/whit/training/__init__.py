"""One run, from plan to result."""

__all__ = [
    "callback",
    "checkpoint",
    "checkpointer",
    "device",
    "evaluation",
    "loop",
    "optimization",
    "outcome",
    "plan",
    "progress",
    "run",
    "setup",
    "state",
]
