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
from whit.reports.report_path import ReportPath
from whit.reports.run_facts import collect_run_facts
from whit.reports.run_report import run_document
from whit.reports.study_facts import collect_study_facts
from whit.reports.study_report import comparison_document, study_document
from whit.runs import layout
from whit.runs.reader import RunRecord, read_run
from whit.system.atomic_files import atomic_write, disk_error_advice, unwritable_reason
from whit.system.console import OnStage, ignore_stage
from whit.system.file_names import encodable
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
    target: Path,
    out: Path | None = None,
    markdown: bool = False,
    model: nn.Module | None = None,
    on_stage: OnStage = ignore_stage,
    *,
    trust_model_files: bool = False,
) -> ReportPath:
    """Write the report of a run, a study or several studies; return the file.

    By default it is `report.html`, or `report.md` with the folder `report`, in the target; no audit
    of a run reads these names. An existing report is replaced. `on_stage` is called with the name
    of each slow stage as it begins. `trust_model_files` executes the copy of a user's own model in
    the folder of a run, if its file is missing or has changed. Raises InputError for a target that
    is no run and contains none, or for a path that cannot be written, RunFailed when the disk is
    full.
    """
    require_extra("report", "matplotlib")
    default = target / ("report.md" if markdown else "report.html")
    file = ReportPath(default if out is None else out)
    problems = _target_problems(target)
    if out is not None or not problems:
        problems += _path_problems(file, markdown)
    if problems:
        raise InputError(problems)
    document = build_document(target, model, on_stage, trust_model_files=trust_model_files)
    on_stage(f"writing {file}")
    if not markdown:
        _write(file, render_html(document).encode())
        return file
    folder = file.with_suffix("")
    rendered = Markdown(document, folder.name)
    for name, content in rendered.pictures.items():
        _write(folder / name, content)
    _write(file, encodable(rendered.text).encode())
    return file


def build_document(
    target: Path,
    model: nn.Module | None = None,
    on_stage: OnStage = ignore_stage,
    *,
    trust_model_files: bool = False,
) -> Document:
    """Return the report of a run folder, a study, or a folder of several."""
    if layout.is_run(target):
        run = read_run(target, trust_model_files=trust_model_files, allow_edited=True)
        facts = collect_run_facts(run, model, on_stage)
        on_stage("drawing the figures")
        return run_document(facts)
    groups = study_facts.find_groups(target)
    if len(groups) == 1:
        return _build_study(groups[0], model, on_stage)
    studies: list[study_facts.StudyFacts] = []
    failures: list[str] = []
    cache: study_facts.SplitCache = {}
    for number, group in enumerate(groups, start=1):
        on_stage(f"verifying the digests of {group.name} ({number} of {len(groups)})")
        try:
            studies.append(collect_study_facts(group, cache=cache))
        except InputError as error:
            failures += error.problems
    if not studies:
        raise InputError(failures)
    if len(studies) == 1:
        only = next(g for g in groups if g.name == studies[0].seeds.name)
        group = study_facts.RunGroup(only.name, only.runs, (*only.damages, *failures))
        return _build_study(group, model, on_stage)
    on_stage("drawing the figures")
    return comparison_document(target.name or str(target), studies, failures)


def _build_study(
    group: study_facts.RunGroup, model: nn.Module | None, on_stage: OnStage
) -> Document:
    on_stage(f"verifying the digests of {group.name} ({len(group.runs)} runs)")
    facts = collect_study_facts(group, model, on_stage=on_stage)
    on_stage("drawing the figures")
    return study_document(facts)


def _target_problems(target: Path) -> list[str]:
    if os.path.isdir(target):
        return []
    problem = "not a folder" if os.path.lexists(target) else "no such folder"
    return [f"{target}: {problem}. Give a run folder, a study, or a folder of several."]


def _path_problems(file: Path, markdown: bool) -> list[str]:
    """Return all that is wrong with an output path, before anything is computed."""
    if os.path.isdir(file):
        return [f"--out {file}: is a folder. Give the name of a file."]
    if markdown and file.suffix != ".md":
        return [f"--out {file}: the name of a Markdown report must end in .md."]
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
            raise InputError(f"{message}, or choose another path with --out.") from None
        raise RunFailed(f"{message}, and run the command again.") from None
