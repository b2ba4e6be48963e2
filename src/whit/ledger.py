"""What Optuna keeps of a search: on one machine in a journal, or in PostgreSQL for several drivers.

Each candidate carries its recipe and the driver that trains it. Drivers that share a ledger say
from time to time that they are there; what a driver left unfinished that says so no longer is
anybody's, and what one has trained comes to the others as the files of its runs.
"""

from __future__ import annotations

import re
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import optuna
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from whit.errors import InputError, RunFailed
from whit.ownership import Owner
from whit.runs import layout
from whit.space import OBJECTIVES, Space

_BEAT = 15.0  # seconds between two signs of life of a driver
_DEAD = 90.0  # seconds without one
_TABLES = 0x77686974  # "whit": of the lock under which a database gets its tables
_DECIDES = "decides"  # key of what must stay


class Ledger:
    """One search as Optuna knows it, for one of its drivers."""

    def __init__(self, space: Space, folder: Path, address: str | None, seed: int):
        """Open or begin it: in `folder`, or in the database at `address`.

        Raises InputError when the database refuses.
        """
        self.address = address
        self.me = Owner.this_process()
        self._beaten = 0.0
        with self._failing_in_words(InputError):
            storage = _journal(folder) if address is None else _database(address)
            self.study = _study(space, storage, seed)

    def ask(self) -> optuna.Trial:
        with self._failing_in_words():
            return self.study.ask()

    def refuse(self, trial: optuna.Trial) -> None:
        """Note that a candidate cannot be, and is not one of those that were tried."""
        with self._failing_in_words():
            trial.set_user_attr("outcome", "refused")
            self.study.tell(trial, state=TrialState.FAIL)

    def accept(self, trial: optuna.Trial, recipe: str, wanted: int) -> bool:
        """Note a candidate's recipe and that this driver trains it.

        False when other drivers have asked for enough in the meantime.
        """
        with self._failing_in_words():
            trial.set_user_attr("recipe", recipe)
            trial.set_user_attr("driver", asdict(self.me))
            before = [t for t in self._trials() if t.number < trial.number and _is_tried(t)]
            if len(before) < wanted:
                return True
            trial.set_user_attr("recipe", None)
            self.study.tell(trial, state=TrialState.FAIL)
            return False

    def tell(
        self, number: int, values: list[float] | None, outcome: str, files: Mapping[str, bytes]
    ) -> None:
        """Note how a candidate ended; `values` is None where it has none."""
        with self._failing_in_words():
            (frozen,) = (t for t in self._trials() if t.number == number)
            if frozen.state.is_finished():
                return  # another driver took it over, and came to the same
            # Optuna has no public way from a number to a trial that can still be noted on.
            trial = optuna.Trial(self.study, frozen._trial_id)
            trial.set_user_attr("outcome", outcome)
            if self.address:
                trial.set_user_attr("files", _as_text(files))
            self.study.tell(number, values, None if values else TrialState.FAIL)

    def leave(self, number: int) -> None:
        """Note that a candidate failed for a reason outside it: the next driver tries it again."""
        with self._failing_in_words():
            (frozen,) = (t for t in self._trials() if t.number == number)
            if not frozen.state.is_finished():
                optuna.Trial(self.study, frozen._trial_id).set_user_attr("outcome", "failed")

    def tried(self) -> int:
        """How many candidates were tried or are under way: all but those refused."""
        with self._failing_in_words():
            return sum(map(_is_tried, self._trials()))

    def count(self, outcome: str) -> int:
        with self._failing_in_words():
            return sum(t.user_attrs.get("outcome") == outcome for t in self._trials())

    def left_over(self) -> list[tuple[int, str]]:
        """Return number and recipe of what a driver began that is gone; it is this one's now."""
        found = []
        with self._failing_in_words():
            for frozen in self._trials(TrialState.RUNNING):
                driver, recipe = (frozen.user_attrs.get(k) for k in ("driver", "recipe"))
                if driver and self._is_alive(Owner(**driver)):
                    continue
                if not recipe:  # its driver ended before it was more than a thought
                    started = frozen.datetime_start
                    age = time.time() - started.timestamp() if started else _DEAD
                    if self.address is None or age >= _DEAD:
                        self.study.tell(frozen.number, state=TrialState.FAIL)
                    continue
                trial = optuna.Trial(self.study, frozen._trial_id)
                trial.set_user_attr("driver", asdict(self.me))
                trial.set_user_attr("outcome", None)
                found.append((frozen.number, str(recipe)))
        return found

    def under_way_elsewhere(self) -> int:
        """How many candidates other drivers are training."""
        with self._failing_in_words():
            running = [t.user_attrs for t in self._trials(TrialState.RUNNING)]
            drivers = [of.get("driver") for of in running if of.get("outcome") != "failed"]
            return sum(driver is None or driver["token"] != self.me.token for driver in drivers)

    def from_others(
        self, known: set[tuple[int, int]]
    ) -> Iterator[tuple[int, int, dict[str, bytes]]]:
        """Yield (number, seed, files) of runs that other drivers made and are not `known`."""
        if self.address is None:
            return
        with self._failing_in_words():
            for frozen in self._trials():
                if (frozen.number, 0) not in known and frozen.user_attrs.get("files"):
                    yield frozen.number, 0, _as_bytes(frozen.user_attrs["files"])
            for name, files in self.study.user_attrs.items():
                match = re.fullmatch(r"run-(\d+)-(\d+)", name)
                if match and (int(match[1]), int(match[2])) not in known:
                    yield int(match[1]), int(match[2]), _as_bytes(files)

    def recipe_of(self, number: int) -> str:
        with self._failing_in_words():
            (frozen,) = (t for t in self._trials() if t.number == number)
            return str(frozen.user_attrs["recipe"])

    def claim(self, number: int, seed: int) -> bool:
        """Take a finalist's seed for this driver, unless another one has it that is there."""
        if self.address is None:
            return True
        name = f"claim-{number}-{seed}"
        with self._failing_in_words():
            had = self.study.user_attrs.get(name)
            if had and had["token"] != self.me.token and self._is_alive(Owner(**had)):
                return False
            self.study.set_user_attr(name, asdict(self.me))
        return True

    def give(self, number: int, seed: int, files: Mapping[str, bytes]) -> None:
        """Hand a finalist's run to the other drivers."""
        if self.address:
            with self._failing_in_words():
                self.study.set_user_attr(f"run-{number}-{seed}", _as_text(files))

    def beat(self) -> None:
        """Say that this driver is there; to be called often."""
        if self.address and time.time() - self._beaten > _BEAT:
            self._beaten = time.time()
            with self._failing_in_words():
                self.study.set_user_attr(f"driver-{self.me.token}", self._beaten)

    def _is_alive(self, driver: Owner) -> bool:
        if (driver.host, driver.pid) == (self.me.host, self.me.pid):
            return driver.token == self.me.token  # an earlier one of this process has ended
        here = driver.is_alive()
        if here is not None:
            return here
        last = self.study.user_attrs.get(f"driver-{driver.token}", 0.0)
        return bool(time.time() - last < _DEAD)

    def _trials(self, *states: TrialState) -> list[FrozenTrial]:
        return self.study.get_trials(deepcopy=False, states=states or None)

    @contextmanager
    def _failing_in_words(
        self, kind: type[InputError] | type[RunFailed] = RunFailed
    ) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise RunFailed(f"the journal of the search cannot be written: {error}.") from None
        except _database_errors() as error:
            said = str(error.__cause__ or error).strip().splitlines()[0]
            raise kind(
                f"--storage {masked(self.address or '')}: the database refuses: {said}"
            ) from None


def masked(address: str) -> str:
    """Return an address without its password, be it where it belongs or a parameter."""
    address = re.sub(r"(://[^:/@]*):[^/]*@", r"\1:***@", address)
    return re.sub(r"([?&]password=)[^&\s]*", r"\1***", address)


def refuse_address(address: str) -> None:
    """Raise InputError for what is no address of a PostgreSQL database."""
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        url = make_url(address)
    except (ArgumentError, ValueError):  # ValueError: a port that is no number
        url = None
    kinds = ("postgresql", "postgresql+psycopg")
    if url is not None and "@" in (url.host or ""):
        raise InputError(
            f"--storage {masked(address)}: an @ or / in a password is written as %40 or %2F."
        )
    if url is None or url.drivername not in kinds or not url.database:
        raise InputError(
            f"--storage {masked(address)}: wanted the address of a PostgreSQL database, such as "
            "postgresql://user:password@host/name."
        )


def _is_tried(frozen: FrozenTrial) -> bool:
    return bool(frozen.user_attrs.get("recipe")) or frozen.state == TrialState.RUNNING


def _as_text(files: Mapping[str, bytes]) -> dict[str, str]:
    return {name: files[name].decode() for name in layout.TEXT_FILES if name in files}


def _as_bytes(files: Mapping[str, str]) -> dict[str, bytes]:
    return {name: text.encode() for name, text in files.items()}


def _study(space: Space, storage: optuna.storages.BaseStorage, seed: int) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    directions: list[Literal["maximize", "minimize"]] = [
        "maximize" if OBJECTIVES[name] else "minimize" for name in space.objectives
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        # Sizes of a network belong together; several candidates are always under way.
        sampler = optuna.samplers.TPESampler(
            multivariate=True, group=True, constant_liar=True, seed=seed
        )
        with suppress(optuna.exceptions.DuplicatedStudyError):
            study = optuna.create_study(
                study_name=space.name, storage=storage, sampler=sampler, directions=directions
            )
            study.set_user_attr(_DECIDES, _deciding(space))
            return study
        study = optuna.load_study(study_name=space.name, storage=storage, sampler=sampler)
        wanted = [OBJECTIVES[name] for name in space.objectives]
        if [d == optuna.study.StudyDirection.MAXIMIZE for d in study.directions] != wanted:
            raise InputError(
                f"{space.source}: a search named {space.name} with other objectives is there "
                "already: give this one another name."
            )
        now = _deciding(space)
        had = study.user_attrs.get(_DECIDES, now)
        if changed := [what for what in now if had.get(what) != now[what]]:
            raise InputError(
                f"{space.source}: a search named {space.name} was begun with other "
                f"{' and '.join(changed)}, so its candidates cannot stand beside new ones: put "
                "that back, or give this one another name."
            )
        sampler.reseed_rng()  # or it would begin with the same random candidates again
        return study


def _deciding(space: Space) -> dict[str, Any]:
    """Return what must stay while a search goes on; `seeds` and `least` may change."""
    return {
        "objectives": list(space.objectives),
        "val": space.val,
        "base": sha256(space.base.to_toml().encode()).hexdigest(),
        "choices": sha256(space.text.encode()).hexdigest(),
    }


def _journal(folder: Path) -> optuna.storages.BaseStorage:
    return optuna.storages.JournalStorage(JournalFileBackend(str(folder / "journal.log")))


def _database(address: str) -> optuna.storages.RDBStorage:
    from sqlalchemy import NullPool, create_engine, text

    url = re.sub(r"^postgresql://", "postgresql+psycopg://", address)
    with create_engine(url, poolclass=NullPool).begin() as connection:
        # Drivers that begin at the same moment would make the same tables, and all but one fail.
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _TABLES})
        return optuna.storages.RDBStorage(url, engine_kwargs={"pool_pre_ping": True})


def _database_errors() -> tuple[type[Exception], ...]:
    from sqlalchemy.exc import SQLAlchemyError

    return (optuna.exceptions.StorageInternalError, SQLAlchemyError)
