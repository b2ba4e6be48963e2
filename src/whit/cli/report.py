"""The command that writes the report of a run or a study."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from whit.cli.options import Quiet, TrustModelFiles
from whit.system.console import echo, report_stages
from whit.training.target import require_run


def report(
    target: Annotated[
        Path,
        typer.Argument(metavar="TARGET", help="A run folder, a study, or a folder of several."),
    ],
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="By default report.html or report.md in TARGET."),
    ] = None,
    markdown: Annotated[
        bool,
        typer.Option("--markdown", help="Write a README section, with its figures in a folder."),
    ] = False,
    trust_model_files: TrustModelFiles = False,
    quiet: Quiet = False,
) -> None:
    """Write a report of a run or a study, as HTML or Markdown.

    The network is evaluated again; a model file of your own is executed for that.
    """
    with report_stages(quiet) as on_stage:
        require_run(target)
        on_stage(f"reading {target}")  # before torch is imported, which takes seconds
        from whit.reports import write_report

        file = write_report(
            target, out, markdown, on_stage=on_stage, trust_model_files=trust_model_files
        )
    echo(f"Report: {file}", sys.stdout)
