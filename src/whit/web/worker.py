"""The slow requests, for networks, errors and reports: computed in a process of their own.

    python -m whit.web.worker

A request is a line of JSON, {"what", "path", "trust_model_files"}; each is answered by a line,
{"body"} or {"error", "status"}. Only this process imports torch, not the server. It writes nothing,
so it is killed when the server ends.
"""

from __future__ import annotations

import base64
import json
import os
import sys
import traceback
from dataclasses import asdict
from pathlib import Path
from typing import Any

from whit.errors import InputError, WhitError
from whit.recipes.model_ref import is_model_path
from whit.runs.reader import RunRecord, read_run, weights_problem
from whit.system.json_worker import serve_requests
from whit.verification.restore import LoadedRun, load_run_model
from whit.web.error_page import INTERNAL_ERROR
from whit.web.payloads import user_model_refusal

_MAX_ERRORS = 300


def build_network(run: RunRecord) -> str:
    """Return the folded network of a finished run as JSON."""
    from whit.export.html.graph_json import graph_json
    from whit.export.ir.build import build_graph

    return json.dumps(graph_json(build_graph(_load_network(run)), run.recipe.data.name))


def build_errors(run: RunRecord) -> str:
    """Return the images that a finished run misclassifies as JSON, worst first."""
    from whit.verification.error_analysis import analyze_run

    loaded = _load_network(run)
    images, analysis = loaded.split.images, analyze_run(loaded)
    errors = []
    for error in analysis.errors[:_MAX_ERRORS]:
        pixels = base64.b64encode(images[error.index].numpy().tobytes()).decode()
        errors.append({**asdict(error), "pixels": pixels})
    value = {
        "split": analysis.split,
        "total": analysis.total,
        "correct": analysis.correct,
        "classes": analysis.classes,
        "shape": list(images.shape[1:]),
        "errors": errors,
    }
    return json.dumps(value)


def build_report(run: RunRecord) -> str:
    """Return the page that `whit report` writes."""
    from whit.reports import render_run_html

    return render_run_html(run)


_BUILDERS = {"network": build_network, "errors": build_errors, "report": build_report}


def _load_network(run: RunRecord) -> LoadedRun:
    problem = weights_problem(run)
    if problem:
        raise InputError(f"{run.path}: {problem}, so its network cannot be loaded.")
    return load_run_model(run)


def handle_request(what: str, path: str, trust_model_files: bool) -> dict[str, Any]:
    """Return {"body"}, or {"status", "error"} with a message. Raises nothing."""
    try:
        run = read_run(
            Path(path), trust_model_files=trust_model_files, allow_edited=what == "report"
        )
        if is_model_path(run.recipe.model.name) and not trust_model_files:
            return {"status": 403, "error": user_model_refusal(run.recipe.model.name)}
        return {"body": _BUILDERS[what](run)}
    except WhitError as error:
        return {"status": 409, "error": str(error)}
    except Exception:
        message = f"{traceback.format_exc()}whit: the request for {what} of {path} failed."
        print(message, file=sys.stderr, flush=True)
        return {"status": 500, "error": INTERNAL_ERROR}


def main() -> None:
    if hasattr(os, "nice"):
        os.nice(5)  # the server, and a training, come first
    serve_requests(
        lambda line, send: send(handle_request(**json.loads(line))), interrupt=lambda: os._exit(0)
    )


if __name__ == "__main__":
    main()
