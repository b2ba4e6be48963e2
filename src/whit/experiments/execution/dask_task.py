"""What a dask worker does with a job: hand it to a process of its own, and send the run back.

dask may do a task twice, or again on another worker. The run lies in a scratch folder named by
the job with the code and the weights that it is made from, so that a worker process on the same
machine goes on where another one was killed, and has the result at hand when a driver that was
killed asks again.
"""

from __future__ import annotations

import getpass
import hashlib
import secrets
import shutil
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from distributed import get_worker

from whit.experiments.execution.job import Job
from whit.experiments.execution.local import LocalExecutor
from whit.runs import layout
from whit.runs.code_version import compatibility_versions
from whit.runs.lock import read_lock_holder

TOPIC = "whit-epochs"
_KEEP_SECONDS = 86_400.0  # seconds that a run is kept which nobody fetched
_LOCK_TIMEOUT = 10.0  # seconds for a process without a driver to give a run back

_thread = threading.local()


def run_remote_job(line: str) -> dict[str, Any]:
    """Do a job; return its `state`, what is `said` of it, and the `files` of the run."""
    job = Job.from_json_line(line)
    scratch = _scratch(job)
    mine = replace(job, folder=str(scratch))
    worker = get_worker()

    def look(moved: Job | None, epochs: int) -> None:
        if moved:
            worker.log_event(TOPIC, {"id": job.id, "epochs": epochs})

    ((_, outcome),) = list(_workers(job.threads).run(iter([mine]), look))
    files = {}
    if outcome.state in ("finished", "diverged", "given up"):
        for path in sorted(scratch.rglob("*")):
            name = path.relative_to(scratch).as_posix()
            if path.is_file() and name not in layout.LOCK_FILES:
                files[name] = path.read_bytes()
    return {"state": outcome.state, "said": outcome.message, "files": files}


def _workers(threads: int) -> LocalExecutor:
    """Return this thread's process for runs; it ends with the dask worker."""
    found = getattr(_thread, "workers", None)
    if found is None or found.threads != threads:
        found = _thread.workers = LocalExecutor(1, threads)
    return found


def _scratch(job: Job) -> Path:
    """Return the folder of a job, once nobody else is at work in it."""
    root = Path(tempfile.gettempdir()) / f"whit-{getpass.getuser()}"
    root.mkdir(mode=0o700, exist_ok=True)
    _remove_expired(root)
    made_from = "".join(
        map(str, (compatibility_versions()["whit"], job.model_sha256, job.teacher_sha256))
    )
    folder = root / f"{job.id}-{hashlib.sha256(made_from.encode()).hexdigest()[:16]}"
    limit = time.monotonic() + _LOCK_TIMEOUT
    while time.monotonic() < limit:
        owner = read_lock_holder(folder / layout.CHECKPOINTS)
        if owner is None or owner.is_alive() is False:
            return folder
        time.sleep(0.1)
    return folder.with_name(f"{folder.name}-{secrets.token_hex(4)}")


def _remove_expired(root: Path) -> None:
    for folder in root.iterdir():
        try:
            if time.time() - folder.stat().st_mtime > _KEEP_SECONDS:
                shutil.rmtree(folder, ignore_errors=True)
        except FileNotFoundError:
            continue  # swept by another
