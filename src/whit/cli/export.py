"""The command that exports a run: as ONNX, as C, or as the page with its network in it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from whit.cli.options import AsJson, Quiet, TrustModelFiles
from whit.errors import InputError, did_you_mean
from whit.export.targets import TARGETS
from whit.system.console import report_stages, show, stdout_to_stderr
from whit.training.target import require_run

_INT8_TARGETS = [target.name for target in TARGETS.values() if not target.no_int8]


def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a finished run.")],
    to: Annotated[
        str,
        typer.Option(
            "--format",
            metavar="FORMAT",
            help="; ".join(f"{each.name}: {each.summary}" for each in TARGETS.values()) + ".",
        ),
    ],
    int8: Annotated[
        bool,
        typer.Option(
            "--int8",
            help=f"Quantize to int8, integer arithmetic only ({' and '.join(_INT8_TARGETS)}).",
        ),
    ] = False,
    name: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Prefix of the C symbols, macros and files. "
            "[default: the recipe's name, with _int8 if quantized]",
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="PATH", help="Output path; must not exist.")
    ] = None,
    trust_model_files: TrustModelFiles = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Export a trained model and verify it on the full test set."""
    if to not in TARGETS:
        raise InputError(
            f"--format {to}: allowed: {', '.join(TARGETS)}.{did_you_mean(to, TARGETS)}"
        )
    require_run(run)
    with stdout_to_stderr(as_json), report_stages(quiet, as_json) as on_stage:
        from whit.export.exporter import export_run

        result = export_run(
            run,
            to,
            out,
            int8=int8,
            name=name,
            trust_model_files=trust_model_files,
            on_stage=on_stage,
        )
    show(result.to_json(), result.text, as_json)
