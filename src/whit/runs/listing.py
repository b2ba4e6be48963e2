"""The list of runs, as rows and as a table; its columns for the terminal and the page."""

from __future__ import annotations

import csv
import io
import os
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from whit.errors import InputError
from whit.runs import layout
from whit.runs.differences import differing_keys, flatten_recipe, unusual_values, value_text
from whit.runs.reader import RunRecord, edited_message, read_run
from whit.system.numbers import percent
from whit.system.text_tables import shorten_names, split_columns, text_table, wrap

Row = dict[str, Any]

_DEPTH = 6  # of runs below a folder: ./searches/<name>/trials/<number>/seed-<n>, and one more
_MAX_PROBLEMS = 20  # that are printed below the table
_MIN_NAME = 12  # characters of a run's name
# Keys of environment.json that are shown where they differ, as `environment.<key>`.
_ENVIRONMENT = ("threads", "code", "device", "torch")


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
            if row["correct"] is None and row["val_correct"] is not None:
                return f"{percent(row['val_correct'], row['val_total'])} val"
            return "?" if row["correct"] is None else percent(row["correct"], row["total"])
        if self.kind == "time":
            return str(row["date"] or "?")[:16]  # to the minute
        value = row[self.key]
        if value is None:
            return "?"
        if self.kind == "grouped":
            return f"{value:,}"
        return f"{value:g}" if isinstance(value, float) else str(value)


def _stored(*keys: str) -> Callable[[RunRecord], Any]:
    """Return a function that gives a value of a run's result, None without a valid one."""

    def read(run: RunRecord) -> Any:
        value: Any = None if run.edited else run.result
        for key in keys:
            value = (value or {}).get(key)
        return value

    return read


def _epochs(run: RunRecord) -> Any:
    """Return the epochs of a finished run, or how many of an unfinished one are done."""
    return _stored("epochs")(run) if run.result else len(run.log)


def _val(key: str) -> Callable[[RunRecord], Any]:
    """Return a function that gives a value of the last evaluation on val of a finished run."""
    return lambda run: getattr(run.last_val if _stored("verdict")(run) else None, key, None)


def _evaluated(key: str) -> Callable[[RunRecord], Any]:
    return lambda run: getattr(run.final_evaluation, key, None)


# In the order of the terminal's table and of the JSON.
COLUMNS = (
    Column("name", {"recipe": lambda run: run.recipe.name}, "run", "run", "name",
           page_fields={"name": lambda run: run.recipe.name}),
    Column("changed", {}, "date", "date", "time", "9.5rem"),
    Column("seed", {"seed": lambda run: run.seed}, "seed", "seed", "plain", "4rem"),
    Column("state", {"state": lambda run: run.state}, "", "state", "state", "6rem"),
    Column("accuracy", {**{key: _stored("test", key) for key in ("correct", "total")},
                        **{f"val_{key}": _val(key) for key in ("correct", "total")}},
           "accuracy", "accuracy %", "percent", "7.5rem",
           {key: _evaluated(key) for key in ("correct", "total")}),
    Column("verdict", {"verdict": _stored("verdict")}, "verdict", "", "state"),
    Column("params", {"params": _stored("params")}, "params", "parameters", "grouped", "7rem"),
    Column("epochs", {"epochs": _epochs}, "epochs", "epochs", "plain", "5.2rem"),
    Column("split", {}, "", "split", "text", "4.2rem",
           {"split": lambda run: "test" if run.recipe.eval.test else "val"}),
    Column("seconds", {}, "", "seconds", "seconds", "6rem",
           {"seconds": _stored("seconds", "total")}),
    Column("differs", {}, "", "differs in", "text", "12rem"),
)  # fmt: skip
PAGE_ORDER = (
    *("name", "differs", "seed", "state", "accuracy", "split", "params", "epochs", "seconds"),
    "changed",
)


def page_columns() -> list[dict[str, str]]:
    """Return the columns of the page, in its order, as JSON."""
    by_key = {column.key: column for column in COLUMNS}
    columns = [by_key[key] for key in PAGE_ORDER]
    return [
        {"key": c.key, "heading": c.page_heading, "kind": c.kind, "width": c.width} for c in columns
    ]


def run_fields(run: RunRecord | None, on_page: bool = False) -> Row:
    """Return the values of all columns; None, but for the state, of a damaged run.

    An edited run has no value of its result.
    """
    columns = [(on_page and column.page_fields) or column.fields for column in COLUMNS]
    fields = {key: get for column in columns for key, get in column.items()}
    if run is None:
        return {**dict.fromkeys(fields), "state": "damaged"}
    return {key: get(run) for key, get in fields.items()}


def run_rows(roots: list[Path]) -> list[Row]:
    """Return one row per run folder at or below `roots`: unfinished, edited and damaged ones too.

    `date` is when the run last wrote one of its files, in local time. `differs` has the keys in
    which the runs differ, of the recipe and of the environment. `problem` is why a run is damaged
    or counts in nothing. Raises InputError for a root that is not a folder, or may not be listed.
    """
    check_folders([root for root in roots if root != Path("runs")])
    remaining = [layout.MAX_FOLDERS]
    paths: dict[str, None] = {}  # each once, in their order
    for root in roots:
        if os.path.isdir(root) and not layout.is_run(root):
            layout.list_folder(root)
        paths |= dict.fromkeys(
            map(os.path.normpath, layout.walk_runs(str(root), _DEPTH, remaining))
        )
    rows: list[Row] = []
    runs: list[RunRecord | None] = []
    for path in paths:
        run, problem = _read(Path(path))
        runs.append(run)
        date = _last_change(Path(path))
        rows.append({"run": path, **run_fields(run), "date": date and _local_time(date),
                     "differs": {}, "problem": problem})  # fmt: skip
    flat: dict[int, dict[str, Any]] = {}  # by identity: the seeds of a study share their recipe
    tables = [comparable_values(run, flat) for run in runs]
    keys = differing_keys([table for table in tables if table])
    for row, table in zip(rows, tables, strict=True):
        row["differs"] = {key: table.get(key) for key in keys} if table else {}
    return rows


def _read(path: Path) -> tuple[RunRecord | None, str | None]:
    """Return a run, None for a damaged one, and what is wrong with it."""
    try:
        run = read_run(path, allow_edited=True)
    except InputError as error:
        return None, str(error)
    if run.edited:
        return run, edited_message(path, run.edited)
    if run.recorded_state == "finished" and not os.path.lexists(path / layout.WEIGHTS):
        return run, f"{path}: {layout.WEIGHTS} is missing: the result cannot be recomputed."
    return run, None


def _last_change(path: Path) -> float | None:
    """Return when a file of a run was last written, in seconds since 1970."""
    times = []
    for name in layout.RECORD_FILES:
        try:
            times.append(os.lstat(path / name).st_mtime)
        except OSError:
            continue
    return max(times, default=None)


def _local_time(seconds: float) -> str | None:
    try:
        return f"{datetime.fromtimestamp(seconds):%Y-%m-%d %H:%M:%S}"
    except (OverflowError, ValueError, OSError):  # a file system holds any number
        return None


def comparable_values(
    run: RunRecord | None, flat: dict[int, dict[str, Any]] | None = None
) -> dict[str, Any]:
    """Return the values in which a run may differ from others, by dotted key.

    None of a damaged or edited run, whose recipe may not be the one that it was trained with.
    `flat` keeps the values of recipes, by identity, for runs that all stay in memory.
    """
    if run is None or run.edited:
        return {}
    flat = {} if flat is None else flat
    if id(run.recipe) not in flat:
        flat[id(run.recipe)] = flatten_recipe(run.recipe)
    values = dict(flat[id(run.recipe)])
    for key in _ENVIRONMENT:
        value = run.environment.get(key)
        if key == "code":
            value = value.get("sha256") if isinstance(value, dict) else None
            value = value and str(value)[:8]
        values[f"environment.{key}"] = value if isinstance(value, int | None) else str(value)
    return values


def differences_texts(tables: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """Return for each run of `comparable_values` what distinguishes it: `key=value` items."""
    known = [table for table in tables if table]
    unusual = iter(unusual_values(known))
    return [
        [f"{key}={value_text(value)}" for key, value in next(unusual).items()] if table else []
        for table in tables
    ]


def rows_csv(rows: list[Row]) -> str:
    """Return rows of `run_rows` as CSV (RFC 4180), a header first; None is an empty field.

    `differs` is one field, of `key=value` separated by semicolons.
    """
    text = io.StringIO()
    columns = ["run", *run_fields(None), "date", "differs", "problem"]
    writer = csv.DictWriter(text, columns)
    writer.writeheader()
    for row in rows:
        differs = "; ".join(f"{key}={value_text(v)}" for key, v in row["differs"].items())
        writer.writerow({**row, "differs": differs})
    return text.getvalue()


def check_folders(folders: Sequence[Path]) -> None:
    """Raise InputError unless all of them are folders."""
    missing = [folder for folder in folders if not os.path.isdir(folder)]
    if missing:
        problem = {True: "not a folder", False: "no such folder"}
        raise InputError([f"{f}: {problem[os.path.exists(f)]}." for f in missing])


def run_table(rows: list[Row], width: int) -> str:
    """Return the list of runs as tables of at most `width` columns of text.

    Columns that do not fit go into further tables. Names are shortened where they are alike.
    """
    if not rows:
        return "No runs found. `whit train` creates one."
    name, *columns = [column for column in COLUMNS if column.heading]
    names = [name.format_cell(row) for row in rows]
    cells = [[column.heading, *(column.format_cell(row) for row in rows)] for column in columns]
    widths = [max(map(len, texts)) for texts in cells]
    groups = split_columns(_narrowest(names), widths, width)
    tables = [[cells[i] for i in group] for group in groups]
    differs = differences_texts([row["differs"] for row in rows])
    texts = [
        _name_table(name.heading, names, table, width, last=differs if i == len(tables) else None)
        for i, table in enumerate(tables, start=1)
    ]
    return "\n\n".join([*texts, *_problem_lines(rows, width)])


def _total_width(columns: Sequence[Sequence[str]]) -> int:
    return sum(2 + max(map(len, cells)) for cells in columns)


def _narrowest(names: Sequence[str]) -> int:
    """Return the fewest characters in which the names are still distinct."""
    longest = max(map(len, names))
    widths = range(min(_MIN_NAME, longest), longest)
    return next((width for width in widths if shorten_names(names, width)), longest)


def _name_table(
    heading: str,
    names: Sequence[str],
    columns: Sequence[Sequence[str]],
    width: int,
    last: Sequence[Sequence[str]] | None,
) -> str:
    """Return a table of names and columns; `last` has what each run differs in.

    Where that does not fit beside the others, it is a table of its own, with lines broken between
    the keys.
    """
    extra: list[list[str]] = []
    below = ""
    if last is not None and any(last):
        texts = ["differs in", *(", ".join(items) for items in last)]
        if _narrowest(names) + _total_width([*columns, texts]) <= width:
            extra = [texts]
        else:
            below = f"\n\n{_differences_table(heading, names, last, width)}"
    shown = [*columns, *extra]
    short = shorten_names(names, width - _total_width(shown)) or list(names)
    align = "l" + "".join("l" if c[0] in ("verdict", "differs in", "date") else "r" for c in shown)
    rows = list(zip([heading, *short], *shown, strict=True))
    return text_table(rows, align, width) + below


def _differences_table(
    heading: str, names: Sequence[str], differs: Sequence[Sequence[str]], width: int
) -> str:
    room = max(width // 3, _narrowest(names))
    short = shorten_names(names, room) or list(names)
    rows = [(heading, "differs in")]
    line_width = max(20, width - max(map(len, (heading, *short))) - 3)  # and a comma
    for name, items in zip(short, differs, strict=True):
        lines = [""]
        for item in items:
            longer = f"{lines[-1]}, {item}" if lines[-1] else item
            if len(longer) <= line_width:
                lines[-1] = longer
                continue
            if lines[-1]:
                lines[-1] += ","
            lines += textwrap.wrap(item, line_width)
        kept = [line for line in lines if line] or ["-"]
        rows += [(name if i == 0 else "", line) for i, line in enumerate(kept)]
    return text_table(rows, "ll", width)


def _problem_lines(rows: Sequence[Row], width: int) -> list[str]:
    """Return what is wrong with runs: each damaged or edited one, and how many lack weights."""
    bad = [row for row in rows if row["state"] in ("damaged", "edited")]
    bare = [row for row in rows if row["problem"] and row not in bad]
    lines = [wrap(str(row["problem"]), width) for row in bad[:_MAX_PROBLEMS]]
    if len(bad) > _MAX_PROBLEMS:
        lines.append(f"{len(bad) - _MAX_PROBLEMS} more; --json lists all problems.")
    if bare:
        runs = "1 finished run has" if len(bare) == 1 else f"{len(bare):,} finished runs have"
        text = f"{runs} no {layout.WEIGHTS}: the results cannot be recomputed."
        lines.append(wrap(text, width))
    return lines
