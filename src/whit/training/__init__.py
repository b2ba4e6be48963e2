"""One run, from plan to result."""

__all__ = [
    "callback",
    "checkpoint",
    "checkpointer",
    "device",
    "distillation",
    "evaluation",
    "loop",
    "objective",
    "optim",
    "outcome",
    "plan",
    "progress",
    "qat",
    "run",
    "setup",
    "state",
]
