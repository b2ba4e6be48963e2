"""Every error that whit raises for a user.

    WhitError                exit code 3
    ├── InputError           exit code 2: some input was wrong; holds all problems found
    │   ├── RecipeError      a recipe's keys or values
    │   ├── SourceError      a model named as file.py:Class or notebook.ipynb:Class
    │   ├── ModelError       a model that cannot be built, or whose output has the wrong shape
    │   ├── DataError        a data set that is missing, damaged or incompatible
    │   ├── RunLocked        a run folder that another process is training
    │   └── IncompatibleResume  a run that cannot resume with equal results
    │       └── RunAlreadyFinished  a run that has a result already
    ├── BudgetInfeasible     exit code 1: the model can never meet its budget (recipes/budget.py)
    ├── RunFailed            exit code 3: the run itself failed
    │   ├── Diverged         a loss or gradient that is no longer a finite number
    │   └── LockLost         another process took over the run folder, or removed it
    ├── TrialPruned          a trial whose accuracy stayed below the pruning threshold
    └── Interrupted          exit code 130, 143 or 129: stopped by SIGINT, SIGTERM or SIGHUP

A message says what was given, what is allowed, and what to do. `assert` is for invariants of
whit and never reaches a user.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any


class WhitError(Exception):
    """Base of all errors meant for users; `exit_code` is what the command line returns."""

    exit_code = 3

    def _render_traceback_(self) -> list[str]:
        """Return what a notebook shows: the message; and where the cause is, if there is one.

        IPython shows a usual traceback when this raises.
        """
        if self.__cause__ is not None:
            raise self
        return [f"{type(self).__name__}: {self}"]


class InputError(WhitError):
    """Some input was wrong. `problems` holds one sentence for each problem, all found at once."""

    exit_code = 2

    def __init__(self, problems: str | Sequence[str]):
        self.problems = (problems,) if isinstance(problems, str) else tuple(problems)
        assert self.problems, "an InputError needs at least one problem"
        super().__init__("\n".join(self.problems))


class RecipeError(InputError):
    """A recipe's keys or values are wrong; `model` is its table of that name, where it was read."""

    def __init__(self, problems: str | Sequence[str], model: Any = None):
        super().__init__(problems)
        self.model = model


class SourceError(InputError):
    """A model named as `file.py:Class` or `notebook.ipynb:Class` cannot be loaded."""


class ModelError(InputError):
    """A model cannot be built, or gives an output of the wrong shape."""


class DataError(InputError):
    """A data set is missing, damaged, or incompatible with the recipe."""


class RunLocked(InputError):
    """Another process is training in this run folder."""


class IncompatibleResume(InputError):
    """Resuming would give another result: code, data, threads or torch differ."""


class RunAlreadyFinished(IncompatibleResume):
    """The run finished, or diverged: there is nothing to resume. `result` is its result.json."""

    def __init__(self, path: Path, result: dict[str, Any]):
        self.result = result
        message = (
            f"already finished (verdict: {result['verdict']}). Nothing to resume; nothing was "
            "changed."
        )
        if result["state"] == "diverged":
            message = (
                "diverged; if resumed, it would diverge again at the same step. Nothing was "
                "changed."
            )
        super().__init__(f"{path}: {message}")


class RunFailed(WhitError):
    """The run itself failed: it diverged, the disk was full, or the folder was lost."""


class Diverged(RunFailed):
    """The loss or a gradient is no longer a finite number, at `step` of `epoch`."""

    def __init__(self, message: str, *, epoch: int, step: int, loss: float, lr: float):
        self.epoch, self.step, self.loss, self.lr = epoch, step, loss, lr
        super().__init__(message)

    def with_advice(self, text: str) -> Diverged:
        """Return the same error with one more sentence."""
        return Diverged(f"{self} {text}", **vars(self))


class LockLost(RunFailed):
    """Another process took over the run folder, or removed it."""


class TrialPruned(WhitError):
    """A trial was below the pruning threshold of its epoch; it can be resumed."""


class Interrupted(WhitError):
    """The run was stopped by Ctrl-C (130), SIGTERM (143), or a closed terminal (SIGHUP, 129)."""

    def __init__(self, message: str, exit_code: int):
        self.exit_code = exit_code
        super().__init__(message)


def did_you_mean(given: str, allowed: Iterable[str]) -> str:
    """Return ` Did you mean 'x'?` for the nearest of `allowed`, or an empty string."""
    by_lower = {each.lower(): each for each in allowed}  # upper case is no difference
    near = difflib.get_close_matches(given.lower(), list(by_lower), n=1, cutoff=0.6)
    return f" Did you mean {by_lower[near[0]]!r}?" if near else ""
