"""A search: Optuna asks and is told in one driver, workers train, folders keep what was found.

    <root>/<name>/
        trials/<number>/        a candidate: its recipe and its runs (see trials.py)
        journal.log             Optuna's own record, unless it is in a database (see ledger.py)
        frontier.svg            accuracy against the first other objective

Candidates are judged on val; nothing here reads the test split.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
from filelock import FileLock, Timeout

from whit.doing import teacher_sha256
from whit.durable import write_whole
from whit.errors import BudgetRefused, InputError, Interrupted, RunFailed
from whit.findings import Search, SearchOnlooker
from whit.inputs import Inputs, changed, said_of
from whit.job import Job, Outcome
from whit.ledger import Ledger
from whit.models.user_code import user_model_sha256
from whit.planning import Plan, plan
from whit.recipe import Recipe, load_recipe, parse_recipe
from whit.run_folder import receive_run
from whit.space import Space
from whit.stopping import Stop, Stopping
from whit.studying import Executor
from whit.trials import (
    Trial,
    least_by_epoch,
    read_given_up,
    read_trial,
    read_trials,
    trial_folders,
    unconfirmed,
)

# So many candidates in a row that the plan refuses mean that the budget leaves nothing.
_MOST_REFUSED = 100
_PAUSE = 1.0  # seconds between two looks at what other drivers have done


class Driver:
    """One search going on, as a context: what is under way, and what was found.

    `storage` is the address of a PostgreSQL database that several drivers share. Raises
    InputError when the folder cannot be made, another driver is at work in it, or the database
    refuses.
    """

    def __init__(
        self,
        space: Space,
        root: Path,
        executor: Executor,
        *,
        storage: str | None = None,
        seed: int = 0,
        threads: int = 1,
        device: str = "cpu",
        accept_changes: bool = False,
        command: Sequence[str] = (),
        onlooker: SearchOnlooker | None = None,
        stopping: Stopping | None = None,
    ):
        if not space.val:  # a sixth, as of MNIST's 60,000
            space = replace(space, val=max(1, plan(space.base).num_train // 6))
        self.search = Search(space, root / space.name)
        self.space = space
        self.executor = executor
        self.job = Job(
            "",
            0,
            "",
            threads=threads,
            device=device,
            accept_changes=accept_changes,
            command=tuple(command),
        )
        self.onlooker = onlooker or SearchOnlooker()
        self.stopping = stopping
        self._lock = _own(self.search.folder)
        # A database may never answer; a journal is there at once, and is not left half written.
        waits: AbstractContextManager[None] = (
            stopping.at_once() if stopping and storage else nullcontext()
        )
        try:
            with waits:
                self.ledger = Ledger(space, self.search.folder, storage, seed)
        except BaseException:
            self._lock.release()
            raise
        self.macs: dict[int, int] = {}
        self.running: dict[str, int] = {}
        self.numbers: dict[str, int] = {}  # run folder to trial
        try:
            self._refresh()
            if not accept_changes:
                self._refuse_changed()
        except BaseException:
            self._lock.release()
            raise

    def __enter__(self) -> Driver:
        return self

    def __exit__(self, *error: object) -> None:
        self._lock.release()

    def go(self, wanted: int) -> Search:
        """Search until `wanted` candidates have ended, earlier ones included, then confirm.

        Raises Interrupted when stopped, RunFailed when its files cannot be written; what is under
        way is saved, and the same call goes on.
        """
        try:
            self.onlooker.begun(self.search, wanted)
            while self._do(self._candidates(wanted)) or self.ledger.under_way_elsewhere():
                self._pause()
            while again := unconfirmed(self.search.trials, self.space):
                before = len(self.search.failures)
                done = self._do(self._finalists(again))
                if len(self.search.failures) > before:
                    break  # what fails again and again is not confirmed
                if not done:
                    self._pause()  # other drivers are at work on what is left
        except Stop as stop:
            raise Interrupted(
                f"stopped by {stop.name}: {len(self.search.trials)} candidates are trained, what "
                "was under way is saved. The same command goes on.",
                128 + stop.number,
            ) from None
        except OSError as error:
            raise RunFailed(
                f"{error.filename or self.search.folder}: {error.strerror or error}. What is "
                "trained is kept; once there is room, or leave, to write, the same command goes on."
            ) from None
        return self.search

    def _do(self, jobs: Iterator[Job]) -> int:
        """Do jobs; return how many there were."""
        done = 0
        for job, outcome in self.executor.run(jobs, self._look):
            self.running.pop(job.folder, None)
            self._take_in(job, outcome)
            self._take_from_others()
            done += 1
        self._take_from_others()
        return done

    def _look(self, job: Job | None, epochs: int) -> None:
        if self.stopping:
            self.stopping.check()
        if job:
            self.running[job.folder] = epochs
        self.ledger.beat()
        self.onlooker.moved(self.running)

    def _pause(self) -> None:
        self._look(None, 0)
        time.sleep(_PAUSE)
        self._take_from_others()

    def _candidates(self, wanted: int) -> Iterator[Job]:
        """Yield what an earlier driver left unfinished, then new candidates."""
        for number, text in self.ledger.left_over():
            recipe = parse_recipe(text, f"trial {number}")
            self._write_recipe(number, recipe)
            yield self._job(number, recipe, 0)
        while self.ledger.tried() < wanted:
            asked = self._ask(wanted)
            if asked is not None:
                yield self._job(*asked, 0)

    def _finalists(self, again: Sequence[Trial]) -> Iterator[Job]:
        for trial in again:
            had = {run.seed for run in trial.seeds.ended}
            for seed in range(self.space.seeds):
                if seed not in had and self.ledger.claim(trial.number, seed):
                    yield replace(self._job(trial.number, trial.recipe, seed), least=())

    def _ask(self, wanted: int) -> tuple[int, Recipe] | None:
        """Ask until the plan finds a candidate that can keep its budget; None if it came too late.

        Raises InputError when it seems that there is none, or the space itself fails.
        """
        for _ in range(_MOST_REFUSED):
            trial = self.ledger.ask()
            try:
                changes = self.space.suggest_changes(_OptunaSuggest(trial))
            except BaseException:
                self.ledger.refuse(trial)
                raise
            try:
                recipe = self.space.build_recipe(changes)
                recipe = recipe.changed([f"name={self.space.name}-{trial.number:04d}"])
                made = plan(self.space.for_validation(recipe))
                if made.refusals:
                    raise BudgetRefused(made.violations)
            except (InputError, BudgetRefused) as error:
                self.ledger.refuse(trial)
                self.search.refused += 1
                last = error
                continue
            if not self.ledger.accept(trial, recipe.to_toml(), wanted):
                return None
            self._write_recipe(trial.number, recipe)
            return trial.number, recipe
        raise InputError(
            f"{self.space.source}: {_MOST_REFUSED} candidates in a row were refused before "
            f"training, the last one because: {last}"
        )

    def _write_recipe(self, number: int, recipe: Recipe) -> None:
        folder = self._folder(number)
        if not (folder / "recipe.toml").exists():
            folder.mkdir(parents=True, exist_ok=True)
            write_whole(folder / "recipe.toml", recipe.to_toml().encode())
        if "macs" in self.space.objectives and number not in self.macs:
            self.macs[number] = _macs(plan(recipe))

    def _job(self, number: int, recipe: Recipe, seed: int) -> Job:
        folder = str(self._folder(number) / f"seed-{seed}")
        self.numbers[folder] = number
        validated = self.space.for_validation(recipe)
        made = plan(validated)
        costs = {
            "params": float(made.audit.params.total),
            "epochs": float(recipe.train.epochs),
        }
        if "macs" in self.space.objectives:
            costs["macs"] = float(_macs(made))
        least = least_by_epoch(costs, recipe.train.epochs, self.search.trials, self.space)
        return replace(
            self.job,
            recipe=validated.to_toml(),
            seed=seed,
            folder=folder,
            least=least,
            model_sha256=user_model_sha256(validated.model.name),
            teacher_sha256=teacher_sha256(validated),
        )

    def _take_in(self, job: Job, outcome: Outcome) -> None:
        """Tell Optuna and the other drivers, and keep the frontier up to date."""
        number, folder = self.numbers[job.folder], Path(job.folder)
        what = f"trial {number:04d}, seed {job.seed}"
        if outcome.state not in ("finished", "diverged", "given up"):
            self.search.failures.append(f"{what}: {outcome.said}")
        files = {path.name: path.read_bytes() for path in folder.glob("*.*") if path.is_file()}
        trial = None
        if outcome.state in ("finished", "diverged"):
            trial = read_trial(folder.parent, self.macs.get(number))
        if job.seed:
            if trial:
                self.ledger.give(number, job.seed, files)
        elif outcome.state == "failed":
            self.ledger.leave(number)
        elif outcome.state != "stopped":
            values = self._values(number, trial, outcome)
            ended = outcome.state in ("finished", "diverged")
            self.ledger.tell(number, values, outcome.state, files if ended else {})
        self._keep(trial)
        self.search.given_up += outcome.state == "given up"
        self.onlooker.ended(what, outcome, trial if outcome.state == "finished" else None)

    def _take_from_others(self) -> None:
        """Make the folders of runs that other drivers have made."""
        known = {
            (trial.number, run.seed or 0)
            for trial in self.search.trials
            for run in trial.seeds.ended
        }
        for number, seed, files in list(self.ledger.from_others(known)):
            recipe = parse_recipe(self.ledger.recipe_of(number), f"trial {number}")
            self._write_recipe(number, recipe)
            receive_run(self._folder(number) / f"seed-{seed}", files)
            self._keep(read_trial(self._folder(number), self.macs.get(number)))

    def _keep(self, trial: Trial | None) -> None:
        if trial:
            others = [t for t in self.search.trials if t.number != trial.number]
            self.search.trials = sorted([*others, trial], key=lambda t: t.number)

    def _values(self, number: int, trial: Trial | None, outcome: Outcome) -> list[float] | None:
        """Return what Optuna learns; of a candidate that was given up, what it had reached."""
        if outcome.state == "given up":
            trial = read_given_up(self._folder(number), self.macs.get(number))
        return [trial.values[name] for name in self.space.objectives] if trial else None

    def _refresh(self) -> None:
        """Read what is there already."""
        if "macs" in self.space.objectives:
            for path in trial_folders(self.search.folder):
                with suppress(InputError):  # left half made; who takes it over writes it anew
                    self.macs[int(path.name)] = _macs(plan(load_recipe(path)))
        self.search.trials = read_trials(self.search.folder, self.space, self.macs)
        self._take_from_others()
        self.search.given_up = self.ledger.count("given up")
        self.search.refused = self.ledger.count("refused")

    def _refuse_changed(self) -> None:
        """Raise InputError when candidates were trained from another model, teacher or data."""
        inputs, folder = Inputs(), self.search.folder
        counts: Counter[str] = Counter()
        gone: dict[str, None] = {}  # each once, in their order
        for trial in self.search.trials:
            runs = trial.seeds.ended
            try:
                counts += changed(runs, inputs.of(runs[0].recipe, with_data=True))
            except InputError as error:
                gone |= dict.fromkeys(error.problems)
        problems = [
            f"{folder}: what candidates were trained from is not as it was: {problem} Put it back, "
            "or add --accept-changes."
            for problem in gone
        ]
        if problems := [*problems, *said_of(folder, counts, "runs")]:
            raise InputError(problems)

    def _folder(self, number: int) -> Path:
        return self.search.folder / "trials" / f"{number:04d}"


class _OptunaSuggest:
    """Optuna's suggestions under the names that a space uses."""

    def __init__(self, trial: optuna.Trial):
        self.trial = trial

    def integer(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        return self.trial.suggest_int(name, low, high, step=step, log=log)

    def number(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        return self.trial.suggest_float(name, low, high, log=log)

    def one_of(self, name: str, options: Sequence[Any]) -> Any:
        # Optuna stores only text and numbers, so it chooses an index.
        return options[self.trial.suggest_categorical(name, range(len(options)))]


def _own(folder: Path) -> FileLock:
    """Make the folder of a search, for this process alone."""
    lock = FileLock(folder / "lock", timeout=0)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise InputError(
            f"{folder}: another search is going on in it. Wait for it, stop it, or give --out."
        ) from None
    except OSError as error:
        raise InputError(f"{folder}: cannot be made: {error.strerror}.") from None
    return lock


def _macs(made: Plan) -> int:
    if made.audit.macs is None:
        raise InputError(f"{made.recipe.name}: its multiply-adds are not known.")
    return made.audit.macs
