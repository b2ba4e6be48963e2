"""A run as it is handed to a worker: all that decides it, and a name that is the same everywhere.

Doing a job twice does it once: a run folder with a result is left as it is, one without is
resumed. So an executor may hand a job out again whenever it is in doubt.
"""

from __future__ import annotations

import hashlib
import json
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from whit.errors import BudgetRefused, Diverged, GivenUp, InputError, Interrupted, WhitError
from whit.planning import Plan, plan
from whit.recipe import Recipe, parse_recipe
from whit.record import EpochRecord
from whit.run import Watch, resume, run
from whit.run_folder import RunFolder
from whit.run_record import read_run

State = Literal["finished", "diverged", "given up", "stopped", "failed"]
# Called with the number of epochs done, from 0 on.
Progress = Callable[[int], None]


@dataclass(frozen=True)
class Job:
    """One run to be made in `folder`."""

    recipe: str  # TOML, complete
    seed: int
    folder: str
    threads: int = 1
    device: str = "cpu"
    accept_changes: bool = False
    # (epoch, percent): a run whose val accuracy is lower after that epoch is given up.
    least: tuple[tuple[int, float], ...] = ()
    command: tuple[str, ...] = ()  # of the driver, for the run's record

    @property
    def id(self) -> str:
        """The same for the same recipe and seed, on every machine."""
        recipe = parse_recipe(self.recipe, self.folder)
        return f"{recipe_id(recipe)}-{self.seed}"

    def to_line(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_line(cls, line: str) -> Job:
        value = json.loads(line)
        value["least"] = tuple((epoch, percent) for epoch, percent in value["least"])
        value["command"] = tuple(value["command"])
        return cls(**value)


@dataclass(frozen=True)
class Outcome:
    """How a job ended; `said` tells why it did not finish."""

    state: State
    said: str = ""


def recipe_id(recipe: Recipe) -> str:
    """Return a name that equal recipes share and others do not; the description does not count."""
    plain = recipe.model_copy(update={"description": ""})
    return f"{recipe.name}-{hashlib.sha256(plain.to_toml().encode()).hexdigest()[:8]}"


def do(job: Job, progress: Progress = lambda epochs: None) -> Outcome:
    """Make the run, or go on with it; every failure becomes an Outcome in plain words."""
    folder = Path(job.folder)
    watch = _Watch(job, progress)
    try:
        if (folder / "recipe.toml").exists():
            ended = read_run(folder).result
            if ended is not None:
                return Outcome(ended["state"])
            resume(folder, accept_changes=job.accept_changes, watch=watch)
        else:
            made = plan(parse_recipe(job.recipe, job.folder))
            run(
                made,
                seed=job.seed,
                out=folder,
                device=job.device,
                threads=job.threads,
                watch=watch,
            )
    except Diverged as error:
        return Outcome("diverged", str(error))
    except GivenUp as error:
        return Outcome("given up", str(error))
    except Interrupted as error:
        return Outcome("stopped", str(error))
    except (InputError, BudgetRefused, WhitError) as error:
        return Outcome("failed", str(error))
    except Exception:
        return Outcome("failed", traceback.format_exc())
    return Outcome("finished")


class _Watch(Watch):
    """Tells how far a run is, and gives up one that stays too low."""

    def __init__(self, job: Job, progress: Progress):
        self.least = dict(job.least)
        self.progress = progress

    def started(self, plan: Plan, folder: RunFolder) -> None:
        self.progress(0)

    def resumed(self, plan: Plan, folder: RunFolder, place: str, said: list[str]) -> None:
        self.progress(len(read_run(folder.path).log))

    def trained(self, record: EpochRecord) -> None:
        self.progress(record.epoch)
        least = self.least.get(record.epoch)
        if least is None:
            return
        for reading in record.evaluations:
            if reading.split == "val" and 100 * reading.correct < least * reading.total:
                raise GivenUp(
                    f"{reading.accuracy:.2f} % on val after epoch {record.epoch}, "
                    f"wanted {least:.2f} %."
                )


def as_message(kind: str, value: Any) -> str:
    """Return a line from a worker to its driver."""
    return json.dumps({kind: value}) + "\n"
