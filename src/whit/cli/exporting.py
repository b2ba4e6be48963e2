"""The verb that ships a run: as ONNX, as C, or as the page with its network in it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from whit.cli.options import AsJson
from whit.console import alone, show
from whit.errors import InputError, did_you_mean

_FORMS = ("onnx", "c", "html")


def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a finished run.")],
    to: Annotated[
        str,
        typer.Option(
            "--to",
            metavar="FORM",
            help="onnx: one file; c: a folder with C99; html: a page to draw on.",
        ),
    ],
    int8: Annotated[
        bool, typer.Option("--int8", help="In whole numbers of 8 bits, for onnx and c.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option(metavar="PATH", help="Where to; must not be there yet.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Ship a run, and prove it equal on every image it was judged on."""
    if to not in _FORMS:
        raise InputError(f"--to {to}: allowed: {', '.join(_FORMS)}.{did_you_mean(to, _FORMS)}")
    from whit.export.exporter import ship

    name = f"{run.resolve().name}{'-int8' * int8}.{to}"
    with alone(as_json):
        shipped = ship(run, to, out or Path(name), int8=int8)
    show(shipped.to_json(), shipped.text, as_json)
