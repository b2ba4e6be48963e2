"""From a target to the files of its report."""

from __future__ import annotations

import os
from pathlib import Path

from torch import nn

from whit.errors import InputError, RunFailed
from whit.reports import study_facts
from whit.reports.document import Document
from whit.reports.renderers.html import render_html
from whit.reports.renderers.markdown import Markdown
from whit.reports.run_facts import collect_run_facts
from whit.reports.run_report import run_document
from whit.reports.study_facts import collect_study_facts
from whit.reports.study_report import comparison_document, study_document
from whit.runs import layout
from whit.runs.reader import RunRecord, read_run
from whit.system.atomic_files import atomic_write, disk_error_advice, unwritable_reason
from whit.system.optional_deps import require_extra


def render_run_html(run: RunRecord, model: nn.Module | None = None) -> str:
    """Return the report of a run as one HTML page.

    `model` is the network of a run that was given one in Python. Raises InputError for altered
    weights that cannot be loaded.
    """
    require_extra("report", "matplotlib")
    return render_html(run_document(collect_run_facts(run, model)))


def render_study_html(folder: Path) -> str:
    """Return the report of a study, or of several, as one HTML page.

    Raises InputError for a folder without a finished run.
    """
    require_extra("report", "matplotlib")
    return render_html(build_document(folder))


def write_report(
    target: Path, out: Path | None = None, markdown: bool = False, model: nn.Module | None = None
) -> Path:
    """Write the report of a run, a study or several studies; return the file.

    By default it is `report.html`, or `report.md` with the folder `report`, in the target; no
    audit of a run reads these names. An existing report is replaced. Raises InputError for a
    target that is no run and holds none, or for a path that cannot be written, RunFailed when the
    disk is full.
    """
    require_extra("report", "matplotlib")
    file = out if out is not None else target / ("report.md" if markdown else "report.html")
    problems = [*_target_problems(target), *_path_problems(file, markdown)]
    if problems:
        raise InputError(problems)
    document = build_document(target, model)
    if not markdown:
        _write(file, render_html(document).encode())
        return file
    folder = file.with_suffix("")
    rendered = Markdown(document, folder.name)
    for name, content in rendered.pictures.items():
        _write(folder / name, content)
    _write(file, rendered.text.encode())
    return file


def build_document(target: Path, model: nn.Module | None = None) -> Document:
    """Return the report of a run folder, a study, or a folder of several."""
    if layout.has_recipe(target):
        return run_document(collect_run_facts(read_run(target), model))
    groups = study_facts.find_groups(target)
    if len(groups) == 1:
        return study_document(collect_study_facts(groups[0], model))
    studies: list[study_facts.StudyFacts] = []
    failures: list[str] = []
    cache: study_facts.SplitCache = {}
    for group in groups:
        try:
            studies.append(collect_study_facts(group, cache=cache))
        except InputError as error:
            failures += error.problems
    if not studies:
        raise InputError(failures)
    if len(studies) == 1:
        only = next(g for g in groups if g.name == studies[0].seeds.name)
        group = study_facts.RunGroup(only.name, only.runs, (*only.damages, *failures))
        return study_document(collect_study_facts(group, model))
    return comparison_document(target.name or str(target), studies, failures)


def _target_problems(target: Path) -> list[str]:
    if os.path.isdir(target):
        return []
    problem = "not a folder" if os.path.lexists(target) else "no such folder"
    return [f"{target}: {problem}. A report is of a run folder, or of a folder of runs."]


def _path_problems(file: Path, markdown: bool) -> list[str]:
    """Return all that is wrong with an output path, before anything is computed."""
    if os.path.isdir(file):
        return [f"--out {file}: a folder. Name the file to write."]
    if markdown and file.suffix != ".md":
        return [f"--out {file}: a Markdown report wants a name that ends in .md."]
    problem = unwritable_reason(file.absolute().parent)
    return [f"--out {file}: {problem}"] if problem else []


def _write(file: Path, content: bytes) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(file, content)
    except OSError as error:
        advice = disk_error_advice(file.parent, error, len(content))
        message = f"{file}: cannot be written: {advice}"
        if isinstance(error, PermissionError):
            raise InputError(f"{message}, or name another place with --out.") from None
        raise RunFailed(f"{message}, and ask again.") from None
