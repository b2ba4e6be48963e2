"""Hyperparameter search: Optuna suggests, workers train, folders hold the trials.

    <root>/<name>/
        trials/<number>/        a trial: its recipe and its runs (see trials.py)
        journal.log             Optuna's storage, unless it is in a database (see storage.py)
        frontier.svg            plot of the Pareto front: accuracy against the first other objective

Trials are evaluated on val, never on test.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import nullcontext, suppress
from dataclasses import replace
from pathlib import Path

from filelock import FileLock, Timeout

from whit.data.datasets import probe_dataset
from whit.errors import InputError, RunFailed
from whit.experiments.execution.job import Executor, Job, Outcome
from whit.experiments.search import trials
from whit.experiments.search.pruning import pruning_thresholds
from whit.experiments.search.result import SearchCallback, SearchResult
from whit.experiments.search.space import Space
from whit.experiments.search.storage import TrialStorage
from whit.experiments.search.suggestion import SpaceExhausted, Suggester
from whit.experiments.search.trials import Trial
from whit.recipes.recipe import RECIPE_FILE, Recipe, load_recipe, parse_recipe
from whit.runs.folder import import_run
from whit.system.atomic_files import atomic_write
from whit.system.file_names import name_problem
from whit.system.signals import SignalHandler, StopRequested
from whit.training.plan import make_plan
from whit.verification import provenance

_POLL_SECONDS = 1.0  # between two queries of what other drivers have done


class SearchDriver:
    """One search, as a context that locks its folder.

    `storage` is the address of a PostgreSQL database that several drivers share. Raises
    InputError when the folder cannot be created, another driver uses it, or the database cannot be
    used.
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
        allow_changes: bool = False,
        command: Sequence[str] = (),
        callback: SearchCallback | None = None,
        signals: SignalHandler | None = None,
    ):
        space = space.with_val(probe_dataset(space.base.data).num_train)
        self.search = SearchResult(space, root / space.name)
        self.space = space
        self.executor = executor
        self.job = Job("", 0, "", threads, device, allow_changes, command=tuple(command))
        self.callback = callback or SearchCallback()
        self.signals = signals
        self.numbers: dict[str, int] = {}  # run folder to trial
        self._lock = _lock_folder(self.search.folder)
        try:
            # A database may never respond; a journal does, and must not be left half written.
            with signals.interruptible() if signals and storage else nullcontext():
                self.storage = TrialStorage(space, self.search.folder, storage, seed)
            self.search.messages += self.storage.repairs
            self._adopt_trials()
            self.search.trials, self.search.excluded = trials.read_trials(self.search.folder, space)
            self._fetch_remote()
            self.search.pruned = self.storage.count("pruned")
            self.suggester = Suggester(space, self.storage)
            self.search.infeasible = self.suggester.num_infeasible
            if not allow_changes:
                self._refuse_changed()
        except BaseException:
            self._lock.release()
            raise

    def __enter__(self) -> SearchDriver:
        return self

    def __exit__(self, *error: object) -> None:
        self._lock.release()

    def run(self, num_trials: int) -> SearchResult:
        """Search until `num_trials` have ended, earlier ones included, then run confirmations.

        Raises Interrupted when stopped, RunFailed when its files cannot be written; running trials
        are saved, and the same call resumes.
        """
        self.search.requested = num_trials
        try:
            with self.callback:
                self._run()
        except StopRequested as stop:
            raise stop.to_error(
                f": {len(self.search.trials)} trials completed, running ones saved. Run the same "
                "command again to resume."
            ) from None
        except OSError as error:
            raise RunFailed(
                f"{error.filename or self.search.folder}: {error.strerror or error}. Completed "
                "trials are kept. Free disk space or make the folder writable, then run the same "
                "command again to resume."
            ) from None
        return self.search

    def _run(self) -> None:
        if num_earlier := len(self.search.trials):
            plural = "s" if num_earlier > 1 else ""
            messages = [f"Resuming: {num_earlier} trial{plural} already done."]
            self.callback.on_resume(self.search, [*messages, *self.search.messages])
        elif self.search.messages:
            self.callback.on_resume(self.search, self.search.messages)
        else:
            self.callback.on_start(self.search)
        while self._run_jobs(self._new_trials()) or self.storage.num_running_elsewhere():
            self._pause()
        while unconfirmed := trials.needs_confirmation(self.search.trials, self.space):
            num_failures = len(self.search.failures)
            num_jobs = self._run_jobs(self._confirmation_runs(unconfirmed))
            if len(self.search.failures) > num_failures:
                break  # a trial that fails again is not confirmed
            if not num_jobs:
                self._pause()  # other drivers train the rest

    def _run_jobs(self, jobs: Iterator[Job]) -> int:
        """Run jobs; return how many there were."""
        num_jobs = 0
        for job, outcome in self.executor.run(jobs, self._on_epochs):
            self.search.running.pop(job.folder, None)
            self._record(job, outcome)
            self._fetch_remote()
            num_jobs += 1
        self._fetch_remote()
        return num_jobs

    def _on_epochs(self, job: Job | None, epochs: int) -> None:
        if self.signals:
            self.signals.check()
        if job:
            self.search.running[job.folder] = epochs
        self.storage.heartbeat()
        self.callback.on_progress()

    def _pause(self) -> None:
        self._on_epochs(None, 0)
        time.sleep(_POLL_SECONDS)
        self._fetch_remote()

    def _new_trials(self) -> Iterator[Job]:
        """Yield what an earlier driver left unfinished, then new trials."""
        for number, text in self.storage.orphaned():
            recipe = parse_recipe(text, f"trial {number}")
            self._write_recipe(number, recipe)
            yield self._job(number, recipe, 0)
        while self.storage.num_trials() < self.search.requested:
            try:
                trial = self.suggester.suggest(self.search.requested)
            except SpaceExhausted as exhausted:
                self.search.exhausted = str(exhausted)
                return
            finally:
                self.search.infeasible = self.suggester.num_infeasible
            if trial:
                self._write_recipe(*trial)
                yield self._job(*trial, 0)

    def _confirmation_runs(self, unconfirmed: Sequence[Trial]) -> Iterator[Job]:
        for trial in unconfirmed:
            ended = {run.seed for run in trial.seeds.ended}
            for seed in range(self.space.seeds):
                if seed not in ended and self.storage.claim(trial.number, seed):
                    job = self._job(trial.number, trial.recipe, seed)
                    yield replace(job, pruning_thresholds=())

    def _write_recipe(self, number: int, recipe: Recipe) -> None:
        folder = self._folder(number)
        if not (folder / RECIPE_FILE).exists():
            folder.mkdir(parents=True, exist_ok=True)
            atomic_write(folder / RECIPE_FILE, recipe.to_toml().encode())

    def _job(self, number: int, recipe: Recipe, seed: int) -> Job:
        folder = str(self._folder(number) / f"seed-{seed}")
        self.numbers[folder] = number
        for_val = self.space.for_validation(recipe, seed)
        plan, epochs = make_plan(for_val), recipe.train.epochs
        costs = {"params": float(plan.audit.params.total), "epochs": float(plan.epochs)}
        if "macs" in self.space.objectives:
            costs["macs"] = float(trials.known_macs(plan))
        return replace(
            self.job,
            recipe=for_val.to_toml(),
            seed=seed,
            folder=folder,
            pruning_thresholds=pruning_thresholds(costs, epochs, self.search.trials, self.space),
            model_sha256=plan.source.sha256 if plan.source else None,
            teacher_sha256=plan.teacher.sha256 if plan.teacher else None,
        )

    def _record(self, job: Job, outcome: Outcome) -> None:
        """Tell Optuna and the other drivers, and update the result."""
        number, folder = self.numbers[job.folder], Path(job.folder)
        name = f"trial {number:04d}, seed {job.seed}"
        if outcome.state not in ("finished", "diverged", "pruned"):
            self.search.failures.append(f"{name}: {outcome.message}")
        files = {path.name: path.read_bytes() for path in folder.glob("*.*") if path.is_file()}
        ended = outcome.state in ("finished", "diverged")
        trial = trials.read_trial(folder.parent, self.space) if ended else None
        if job.seed:
            if trial:
                self.storage.publish(number, job.seed, files)
        elif outcome.state == "failed":
            self.storage.release(number)
        elif outcome.state != "stopped":
            is_pruned = outcome.state == "pruned"  # it has the values of its last epoch
            told = trials.read_pruned(folder.parent, self.space) if is_pruned else trial
            values = [told.values[name] for name in self.space.objectives] if told else None
            self.storage.tell(number, values, outcome.state, files if ended else {})
        self._add(trial)
        self.search.pruned += outcome.state == "pruned"
        self.callback.on_run_end(name, folder, outcome)

    def _fetch_remote(self) -> None:
        """Write the folders of runs that other drivers have trained."""
        known = {(t.number, run.seed or 0) for t in self.search.trials for run in t.seeds.ended}
        for number, seed, files in list(self.storage.fetch_remote(known)):
            recipe = parse_recipe(self.storage.load_recipe(number), f"trial {number}")
            self._write_recipe(number, recipe)
            import_run(self._folder(number) / f"seed-{seed}", files)
            self._add(trials.read_trial(self._folder(number), self.space))

    def _adopt_trials(self) -> None:
        """Take the trials in the folder whose records the journal has lost."""
        recipes = {}
        for folder in trials.trial_folders(self.search.folder):
            with suppress(InputError):
                recipes[int(folder.name)] = load_recipe(folder).to_toml()
        if count := self.storage.adopt(recipes):
            self.search.messages.append(
                f"{count} trial{'s' if count > 1 else ''} taken from {self.search.folder}/trials: "
                "the journal has no record of them."
            )

    def _add(self, trial: Trial | None) -> None:
        if trial:
            others = [t for t in self.search.trials if t.number != trial.number]
            self.search.trials = sorted([*others, trial], key=lambda t: t.number)

    def _refuse_changed(self) -> None:
        """Raise InputError when trials were trained from another model, teacher or data."""
        inputs, folder = provenance.InputDigests(), self.search.folder
        counts: Counter[str] = Counter()
        missing: dict[str, None] = {}  # each once, in their order
        for trial in self.search.trials:
            runs = trial.seeds.ended
            try:
                digests = inputs.read(runs[0].recipe, with_data=True)
                counts += provenance.count_changed(runs, digests)
            except InputError as error:
                missing |= dict.fromkeys(error.problems)
        problems = [
            f"{folder}: an input of its trials has changed: {problem} Restore it, or add "
            "--allow-changes."
            for problem in missing
        ]
        if problems := [*problems, *provenance.format_changes(folder, counts, "runs")]:
            raise InputError(problems)

    def _folder(self, number: int) -> Path:
        return self.search.folder / "trials" / f"{number:04d}"


def _lock_folder(folder: Path) -> FileLock:
    """Create the folder of a search, and lock it for this process."""
    if problem := name_problem(folder):
        raise InputError(f"--out {str(folder.parent)!r}: {problem}; give another path.")
    lock = FileLock(folder / "lock", timeout=0)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise InputError(
            f"{folder}: another search is running in it. Wait, stop it, or give another --out."
        ) from None
    except OSError as error:
        raise InputError(f"{folder}: cannot be created: {error.strerror}.") from None
    return lock
