"""From a target to the files of its report."""

from __future__ import annotations

import os
from pathlib import Path

from torch import nn

from whit.durable import what_to_free, why_no_place, write_whole
from whit.errors import InputError, RunFailed
from whit.needed import need
from whit.reports.document import Document
from whit.reports.renderers.html import html_page
from whit.reports.renderers.markdown import Markdown
from whit.reports.run_facts import account_of
from whit.reports.run_report import run_document
from whit.reports.study_facts import Group, Known, Study, groups_in, study_of
from whit.reports.study_report import studies_document, study_document
from whit.run_record import RunRecord, read_run


def run_page(run: RunRecord, model: nn.Module | None = None) -> str:
    """Return the report of a run as one HTML page.

    `model` is the network of a run that was given one in Python. Raises InputError for weights
    that were altered until nobody can load them.
    """
    _need_matplotlib()
    return html_page(run_document(account_of(run, model)))


def study_page(folder: Path) -> str:
    """Return the report of a study, or of several, as one HTML page.

    Raises InputError for a folder without a finished run.
    """
    _need_matplotlib()
    return html_page(document_of(folder))


def write_report(
    target: Path, out: Path | None = None, markdown: bool = False, model: nn.Module | None = None
) -> Path:
    """Write the report of a run, a study or several studies; return the file.

    By default it is `report.html`, or `report.md` with the folder `report`, in the target; no
    judgement of a run looks at these names. A report that is there is replaced. Raises InputError
    for a target that is no run and holds none, or for a place that cannot be written to,
    RunFailed when the disk is full.
    """
    _need_matplotlib()
    file = out if out is not None else target / ("report.md" if markdown else "report.html")
    problems = [*_target_problems(target), *_place_problems(file, markdown)]
    if problems:
        raise InputError(problems)
    document = document_of(target, model)
    if not markdown:
        _write(file, html_page(document).encode())
        return file
    pictures = file.with_suffix("")
    written = Markdown(document, pictures.name)
    for name, content in written.pictures.items():
        _write(pictures / name, content)
    _write(file, written.text.encode())
    return file


def document_of(target: Path, model: nn.Module | None = None) -> Document:
    """Return the report of a run folder, a study, or a folder of several."""
    if os.path.isfile(target / "recipe.toml"):
        return run_document(account_of(read_run(target), model))
    groups = groups_in(target)
    if len(groups) == 1:
        return study_document(study_of(groups[0], model))
    studies: list[Study] = []
    failures: list[str] = []
    known: Known = {}
    for group in groups:
        try:
            studies.append(study_of(group, known=known))
        except InputError as error:
            failures += error.problems
    if not studies:
        raise InputError(failures)
    if len(studies) == 1:
        alone = next(g for g in groups if g.name == studies[0].seeds.name)
        damages = (*alone.damages, *failures)
        return study_document(study_of(Group(alone.name, alone.runs, damages), model))
    return studies_document(target.name or str(target), studies, failures)


def _need_matplotlib() -> None:
    need("report", "matplotlib")


def _target_problems(target: Path) -> list[str]:
    if os.path.isdir(target):
        return []
    said = "not a folder" if os.path.lexists(target) else "no such folder"
    return [f"{target}: {said}. A report is of a run folder, or of a folder of runs."]


def _place_problems(file: Path, markdown: bool) -> list[str]:
    """Say all that is wrong with a place before anything is computed."""
    if os.path.isdir(file):
        return [f"--out {file}: a folder. Name the file to write."]
    if markdown and file.suffix != ".md":
        return [f"--out {file}: a Markdown report wants a name that ends in .md."]
    problem = why_no_place(file.absolute().parent)
    return [f"--out {file}: {problem}"] if problem else []


def _write(file: Path, content: bytes) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_whole(file, content)
    except OSError as error:
        said = f"{file}: cannot be written: {what_to_free(file.parent, error, len(content))}"
        if isinstance(error, PermissionError):
            raise InputError(f"{said}, or name another place with --out.") from None
        raise RunFailed(f"{said}, and ask again.") from None
