"""A worker process: it reads jobs and writes their progress and outcome, as lines of JSON.

    python -m whit.experiments.execution.worker

It ends with its parent: when standard input closes, the current run is saved and stopped.
"""

from __future__ import annotations

import os
import signal
import sys

from whit.system.json_worker import Send, serve_requests
from whit.system.processor.collector import pause_gc


def main() -> None:
    pid = os.getpid()
    with pause_gc():
        import whit.experiments.execution.runner  # noqa: F401
    serve_requests(_run_job, lambda: os.kill(pid, signal.SIGTERM), greeting={"ready": pid})


def _run_job(line: str, send: Send) -> None:
    from whit.experiments.execution.job import Job
    from whit.experiments.execution.runner import run_job

    job = Job.from_json_line(line)
    sys.argv = ["whit", *job.command]
    outcome = run_job(job, lambda epochs: send({"epochs": epochs}))
    send({"outcome": [outcome.state, outcome.message]})


if __name__ == "__main__":
    main()
