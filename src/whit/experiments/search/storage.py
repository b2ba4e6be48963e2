"""Storage of a search in Optuna: a journal on one machine, or PostgreSQL for several drivers.

Each trial carries its recipe and the driver that trains it. Drivers that share a storage send
heartbeats; a trial whose driver no longer does is orphaned, and another driver takes it. Finished
runs reach the other drivers as files in the storage.
"""

from __future__ import annotations

import re
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import optuna
from optuna.trial import FrozenTrial, TrialState

from whit.errors import InputError, RunFailed
from whit.experiments.search.database import (
    advisory_lock,
    database_errors,
    open_database,
    redact,
)
from whit.experiments.search.journal import ADVICE, Journal
from whit.experiments.search.space import OBJECTIVES, Space
from whit.runs import layout
from whit.runs.lock import LockHolder

_HEARTBEAT_SECONDS = 15.0  # between two heartbeats of a driver
_DEAD_AFTER = 90.0  # seconds without one
_MAX_GAP = 1_000  # numbers of infeasible suggestions between two trials
_FIXED = "settings"  # key of what must not change


class TrialStorage:
    """The trials of one search, for one of its drivers."""

    def __init__(self, space: Space, folder: Path, address: str | None, seed: int):
        """Open or create it: in `folder`, or in the database at `address`.

        Raises InputError when the journal is damaged or the database cannot be used. `repairs` are
        sentences on what was removed from the journal.
        """
        self.address = address
        self.name = space.name
        self.repairs: list[str] = []
        self._keys: dict[int, str] = {}  # of the recipes of trials, by number
        self.driver = LockHolder.this_process()
        self._last_heartbeat = 0.0
        with self._translate_errors(InputError):
            storage: optuna.storages.BaseStorage
            if address is None:
                storage = self._open_journal(folder / "journal.log")
            else:
                storage = open_database(address)
            self.study = _open_study(space, storage, seed)

    def _open_journal(self, path: Path) -> optuna.storages.JournalStorage:
        journal = Journal(path)
        self.repairs = journal.repairs
        try:
            return optuna.storages.JournalStorage(journal)
        except (LookupError, TypeError, ValueError, AttributeError, AssertionError) as error:
            raise InputError(
                f"{path}: damaged: {type(error).__name__}: {error}. {ADVICE}"
            ) from None

    def adopt(self, recipes: Mapping[int, str]) -> int:
        """Take trials, as recipes by number, whose records were lost with a part of the journal.

        They are orphaned then; return how many. Numbers without a recipe are not trials.
        """
        if self.address is not None:
            return 0
        adopted = 0
        with self._translate_errors():
            for number, recipe in sorted(recipes.items()):
                known = {t.number: t for t in self._trials()}
                if number > len(known) + _MAX_GAP:
                    continue  # a folder that no search has made
                while number not in known:
                    trial = self.study.ask()
                    known[trial.number] = self._find(trial.number)
                    if trial.number < number:
                        self.study.tell(trial, state=TrialState.FAIL)
                if known[number].state.is_finished() or known[number].user_attrs.get("recipe"):
                    continue
                trial = optuna.Trial(self.study, known[number]._trial_id)
                trial.set_user_attr("recipe", recipe)
                adopted += 1
        return adopted

    def enqueue(self, params: Mapping[str, Any]) -> None:
        """Make the next trial one with these parameters."""
        with self._translate_errors():
            self.study.enqueue_trial(dict(params))

    def tried_params(self) -> list[dict[str, Any]]:
        """Return the parameters of all trials, also of those that were rejected."""
        with self._translate_errors():
            return [dict(t.params) for t in self._trials()]

    def is_known(self, recipe: str) -> bool:
        """Whether a trial has this recipe: one that ended, was pruned, or runs anywhere."""
        with self._translate_errors():
            return recipe_key(recipe) in self._recipe_keys()

    def _recipe_keys(self, excluded: int | None = None) -> set[str]:
        keys = set()
        for frozen in self._trials():
            recipe = frozen.user_attrs.get("recipe")
            if recipe and frozen.number != excluded:
                if frozen.number not in self._keys:
                    self._keys[frozen.number] = recipe_key(recipe)
                keys.add(self._keys[frozen.number])
        return keys

    def ask(self) -> optuna.Trial:
        with self._translate_errors():
            return self.study.ask()

    def reject(self, trial: optuna.Trial, outcome: str = "infeasible") -> None:
        """Record that a suggestion is infeasible or a duplicate, and does not count as a trial."""
        with self._translate_errors():
            trial.set_user_attr("outcome", outcome)
            self.study.tell(trial, state=TrialState.FAIL)

    def accept(
        self, trial: optuna.Trial, recipe: str, num_trials: int
    ) -> Literal["accepted", "duplicate", "enough"]:
        """Record a trial's recipe and that this driver trains it.

        Unless another trial has the recipe, or other drivers have started `num_trials` in the
        meantime: then it is no trial.
        """
        with self._translate_errors(), self._exclusive():
            if recipe_key(recipe) in self._recipe_keys(excluded=trial.number):
                self.reject(trial, "duplicate")
                return "duplicate"
            earlier = [t for t in self._trials() if t.number < trial.number and _counts(t)]
            if len(earlier) >= num_trials:
                self.study.tell(trial, state=TrialState.FAIL)
                return "enough"
            trial.set_user_attr("recipe", recipe)
            trial.set_user_attr("driver", asdict(self.driver))
            return "accepted"

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        """Exclude the other drivers of this search, which would accept the same recipe."""
        with ExitStack() as stack:
            if self.address is not None:
                key = int.from_bytes(sha256(self.name.encode()).digest()[:7], "big")
                stack.enter_context(advisory_lock(self.address, key))
            yield

    def tell(
        self, number: int, values: list[float] | None, outcome: str, files: Mapping[str, bytes]
    ) -> None:
        """Record how a trial ended; `values` is None where it has none."""
        with self._translate_errors():
            frozen = self._find(number)
            if frozen.state.is_finished():
                return  # another driver trained it too, with the same result
            # Optuna has no public way from a number to a trial that can be changed.
            trial = optuna.Trial(self.study, frozen._trial_id)
            trial.set_user_attr("outcome", outcome)
            if self.address:
                trial.set_user_attr("files", _decode(files))
            self.study.tell(number, values, None if values else TrialState.FAIL)

    def release(self, number: int) -> None:
        """Record that a trial failed for an external reason: the next driver retries it."""
        with self._translate_errors():
            frozen = self._find(number)
            if not frozen.state.is_finished():
                optuna.Trial(self.study, frozen._trial_id).set_user_attr("outcome", "failed")

    def num_trials(self) -> int:
        """Return how many trials have ended or are running: all but infeasible ones."""
        with self._translate_errors():
            return sum(map(_counts, self._trials()))

    def count(self, outcome: str) -> int:
        with self._translate_errors():
            return sum(t.user_attrs.get("outcome") == outcome for t in self._trials())

    def orphaned(self) -> list[tuple[int, str]]:
        """Return number and recipe of trials whose driver is dead; this driver takes them."""
        orphans = []
        with self._translate_errors():
            for frozen in self._trials(TrialState.RUNNING):
                driver, recipe = (frozen.user_attrs.get(k) for k in ("driver", "recipe"))
                if driver and self._is_alive(LockHolder(**driver)):
                    continue
                if not recipe:  # its driver died before it had one
                    started = frozen.datetime_start
                    age = time.time() - started.timestamp() if started else _DEAD_AFTER
                    if self.address is None or age >= _DEAD_AFTER:
                        self.study.tell(frozen.number, state=TrialState.FAIL)
                    continue
                trial = optuna.Trial(self.study, frozen._trial_id)
                trial.set_user_attr("driver", asdict(self.driver))
                trial.set_user_attr("outcome", None)
                orphans.append((frozen.number, str(recipe)))
        return orphans

    def num_running_elsewhere(self) -> int:
        """Return how many trials other drivers are training."""
        with self._translate_errors():
            running = [t.user_attrs for t in self._trials(TrialState.RUNNING)]
            drivers = [attrs.get("driver") for attrs in running if attrs.get("outcome") != "failed"]
            return sum(driver is None or driver["token"] != self.driver.token for driver in drivers)

    def fetch_remote(
        self, known: set[tuple[int, int]]
    ) -> Iterator[tuple[int, int, dict[str, bytes]]]:
        """Yield (number, seed, files) of runs that other drivers made and are not `known`."""
        if self.address is None:
            return
        with self._translate_errors():
            for frozen in self._trials():
                if (frozen.number, 0) not in known and frozen.user_attrs.get("files"):
                    yield frozen.number, 0, _encode(frozen.user_attrs["files"])
            for name, files in self.study.user_attrs.items():
                match = re.fullmatch(r"run-(\d+)-(\d+)", name)
                if match and (int(match[1]), int(match[2])) not in known:
                    yield int(match[1]), int(match[2]), _encode(files)

    def load_recipe(self, number: int) -> str:
        with self._translate_errors():
            return str(self._find(number).user_attrs["recipe"])

    def claim(self, number: int, seed: int) -> bool:
        """Take a confirmation run for this driver, unless a live one has it."""
        if self.address is None:
            return True
        name = f"claim-{number}-{seed}"
        with self._translate_errors():
            stored = self.study.user_attrs.get(name)
            holder = LockHolder(**stored) if stored else self.driver
            if holder.token != self.driver.token and self._is_alive(holder):
                return False
            self.study.set_user_attr(name, asdict(self.driver))
        return True

    def publish(self, number: int, seed: int, files: Mapping[str, bytes]) -> None:
        """Hand a confirmation run to the other drivers."""
        if self.address:
            with self._translate_errors():
                self.study.set_user_attr(f"run-{number}-{seed}", _decode(files))

    def heartbeat(self) -> None:
        """Record that this driver is alive; to be called often."""
        if self.address and time.time() - self._last_heartbeat > _HEARTBEAT_SECONDS:
            self._last_heartbeat = time.time()
            with self._translate_errors():
                self.study.set_user_attr(f"driver-{self.driver.token}", self._last_heartbeat)

    def _is_alive(self, other: LockHolder) -> bool:
        if (other.host, other.pid) == (self.driver.host, self.driver.pid):
            return other.token == self.driver.token  # an earlier one of this process has ended
        is_alive = other.is_alive()
        if is_alive is not None:  # known on its own machine only
            return is_alive
        last = self.study.user_attrs.get(f"driver-{other.token}", 0.0)
        return bool(time.time() - last < _DEAD_AFTER)

    def _find(self, number: int) -> FrozenTrial:
        return next(t for t in self._trials() if t.number == number)

    def _trials(self, *states: TrialState) -> list[FrozenTrial]:
        return self.study.get_trials(deepcopy=False, states=states or None)

    @contextmanager
    def _translate_errors(self, kind: type[InputError | RunFailed] = RunFailed) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise RunFailed(f"the journal of the search cannot be written: {error}.") from None
        except database_errors() as error:
            reason = str(error.__cause__ or error).strip().splitlines()[0]
            raise kind(
                f"--storage {redact(self.address or '')}: database error: {reason}"
            ) from None


def recipe_key(recipe: str) -> str:
    """Return what two recipes, as complete TOML texts, share if they differ in nothing but name."""
    top, table, rest = recipe.partition("\n[")
    lines = [line for line in top.split("\n") if not line.startswith(("name =", "description ="))]
    return sha256("\n".join([*lines, table, rest]).encode()).hexdigest()


def _counts(frozen: FrozenTrial) -> bool:
    return bool(frozen.user_attrs.get("recipe")) or frozen.state == TrialState.RUNNING


def _decode(files: Mapping[str, bytes]) -> dict[str, str]:
    return {name: files[name].decode() for name in layout.TEXT_FILES if name in files}


def _encode(files: Mapping[str, str]) -> dict[str, bytes]:
    return {name: text.encode() for name, text in files.items()}


def _open_study(space: Space, storage: optuna.storages.BaseStorage, seed: int) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    settings = {  # must not change when a search resumes; the rest of the space may
        "objectives": list(space.objectives),
        "val": list(space.for_validation(space.base).data.held_out),
        "base": sha256(space.base.to_toml().encode()).hexdigest(),
        "choices": sha256(space.text.encode()).hexdigest(),
    }
    directions: list[Literal["maximize", "minimize"]] = [
        "maximize" if OBJECTIVES[name] else "minimize" for name in space.objectives
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        # Sizes of a network depend on each other; several trials always run at the same time.
        sampler = optuna.samplers.TPESampler(
            multivariate=True, group=True, constant_liar=True, seed=seed
        )
        with suppress(optuna.exceptions.DuplicatedStudyError):
            study = optuna.create_study(
                study_name=space.name, storage=storage, sampler=sampler, directions=directions
            )
            study.set_user_attr(_FIXED, settings)
            return study
        study = optuna.load_study(study_name=space.name, storage=storage, sampler=sampler)
        maximized = [d == optuna.study.StudyDirection.MAXIMIZE for d in study.directions]
        if maximized != [OBJECTIVES[name] for name in space.objectives]:
            raise InputError(
                f"{space.source}: a search named {space.name} with other objectives already "
                "exists: give this one another name."
            )
        stored = study.user_attrs.get(_FIXED, settings)
        if changed := [name for name in settings if stored.get(name) != settings[name]]:
            raise InputError(
                f"{space.source}: a search named {space.name} was started with other "
                f"{' and '.join(changed)}, so its trials cannot be compared with new ones: restore "
                "them, or give this search another name."
            )
        sampler.reseed_rng()  # or it would repeat the same random candidates
        return study
