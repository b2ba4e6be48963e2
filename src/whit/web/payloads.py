"""What the page is told of runs and studies, as values that JSON can hold.

The keys stand in app.py. Only what `read_run` has checked is passed on as it is; of the rest of
`result.json` and `environment.json`, which may be anything, no more than is asked for.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from whit.errors import InputError
from whit.evidence import Sample
from whit.ownership import Owner
from whit.run_record import RunRecord, why_no_weights
from whit.web.run_location import shown_path

if TYPE_CHECKING:
    from whit.web.run_location import Place


_MOST_ITEMS = 100  # of a list or a table that was not checked
_MOST_TEXT = 2_000  # characters of a text in it
_ENVIRONMENT = (
    *("whit", "torch", "system", "processor", "cores", "threads", "device", "code", "command"),
)


def run_row(place: Place, run: RunRecord, changed: float | None) -> dict[str, Any]:
    """Return the row of a run that could be read."""
    result = run.result or {}
    split, correct, total = _last_reading(run)
    return {
        **_blank_row(place, changed),
        "name": run.recipe.name,
        "seed": run.seed,
        "state": run.state,
        "params": result.get("params"),
        "epochs": _finite(result.get("epochs", len(run.log))),
        "correct": correct,
        "total": total,
        "verdict": result.get("verdict"),
        "split": split,
        "seconds": _finite(result["seconds"]["total"]) if result else None,
        "own_model": names_a_file(run),
        "has_weights": why_no_weights(run) is None,
    }


def damaged_row(place: Place, error: InputError, changed: float | None) -> dict[str, Any]:
    """Return the row of a run that could not be read, with what is wrong with it."""
    said = str(error)[:_MOST_TEXT].encode("utf-8", "backslashreplace").decode()
    return {**_blank_row(place, changed), "message": said}


def _blank_row(place: Place, changed: float | None) -> dict[str, Any]:
    row: dict[str, Any] = {"id": place.id, "path": place.shown}
    row |= {"name": os.path.basename(place.shown), "seed": None, "state": "damaged"}
    row |= {"message": None, "params": None, "epochs": None, "correct": None, "total": None}
    row |= {"verdict": None, "study": place.study, "split": None, "seconds": None}
    return row | {"changed": changed, "own_model": False, "has_weights": False}


def study_rows(rows: Sequence[tuple[Place, dict[str, Any]]]) -> list[dict[str, Any]]:
    """Return a row for each folder of seeds, in the order in which they were found."""
    inside: dict[str, list[tuple[Place, dict[str, Any]]]] = {}
    for place, row in rows:
        if place.study:
            inside.setdefault(place.study, []).append((place, row))
    return [_study_row(study, same) for study, same in inside.items()]


def _study_row(id: str, inside: list[tuple[Place, dict[str, Any]]]) -> dict[str, Any]:
    place = inside[0][0]
    folder = os.path.dirname(place.path)
    below = os.path.relpath(folder, place.root)
    name = os.path.basename(os.path.realpath(folder)) if below == "." else below
    rows = sorted((row for _, row in inside), key=lambda row: (row["seed"] is None, row["seed"]))
    finished = [row for row in rows if row["state"] == "finished" and row["correct"] is not None]
    diverged = [row for row in rows if row["state"] == "diverged"]
    verdicts = [row["verdict"] for row in finished]
    percents = [100 * row["correct"] / row["total"] for row in finished]
    first = finished[0] if finished else rows[0]
    return {
        "id": id,
        "path": shown_path(folder),
        "name": shown_path(name),
        "runs": [row["id"] for row in rows],
        "split": first["split"],
        "finished": len(finished),
        "judged": len(finished) + len(diverged),
        "met": None if "open" in verdicts or not finished else verdicts.count("met"),
        "mean": Sample(tuple(percents)).mean if percents else None,
        "sd": Sample(tuple(percents)).sd if percents else None,
        "lowest": min(percents, default=None),
        "highest": max(percents, default=None),
        "params": first["params"],
        "epochs": first["epochs"],
    }


def details(
    place: Place, run: RunRecord, owner: Owner | None, alive: bool | None, changed: float | None
) -> dict[str, Any]:
    """Return everything that the page shows of one run, its curves too."""
    recipe, result = run.recipe, run.result
    log = [record.to_json() for record in run.log]
    return {
        "id": place.id,
        "path": place.shown,
        "name": recipe.name,
        "description": recipe.description,
        "seed": run.seed,
        "state": run.state,
        "study": place.study,
        "split": _last_reading(run)[0],
        "own_model": names_a_file(run),
        "changed": changed,
        "recipe": recipe.to_toml(),
        "model": recipe.model.name,
        "data": recipe.data.name,
        "epochs_planned": recipe.train.epochs,
        "budget": recipe.budget.model_dump(),
        "log": plain(log, items=len(log)),
        "result": None if result is None else _result(result),
        "owner": owner and {**_owner(owner), "alive": alive},
        "environment": plain({key: run.environment.get(key) for key in _ENVIRONMENT}),
        "why_no_network": why_no_weights(run),
    }


def names_a_file(run: RunRecord) -> bool:
    """Whether the run's model is somebody's own file. No shipped name has any of these marks."""
    model = run.recipe.model
    return not model.is_given and any(mark in model.name for mark in ".:/\\")


def own_model_refusal(model: str) -> str:
    """Say why a run's own model file is not run."""
    return (
        f"the model of this run is a file, {model}, and showing it would run its code. If it is "
        "your own, start `whit serve --own-models`."
    )


def plain(value: Any, depth: int = 6, items: int = _MOST_ITEMS) -> Any:
    """Return what JSON can hold of a value: no number that is not finite, nothing endless.

    `items` of its outermost list or table are kept, 100 of those inside.
    """
    if isinstance(value, float):
        return _finite(value)
    if isinstance(value, str):
        return value[:_MOST_TEXT]
    if value is None or isinstance(value, bool | int):
        return value
    if depth == 0:
        return None
    if isinstance(value, dict):
        some = list(value.items())[:items]
        return {str(key)[:_MOST_TEXT]: plain(part, depth - 1) for key, part in some}
    if isinstance(value, list | tuple):
        return [plain(part, depth - 1) for part in value[:items]]
    return None


def _result(result: dict[str, Any]) -> dict[str, Any]:
    """Return what is shown of a result; a part that is not of its usual shape is left out."""
    keys = ("verdict", "params", "epochs", "images_seen", "seed", "weights_sha256")
    found: dict[str, Any] = plain({key: result.get(key) for key in keys})
    tested = ("correct", "total", "accuracy", "loss", "reads", "selected_on_test")
    notes, violations = result.get("notes"), result.get("violations")
    return {
        **found,
        "violations": [
            _part(violation, ("rule", "limit", "value", "message"))
            for violation in (violations if isinstance(violations, list) else [])[:_MOST_ITEMS]
            if isinstance(violation, dict)
        ],
        "test": _part(result["test"], tested),
        "best_epoch": _part(result.get("best_epoch"), ("epoch", "correct", "split")),
        "seconds": _part(result["seconds"], ("train", "total")),
        "diverged": _part(result.get("diverged"), ("epoch", "step", "loss", "lr")),
        "notes": [str(n)[:_MOST_TEXT] for n in notes[:9]] if isinstance(notes, list) else [],
    }


def _part(value: Any, keys: Sequence[str]) -> dict[str, Any] | None:
    """Return these keys of a table, each a number, a flag, a text or None."""
    if not isinstance(value, dict):
        return None
    found: dict[str, Any] = plain({key: value.get(key) for key in keys}, depth=1)
    return found


def _owner(owner: Owner) -> dict[str, Any]:
    told = asdict(owner)
    return {key: plain(told[key]) for key in ("host", "pid", "since")}


def _last_reading(run: RunRecord) -> tuple[str, int | None, int | None]:
    """Return the split that a run is judged on, and what was right of it at the end."""
    if run.recipe.train.test:
        test = (run.result or {}).get("test", {})
        return "test", test.get("correct"), test.get("total")
    reading = run.last_val if run.result else None
    return ("val", reading.correct, reading.total) if reading else ("val", None, None)


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
