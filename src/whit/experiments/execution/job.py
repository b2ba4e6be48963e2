"""A run as it is sent to a worker: all that determines it, with the same id everywhere."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Literal, Protocol

from whit.recipes.recipe import parse_recipe, recipe_id

State = Literal["finished", "diverged", "pruned", "stopped", "failed"]


@dataclass(frozen=True)
class Job:
    """One run, to be trained into `folder`."""

    recipe: str  # TOML, complete
    seed: int
    folder: str
    threads: int = 1
    device: str = "cpu"
    allow_changes: bool = False
    over_budget: bool = False  # is trained although it can never meet its budget
    # (epoch, percent): a run whose val accuracy is lower after that epoch is pruned.
    pruning_thresholds: tuple[tuple[int, float], ...] = ()
    model_sha256: str | None = None  # of a user's own model, as the driver has it
    teacher_sha256: str | None = None  # of the weights it learns from, as the driver has them
    command: tuple[str, ...] = ()  # of the driver, for the run's record

    @property
    def id(self) -> str:
        """The same for the same recipe and seed, on every machine."""
        return f"{recipe_id(parse_recipe(self.recipe, self.folder))}-{self.seed}"

    def to_json_line(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json_line(cls, line: str) -> Job:
        value = json.loads(line)
        value["pruning_thresholds"] = tuple(map(tuple, value["pruning_thresholds"]))
        value["command"] = tuple(value["command"])
        return cls(**value)


@dataclass(frozen=True)
class Outcome:
    """How a job ended; `message` says why it did not finish."""

    state: State
    message: str = ""


# Called with a running job and the number of its epochs that are done; and, at least twice a
# second, with None and 0.
ProgressCallback = Callable[[Job | None, int], None]


class Executor(Protocol):
    """Where jobs run: in processes of this machine, or of a cluster."""

    def run(
        self, jobs: Iterator[Job], on_progress: ProgressCallback
    ) -> Iterator[tuple[Job, Outcome]]: ...
