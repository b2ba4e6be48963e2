"""Runs and studies as JSON values for the page.

app.py documents the keys. Only what `read_run` has validated is passed on unchanged; of the rest of
`result.json` and `environment.json`, which is untrusted, only the expected keys.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from whit.errors import InputError
from whit.experiments.statistics import SampleStats
from whit.recipes.model_ref import is_model_path
from whit.runs.listing import differences_texts, run_fields
from whit.runs.lock import LockHolder
from whit.runs.reader import RunRecord, edited_message, weights_problem
from whit.system.file_names import encodable
from whit.web.run_location import RunLocation, escape_path

_MAX_ITEMS = 100  # of an unchecked list or table
_MAX_TEXT = 2_000  # characters of a text in it
_MAX_DIFFERS = 120  # characters of what a run differs in
_LOCK_HOLDER = ("host", "pid", "since")
_ENVIRONMENT = (
    *("whit", "torch", "system", "processor", "cores", "threads", "device", "code", "command"),
)


def run_row(location: RunLocation, run: RunRecord, changed: float | None) -> dict[str, Any]:
    """Return the row of a run that could be read."""
    return {
        **_blank_row(location, changed),
        **{key: _finite_or_none(value) for key, value in run_fields(run, on_page=True).items()},
        "message": _as_text(edited_message(run.path, run.edited)) if run.edited else None,
        "data": run.recipe.data.name,
        "user_model": is_model_path(run.recipe.model.name),
        "has_weights": weights_problem(run) is None,
    }


def damaged_row(location: RunLocation, error: InputError, changed: float | None) -> dict[str, Any]:
    """Return the row of a run that could not be read, with the problem as its message."""
    row = {**_blank_row(location, changed), **run_fields(None, on_page=True)}
    message = _as_text(str(error))
    return {**row, "name": os.path.basename(location.display_path), "message": message}


def _as_text(message: str) -> str:
    """Return a message with a path in it as text that JSON can hold."""
    return encodable(message[:_MAX_TEXT])


def with_differences(
    rows: Sequence[dict[str, Any]], values: Sequence[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Return the rows with what distinguishes each run, from its `comparable_values`."""
    texts = [", ".join(items) for items in differences_texts(values)]
    return [{**row, "differs": text[:_MAX_DIFFERS]} for row, text in zip(rows, texts, strict=True)]


def _blank_row(location: RunLocation, changed: float | None) -> dict[str, Any]:
    row = {"id": location.id, "path": location.display_path, "study": location.study}
    return {
        **row,
        "message": None,
        "data": None,
        "changed": changed,
        "user_model": False,
        "has_weights": False,
    }


def study_rows(rows: Sequence[tuple[RunLocation, dict[str, Any]]]) -> list[dict[str, Any]]:
    """Return a row for each folder of seeds, in the order in which they were found."""
    studies: dict[str, list[tuple[RunLocation, dict[str, Any]]]] = {}
    for location, row in rows:
        if location.study:
            studies.setdefault(location.study, []).append((location, row))
    return [_study_row(id, seeds) for id, seeds in studies.items()]


def _study_row(id: str, seeds: list[tuple[RunLocation, dict[str, Any]]]) -> dict[str, Any]:
    location = seeds[0][0]
    folder = os.path.dirname(location.path)
    below = os.path.relpath(folder, location.root)
    name = os.path.basename(os.path.realpath(folder)) if below == "." else below
    rows = sorted((row for _, row in seeds), key=lambda row: (row["seed"] is None, row["seed"]))
    finished = [row for row in rows if row["state"] == "finished" and row["correct"] is not None]
    diverged = [row for row in rows if row["state"] == "diverged"]
    verdicts = [row["verdict"] for row in finished]
    percents = [100 * row["correct"] / row["total"] for row in finished]
    sample = SampleStats(tuple(percents)) if percents else None
    first = finished[0] if finished else rows[0]
    return {
        "id": id,
        "path": escape_path(folder),
        "name": escape_path(name),
        "runs": [row["id"] for row in rows],
        "data": first["data"],
        "split": first["split"],
        "finished": len(finished),
        "judged": len(finished) + len(diverged),
        "met": None if "pending" in verdicts or not finished else verdicts.count("met"),
        "mean": sample.mean if sample else None,
        "sd": sample.sd if sample else None,
        "min": min(percents, default=None),
        "max": max(percents, default=None),
        "params": first["params"],
        "epochs": first["epochs"],
    }


def run_details(
    location: RunLocation,
    run: RunRecord,
    lock_holder: LockHolder | None,
    is_alive: bool | None,
    changed: float | None,
) -> dict[str, Any]:
    """Return everything that the page shows of one run, including its epoch log.

    Of an edited run, neither its log nor its result.
    """
    recipe = run.recipe
    log = [] if run.edited else [record.to_json() for record in run.log]
    return {
        "id": location.id,
        "path": location.display_path,
        "name": recipe.name,
        "description": recipe.description,
        "seed": run.seed,
        "state": run.state,
        "study": location.study,
        "split": "test" if recipe.eval.test else "val",
        "user_model": is_model_path(run.recipe.model.name),
        "changed": changed,
        "recipe": recipe.to_toml(),
        "model": recipe.model.name,
        "data": recipe.data.name,
        "epochs_planned": recipe.train.epochs,
        "budget": recipe.budget.model_dump(),
        "log": sanitize(log, max_items=len(log)),
        "result": None if run.edited else run.result and _select_result(run.result),
        "lock_holder": lock_holder
        and {**_select(asdict(lock_holder), _LOCK_HOLDER), "alive": is_alive},
        "environment": sanitize({key: run.environment.get(key) for key in _ENVIRONMENT}),
        "network_problem": weights_problem(run),
    }


def user_model_refusal(model: str) -> str:
    """Return why a user's own model file is not executed."""
    return (
        f"the model of this run is a Python file, {model}, which is not executed by default. If "
        "you trust it, start `whit serve --trust-model-files`."
    )


def sanitize(value: Any, depth: int = 6, max_items: int = _MAX_ITEMS) -> Any:
    """Return the part of an untrusted value that JSON can hold: finite numbers, bounded text.

    `max_items` of its outermost list or table are kept, 100 of those inside.
    """
    if isinstance(value, float):
        return _finite_or_none(value)
    if isinstance(value, str):
        return value[:_MAX_TEXT]
    if value is None or isinstance(value, bool | int):
        return value
    if depth == 0:
        return None
    if isinstance(value, dict):
        items = list(value.items())[:max_items]
        return {str(key)[:_MAX_TEXT]: sanitize(inner, depth - 1) for key, inner in items}
    if isinstance(value, list | tuple):
        return [sanitize(inner, depth - 1) for inner in value[:max_items]]
    return None


def _select_result(result: dict[str, Any]) -> dict[str, Any]:
    """Return what the page shows of a result, without parts of an unexpected type."""
    keys = ("verdict", "params", "epochs", "images_seen", "seed", "weights_sha256")
    test_keys = ("correct", "total", "accuracy", "loss", "evaluations", "selected_on_test")
    notes, violations = result.get("notes"), result.get("violations")
    return {
        **sanitize({key: result.get(key) for key in keys}),
        "violations": [
            _select(violation, ("rule", "limit", "value", "message"))
            for violation in (violations if isinstance(violations, list) else [])[:_MAX_ITEMS]
            if isinstance(violation, dict)
        ],
        "test": _select(result["test"], test_keys),
        "best_epoch": _select(result.get("best_epoch"), ("epoch", "correct", "split")),
        "seconds": _select(result["seconds"], ("train", "total")),
        "diverged": _select(result.get("diverged"), ("epoch", "step", "loss", "lr")),
        "notes": [str(n)[:_MAX_TEXT] for n in notes[:9]] if isinstance(notes, list) else [],
    }


def _select(value: Any, keys: Sequence[str]) -> Any:
    """Return these keys of a table, each a number, a flag, a text or None; None for no table."""
    if not isinstance(value, dict):
        return None
    return sanitize({key: value.get(key) for key in keys}, depth=1)


def _finite_or_none(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
