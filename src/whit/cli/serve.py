"""The command that serves the web page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from whit.cli.options import parse_int
from whit.errors import InputError
from whit.system.optional_deps import require_extra


def serve(
    folders: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="FOLDER",
            help="By default runs/, studies/, records/ and searches/.",
        ),
    ] = None,
    host: Annotated[
        str, typer.Option(metavar="NAME", help="Address to listen on; 0.0.0.0: all of them.")
    ] = "127.0.0.1",
    port: Annotated[
        str, typer.Option(metavar="N", help="Port to listen on; 0 takes a free one.")
    ] = "8028",
    opens: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
    trust_model_files: Annotated[
        bool,
        typer.Option(
            "--trust-model-files", help="Execute the code of models that are your own files."
        ),
    ] = False,
) -> None:
    """Start the web UI: browse runs, classify drawings and image files."""
    require_extra("serve", "starlette", "uvicorn")
    number = parse_int("--port", port)
    if not 0 <= number < 1 << 16:
        raise InputError(f"--port {number}: allowed are 0 to {(1 << 16) - 1}.")
    from whit.web import server

    server.serve(folders or None, host, number, opens=opens, trust_models=trust_model_files)
