"""The list of runs, as rows and as a table; its columns for the terminal and the page."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from whit.errors import InputError
from whit.runs.reader import RunRecord, find_runs, read_run
from whit.system.numbers import percent
from whit.system.text_tables import text_table

Row = dict[str, Any]


@dataclass(frozen=True)
class Column:
    """A column of the list of runs, in the terminal, in its JSON and on the page.

    `fields` has the JSON keys, each with its value for a run that could be read; a damaged run has
    None. `page_fields` replaces them on the page. The columns of the terminal's table are those
    with a `heading`, those of the page are in PAGE_ORDER; both format them by `kind`.
    """

    key: str
    fields: Mapping[str, Callable[[RunRecord], Any]]
    heading: str
    page_heading: str
    kind: Literal["name", "text", "state", "plain", "grouped", "percent", "seconds", "time"]
    width: str = ""  # on the page, in CSS; by default the remaining width
    page_fields: Mapping[str, Callable[[RunRecord], Any]] | None = None

    def format_cell(self, row: Row) -> str:
        """Return the text of a row of `run_rows` in the terminal."""
        if self.kind == "name":
            return str(row["run"])
        if self.kind == "state":
            return str(row["verdict"] if row["state"] == "finished" else row["state"])
        if self.kind == "percent":
            return "?" if row["correct"] is None else percent(row["correct"], row["total"])
        value = row[self.key]
        if value is None:
            return "?"
        if self.kind == "grouped":
            return f"{value:,}"
        return f"{value:g}" if isinstance(value, float) else str(value)


def _stored(*keys: str) -> Callable[[RunRecord], Any]:
    """Return a function that gives a value of a run's result, None without one."""

    def read(run: RunRecord) -> Any:
        value: Any = run.result
        for key in keys:
            value = (value or {}).get(key)
        return value

    return read


def _evaluated(key: str) -> Callable[[RunRecord], Any]:
    return lambda run: getattr(run.final_evaluation, key, None)


# In the order of the terminal's table and of the JSON.
COLUMNS = (
    Column("name", {"recipe": lambda run: run.recipe.name}, "run", "run", "name",
           page_fields={"name": lambda run: run.recipe.name}),
    Column("seed", {"seed": lambda run: run.seed}, "seed", "seed", "plain", "4rem"),
    Column("state", {"state": lambda run: run.state}, "", "state", "state", "6rem"),
    Column("params", {"params": _stored("params")}, "params", "parameters", "grouped", "7rem"),
    Column("epochs", {"epochs": lambda run: (run.result or {}).get("epochs", len(run.log))},
           "epochs", "epochs", "plain", "5.2rem"),
    Column("accuracy", {key: _stored("test", key) for key in ("correct", "total")},
           "accuracy", "accuracy %", "percent", "7.5rem",
           {key: _evaluated(key) for key in ("correct", "total")}),
    Column("verdict", {"verdict": _stored("verdict")}, "verdict", "", "state"),
    Column("split", {}, "", "split", "text", "4.2rem",
           {"split": lambda run: "test" if run.recipe.eval.test else "val"}),
    Column("seconds", {}, "", "seconds", "seconds", "6rem",
           {"seconds": _stored("seconds", "total")}),
    Column("changed", {}, "", "changed", "time", "9.5rem"),
)  # fmt: skip
PAGE_ORDER = "name", "seed", "state", "accuracy", "split", "params", "epochs", "seconds", "changed"


def page_columns() -> list[dict[str, str]]:
    """Return the columns of the page, in its order, as JSON."""
    by_key = {column.key: column for column in COLUMNS}
    columns = [by_key[key] for key in PAGE_ORDER]
    return [
        {"key": c.key, "heading": c.page_heading, "kind": c.kind, "width": c.width} for c in columns
    ]


def run_fields(run: RunRecord | None, on_page: bool = False) -> Row:
    """Return the values of all columns; None, but for the state, of a damaged run."""
    columns = [(on_page and column.page_fields) or column.fields for column in COLUMNS]
    fields = {key: get for column in columns for key, get in column.items()}
    if run is None:
        return {**dict.fromkeys(fields), "state": "damaged"}
    return {key: get(run) for key, get in fields.items()}


def run_rows(roots: list[Path]) -> list[Row]:
    """Return one row per run folder at or under `roots`, unfinished and damaged ones included.

    If there is none, those one folder deeper, like the seeds of studies. Raises InputError for a
    root that is not a folder.
    """
    check_folders([root for root in roots if root != Path("runs")])
    paths = find_runs(roots)
    if not paths:
        paths = find_runs([p for root in roots if root.is_dir() for p in sorted(root.iterdir())])
    rows = []
    for path in paths:
        try:
            run = read_run(path)
        except InputError:
            run = None
        rows.append({"run": str(path), **run_fields(run)})
    return rows


def rows_csv(rows: list[Row]) -> str:
    """Return rows of `run_rows` as CSV (RFC 4180), a header first; None is an empty field."""
    text = io.StringIO()
    columns = ["run", *run_fields(None)]
    writer = csv.DictWriter(text, columns)
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def check_folders(folders: Sequence[Path]) -> None:
    """Raise InputError unless all of them are folders."""
    missing = [folder for folder in folders if not os.path.isdir(folder)]
    if missing:
        problem = {True: "not a folder", False: "no such folder"}
        raise InputError([f"{f}: {problem[os.path.exists(f)]}." for f in missing])


def run_table(rows: list[Row], width: int) -> str:
    """Return the list of runs as a table of at most `width` columns of text."""
    if not rows:
        return "No runs found. `whit train` creates one."
    columns = [column for column in COLUMNS if column.heading]
    head = [column.heading for column in columns]
    body = [[column.format_cell(row) for column in columns] for row in rows]
    align = "".join({"name": "L", "state": "l"}.get(column.kind, "r") for column in columns)
    return text_table([head, *body], align, width)
