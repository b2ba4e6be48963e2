"""Audits of several targets, and of folders with runs, recipes, model files and notebooks.

What a folder stands for, by name, subfolders included:
- each run folder in it, and nothing inside of that;
- each `.toml` with a table `[model]` or a `base`, and each that cannot be read;
- each model of a `.py` or `.ipynb` file;
- with a recipe, each `.safetensors`.
Names that begin with `.` or `__`, and virtual environments, are left out. Links to folders other
than runs are not followed.
"""

from __future__ import annotations

import os
import tomllib
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from whit.errors import InputError, WhitError
from whit.models.user_code import find_models
from whit.recipes.model_ref import SUFFIXES, is_model_path
from whit.recipes.recipe import Recipe, builtin_recipes
from whit.runs import layout
from whit.system.console import OnStage, ignore_stage
from whit.system.text_tables import text_table, wrap
from whit.verification.verify import AuditResult, audit

_WEIGHTS_SUFFIX = ".safetensors"
HEAD = ("name", "params", "MACs", "receptive field", "verdict")


@dataclass(frozen=True)
class TargetAudit:
    """One target with its audit, or the problems that made it impossible."""

    target: str
    result: AuditResult | None
    problems: tuple[str, ...] = ()
    exit_code: int = 0

    def to_json(self) -> dict[str, Any]:
        if self.result is None:
            return {"target": self.target, "error": "\n".join(self.problems)}
        return {"target": self.target, **self.result.to_json()}

    @property
    def row(self) -> tuple[str, ...]:
        """Cells for HEAD."""
        if self.result is None:
            return self.target, "-", "-", "-", "error"
        *_, params, _, size, _ = self.result.audit.total_row()
        macs = self.result.metrics.macs
        return self.target, params, "?" if macs is None else f"{macs:,}", size, self.result.verdict


def is_batch(targets: Sequence[str]) -> bool:
    """Whether the targets are several, or a folder that is not a run."""
    return len(targets) != 1 or _is_plain_folder(targets[0])


def expand_targets(targets: Sequence[str], with_weights: bool) -> tuple[list[str], list[str]]:
    """Return the targets with those of folders in place of the folders, and the files left out.

    A folder without a target stays. `with_weights` includes `.safetensors` files.
    """
    expanded: list[str] = []
    skipped: list[str] = []
    for target in targets:
        if not _is_plain_folder(target):
            expanded.append(target)
            continue
        in_folder: list[str] = []
        for path in _find_files(Path(target)):
            found = _targets_in(path, with_weights)
            in_folder += found
            skipped += [] if found else [str(path)]
        expanded += in_folder or [target]
    return list(dict.fromkeys(expanded)), skipped


def audit_targets(
    targets: Sequence[str],
    recipe: Recipe | None = None,
    changes: Sequence[str] = (),
    on_stage: OnStage = ignore_stage,
    *,
    run_whole_file: bool = False,
    trust_model_files: bool = False,
) -> Iterator[TargetAudit]:
    """Audit each target; one that cannot be audited does not end it.

    `recipe` and `changes` are for those that are model files and weights, `run_whole_file` for
    model files; `trust_model_files` is as in `audit`.
    """
    for number, target in enumerate(targets, start=1):
        on_stage(f"auditing {target} ({number} of {len(targets)})")
        given = (recipe, changes) if takes_recipe(target) else (None, ())
        try:
            if _is_plain_folder(target):
                raise InputError(_describe_empty_folder(target))
            result = audit(
                target,
                given[0],
                on_stage=on_stage,
                changes=given[1],
                run_whole_file=run_whole_file and is_model_path(target),
                trust_model_files=trust_model_files,
            )
            yield TargetAudit(target, result)
        except InputError as error:
            path = target.rpartition(":")[0] or target
            problems = (p if path in p else f"{target}: {p}" for p in error.problems)
            yield TargetAudit(target, None, tuple(problems), error.exit_code)
        except Exception as error:  # of a user's model or whit itself: the others are still audited
            text = str(error) if isinstance(error, WhitError) else traceback.format_exc()
            yield TargetAudit(target, None, (f"{target}: failed: {text}",), WhitError.exit_code)


def takes_recipe(target: str) -> bool:
    """Whether a target, or something in a folder, is audited by a recipe of the caller's choice."""
    return (
        is_model_path(target)
        or target.lower().endswith(_WEIGHTS_SUFFIX)
        or _is_plain_folder(target)
    )


def summary_table(audits: Sequence[TargetAudit], skipped: Sequence[str], width: int) -> str:
    """Return one row a target, and the files that were left out."""
    rows = [HEAD, *(each.row for each in audits)]
    lines = [text_table(rows, "Lrrrl", width)]
    if skipped:
        lines.append(wrap(f"Not audited, without a model: {', '.join(skipped)}.", width))
    return "\n\n".join(lines)


def exit_code(audits: Sequence[TargetAudit]) -> int:
    """Return the exit code: the largest of errors, else 1 where a budget is missed, else 0."""
    errors = max((each.exit_code for each in audits), default=0)
    missed = any(each.result and each.result.verdict == "missed" for each in audits)
    return errors or int(missed)


def _is_plain_folder(target: str) -> bool:
    is_recipe = target in builtin_recipes() or is_model_path(target)
    return not is_recipe and os.path.isdir(target) and not _is_run(Path(target))


def _describe_empty_folder(folder: str) -> str:
    if not os.access(folder, os.R_OK | os.X_OK):
        return f"{folder}: this folder may not be read."
    return (
        f"{folder}: nothing to audit in this folder: no run, no recipe with a [model], and no .py "
        "or .ipynb file with a model."
    )


def _is_run(folder: Path) -> bool:
    return layout.is_run(folder) or os.path.lexists(folder / layout.WEIGHTS)


def _find_files(root: Path) -> Iterator[Path]:
    """Yield the run folders and all other files under a folder, by name."""
    try:
        entries = sorted(os.scandir(root), key=lambda entry: entry.name)
    except OSError:
        yield root  # the audit says so
        return
    for entry in entries:
        path = root / entry.name
        if entry.name.startswith((".", "__")):
            continue
        if entry.is_dir():
            if _is_run(path):
                yield path
            elif not entry.is_symlink() and not os.path.lexists(path / "pyvenv.cfg"):
                yield from _find_files(path)
        elif path.suffix.lower() in (*SUFFIXES, ".toml", _WEIGHTS_SUFFIX):
            yield path


def _targets_in(path: Path, with_weights: bool) -> list[str]:
    suffix = "" if path.is_dir() else path.suffix.lower()
    if suffix in SUFFIXES:
        try:
            return [f"{path}:{name}" for name in find_models(path)]
        except InputError:  # the audit says why
            return [str(path)]
    if suffix == ".toml":
        return [str(path)] if _may_be_recipe(path) else []
    return [str(path)] if with_weights or suffix != _WEIGHTS_SUFFIX else []


def _may_be_recipe(path: Path) -> bool:
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return True
    return "space" not in tables and bool({"model", "base"} & tables.keys())
