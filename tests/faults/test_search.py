"""Searches with real worker processes: stopped, killed, gone on with; what they hand over."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from faults.processes import Command, wait_until, whit
from whit.ledger import Ledger
from whit.recipe import load_recipe
from whit.space import load_space

SPACE = """\
name = "tiny"
base = "easy.toml"
seeds = 2
[space]
"train.epochs" = [2, 3]
"train.batch_size" = 16
"model.widths" = {each = {low = 2, high = 8}, count = {low = 1, high = 2}}
"model.pools" = [[1]]
"optim.lr" = {low = 0.02, high = 0.3, log = true}
"""


@pytest.fixture
def place(workplace: Path) -> Path:
    (workplace / "tiny.toml").write_text(SPACE)
    return workplace


def found_by(place: Path, trials: int) -> dict[str, Any]:
    code, said = whit(place, "search", "tiny.toml", "--trials", f"{trials}", "--json")
    assert code == 0, said
    value: dict[str, Any] = json.loads(said)
    return value


def numbers(place: Path) -> list[int]:
    return sorted(int(path.name) for path in (place / "searches/tiny/trials").iterdir())


def test_a_search_that_is_stopped_and_killed_goes_on(place: Path) -> None:
    trials = place / "searches/tiny/trials"
    command = Command.start(place, "search", "tiny.toml", "--trials", "4", "--jobs", "2")
    wait_until((trials / "0001/seed-0/log.jsonl").exists, command)
    command.signal(signal.SIGINT)
    asked = time.monotonic()
    assert command.wait() == 130, command.said
    assert time.monotonic() - asked < 8
    assert "The same command goes on." in command.said

    command = Command.start(place, "search", "tiny.toml", "--trials", "4", "--jobs", "2")
    wait_until((trials / "0002/seed-0/log.jsonl").exists, command)
    command.signal(signal.SIGKILL)
    command.wait()
    time.sleep(1)

    value = found_by(place, 4)
    assert value["trials"] + value["given_up"] == 4
    made = numbers(place)
    assert len(made) == 4  # a number may be left out, of one that was only thought of
    assert value["failures"] == []
    assert value["frontier"]
    assert all(point["seeds"] == 2 for point in value["frontier"])  # finalists have several
    assert (place / "searches/tiny/frontier.svg").read_text().startswith("<?xml")

    again = found_by(place, 4)
    assert again == value  # nothing is left to do, and nothing changes
    assert numbers(place) == made

    point = value["frontier"][0]
    recipe = load_recipe(place / point["recipe"])
    assert (recipe.train.test, recipe.data.val) == (True, 100)  # as the base has it
    run = json.loads((place / point["recipe"]).parent.joinpath("seed-0", "result.json").read_text())
    assert run["test"]["reads"] == 0
    code, said = whit(place, "plan", str(Path(point["recipe"]).parent))
    assert code == 0, said


def test_what_the_plan_refuses_costs_nothing(place: Path) -> None:
    """A budget that nothing keeps is named; one that some keep lets those through."""
    text = (place / "easy.toml").read_text().replace('"< 20000"', '"< 5"')
    (place / "easy.toml").write_text(text)
    code, said = whit(place, "search", "tiny.toml", "--trials", "2")
    assert code == 2, said
    assert "100 candidates in a row were refused before training" in said
    assert "allowed < 5" in said
    assert not list(place.glob("searches/tiny/trials/*"))


def test_a_candidate_only_thought_of_was_not_refused(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)  # its base lies there
    space = load_space(place / "tiny.toml")
    ledger = Ledger(space, place, None, 0)
    ledger.refuse(ledger.ask())
    ledger.ask()  # and here its driver is killed
    after = Ledger(space, place, None, 0)
    assert after.left_over() == []
    assert (after.count("refused"), after.tried()) == (1, 0)


def test_one_driver_at_a_time(place: Path) -> None:
    command = Command.start(place, "search", "tiny.toml", "--trials", "3", "--jobs", "1")
    wait_until((place / "searches/tiny/trials").exists, command)
    code, said = whit(place, "search", "tiny.toml", "--trials", "3")
    assert code == 2, said
    assert "searches/tiny: another search is going on in it" in " ".join(said.split())
    command.signal(signal.SIGTERM)
    assert command.wait() == 143, command.said
