"""The command that writes the report of a run or a study."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from whit.system.console import echo


def report(
    target: Annotated[
        Path,
        typer.Argument(metavar="TARGET", help="A run folder, a study, or a folder of several."),
    ],
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="By default report.html in TARGET, or report.md."),
    ] = None,
    markdown: Annotated[
        bool,
        typer.Option("--markdown", help="A section for a README, its pictures in a folder."),
    ] = False,
) -> None:
    """Write a page that opens anywhere, or Markdown.

    A run of your own model file runs that file again.
    """
    from whit.reports import write_report

    echo(f"Report: {write_report(target, out, markdown)}", sys.stdout)
