"""What takes seconds: networks, errors, reports. Made in a process of its own, one at a time.

    python -m whit.web.answers

Questions come as lines of JSON on standard input, {"what", "path", "own_models"}; for each a line
goes out, {"body"} or {"error", "status"}. torch is here and not in the server. When standard input
closes, the server is gone, and this process ends at once: it writes nothing.
"""

from __future__ import annotations

import base64
import json
import os
import queue
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from whit.errors import InputError, WhitError
from whit.models.source import is_source
from whit.run_record import RunRecord, read_run, why_no_weights
from whit.trained import Trained, load_trained
from whit.web.rows import own_model_refusal

_MOST_ERRORS = 300


def network(run: RunRecord) -> str:
    """Return the fused network of a finished run as JSON."""
    from whit.export.html.graph_json import graph_json
    from whit.export.ir.build import build_graph

    return json.dumps(graph_json(build_graph(_network_of(run))))


def errors(run: RunRecord) -> str:
    """Return the images that a finished run gets wrong as JSON, the worst first."""
    from whit.reporting.findings import findings_of

    trained = _network_of(run)
    split, found = trained.split, findings_of(trained)
    return json.dumps(
        {
            "split": found.split,
            "total": found.total,
            "correct": found.correct,
            "classes": list(found.classes),
            "shape": list(split.images.shape[1:]),
            "errors": [
                {
                    "index": error.index,
                    "true": error.true,
                    "predicted": error.predicted,
                    "probabilities": list(error.probabilities),
                    "disputed": error.disputed,
                    "pixels": base64.b64encode(
                        split.images[error.index].numpy().tobytes()
                    ).decode(),
                }
                for error in found.errors[:_MOST_ERRORS]
            ],
        }
    )


def report(run: RunRecord) -> str:
    """Return the page that `whit report` writes."""
    from whit.reporting import run_page

    return run_page(run)


_ANSWERS: dict[str, Callable[[RunRecord], str]] = {
    "network": network,
    "errors": errors,
    "report": report,
}


def _network_of(run: RunRecord) -> Trained:
    problem = why_no_weights(run)
    if problem:
        raise InputError(f"{run.path}: {problem}, so there is no network to show.")
    return load_trained(run)


def answer(what: str, path: str, own_models: bool) -> dict[str, Any]:
    """Return {"body"}, or {"status", "error"} in plain words. Raises nothing."""
    try:
        run = read_run(Path(path))
        if is_source(run.recipe.model.name) and not own_models:
            return {"status": 403, "error": own_model_refusal(run.recipe.model.name)}
        return {"body": _ANSWERS[what](run)}
    except WhitError as error:
        return {"status": 409, "error": str(error)}
    except Exception:
        said = f"{traceback.format_exc()}whit: the {what} of {path} failed as above."
        print(said, file=sys.stderr, flush=True)
        return {"status": 500, "error": "whit failed; its terminal shows how. Please report it."}


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the server's
    if hasattr(os, "nice"):
        os.nice(5)  # the server, and a training, come first
    replies = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
    os.dup2(2, 1)  # what a user's model prints must not look like a reply
    questions: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(sys.stdin, questions), daemon=True).start()
    while True:
        replies.write(json.dumps(answer(**json.loads(questions.get()))) + "\n")


def _read(stream: IO[str], questions: queue.SimpleQueue[str]) -> None:
    for line in stream:
        questions.put(line)
    os._exit(0)


if __name__ == "__main__":
    main()
