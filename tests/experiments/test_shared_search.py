"""Several drivers of one search in a real PostgreSQL: killed, resumed, refused."""

from __future__ import annotations

import json
import shutil
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest

from experiments.test_search import SPACE
from harness.clusters import free_port
from harness.clusters import started as started_dask
from harness.databases import PROGRAMS, Postgres, started
from harness.processes import Command, evidence, whit
from waiting import wait_until
from whit.experiments.search.database import open_database

pytestmark = pytest.mark.skipif(PROGRAMS is None, reason="PostgreSQL is not installed")


@pytest.fixture
def place(workplace: Path) -> Path:
    (workplace / "tiny.toml").write_text(SPACE)
    return workplace


@pytest.fixture
def database() -> Iterator[Postgres]:
    with started() as server:
        yield server


def search(database: Postgres, out: str, trials: int, *more: str) -> tuple[str, ...]:
    return (
        *("search", "tiny.toml", "--trials", f"{trials}", "--storage", database.address),
        *("--out", out, *more),
    )


def runs(place: Path, out: str) -> list[Path]:
    return sorted(place.glob(f"{out}/tiny/trials/*/seed-*/result.json"))


def wait_for(command: Command, place: Path, out: str, count: int) -> None:
    wait_until(lambda: len(runs(place, out)) >= count, command)


def found(place: Path, *arguments: str) -> dict[str, Any]:
    code, said = whit(place, *arguments, "--json")
    assert code == 0, said
    value: dict[str, Any] = json.loads(said)
    return value


def points(value: dict[str, Any]) -> list[tuple[Any, ...]]:
    return [(p["trial"], p["params"], p["accuracy"], p["seeds"]) for p in value["pareto_front"]]


def same_as_training_it_here(place: Path, run: Path) -> None:
    code, said = whit(
        place,
        *("train", str(run / "recipe.toml"), "--threads", "1", "--quiet"),
        *("--seed", run.name.removeprefix("seed-"), "--out", "again"),
    )
    assert code == 0, said
    again = evidence(place / "again")
    ours = evidence(run)
    ours["files"] = again["files"]  # weights stay with the driver that has them
    assert ours == again


def test_drivers_may_begin_at_the_same_moment(database: Postgres) -> None:
    """Each finds an empty database, where the tables of the search are still to be made."""
    for round_ in range(3):
        with psycopg.connect(database.address, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE round{round_}")
        address = database.address.removesuffix("postgres") + f"round{round_}"
        together = threading.Barrier(4)

        def begin(driver: int, address: str = address, gate: threading.Barrier = together) -> int:
            gate.wait()
            storage = open_database(address)
            try:
                return len(storage.get_all_studies())
            finally:
                storage.remove_session()
                storage.engine.dispose()

        with ThreadPoolExecutor(4) as drivers:
            assert list(drivers.map(begin, range(4))) == [0, 0, 0, 0]


def test_two_drivers_share_one_search_and_one_is_killed(place: Path, database: Postgres) -> None:
    first = Command.start(place, *search(database, "a", 3, "--jobs", "1"))
    wait_for(first, place, "a", 1)
    second = Command.start(place, *search(database, "b", 3, "--jobs", "1"))
    wait_for(second, place, "b", 2)  # its own, or the first one's
    first.signal(signal.SIGKILL)
    first.wait()
    assert second.wait() == 0, second.said
    a = found(place, *search(database, "a", 3))
    b = found(place, *search(database, "b", 3))
    assert a["trials"] + a["pruned"] == 3
    assert (a["trials"], a["infeasible"], points(a)) == (b["trials"], b["infeasible"], points(b))
    assert all(point["seeds"] == 2 for point in a["pareto_front"])
    assert len(runs(place, "a")) == len(runs(place, "b"))
    same_as_training_it_here(place, runs(place, "b")[0].parent)
    text = "".join(path.read_text() for path in place.glob("*/tiny/trials/*/*/environment.json"))
    assert "postgresql://whit@127.0.0.1" in text


@pytest.mark.slow
def test_sixty_trials_on_a_cluster_by_two_drivers(place: Path, database: Postgres) -> None:
    """Workers and drivers are killed; every trial exists once, the same for both."""
    with started_dask(place, 2) as cluster:
        more = ("--cluster", cluster.address)
        for round_ in range(3):
            first = Command.start(place, *search(database, "a", 60, *more))
            second = Command.start(place, *search(database, "b", 60, *more))
            wait_for(first, place, "a", 8 * round_ + 5)
            victim = cluster.workers[-1]
            victim.kill()
            cluster.add_worker()
            wait_for(first, place, "a", 8 * round_ + 7)
            for command in (first, second):
                command.signal(signal.SIGKILL)
                command.wait()
        a = found(place, *search(database, "a", 60, *more))
        b = found(place, *search(database, "b", 60, *more))
    assert a["trials"] + a["pruned"] == 60
    assert (a["trials"], points(a)) == (b["trials"], points(b))
    assert [path.relative_to(place / "a") for path in runs(place, "a")] == [
        path.relative_to(place / "b") for path in runs(place, "b")
    ]
    for run in runs(place, "a")[::10]:
        same_as_training_it_here(place, run.parent)
        shutil.rmtree(place / "again")


def test_a_database_that_refuses_or_goes_away(place: Path, database: Postgres) -> None:
    nowhere = f"postgresql://me:secret@127.0.0.1:{free_port()}/x"
    code, said = whit(place, "search", "tiny.toml", "--storage", nowhere)
    assert code == 2, said
    assert "me:***@127.0.0.1" in said
    assert "secret" not in said
    assert "database error" in said
    assert "Traceback" not in said
    code, said = whit(place, "search", "tiny.toml", "--storage", "sqlite:///x.db")
    assert code == 2, said
    assert "expected the address of a PostgreSQL database" in said
    command = Command.start(place, *search(database, "a", 20, "--jobs", "1"))
    wait_for(command, place, "a", 1)
    database.stop()
    assert command.wait() == 3, command.said
    assert "database error" in command.said
    assert "Traceback" not in command.said
    database.start()
    had = len(runs(place, "a"))
    value = found(place, *search(database, "a", 3))
    assert value["trials"] + value["pruned"] >= 3
    assert len(runs(place, "a")) >= had


@pytest.mark.slow
def test_a_search_of_that_name_with_other_objectives(place: Path, database: Postgres) -> None:
    found(place, *search(database, "a", 1))
    (place / "tiny.toml").write_text('objectives = ["accuracy"]\n' + SPACE)
    code, said = whit(place, *search(database, "b", 1))
    assert code == 2, said
    assert "a search named tiny with other objectives already exists" in said
