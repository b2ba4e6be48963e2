"""How a dask worker runs a job: in a child process, whose run folder it sends back.

dask may run a task twice, or again on another worker. The scratch folder of a run is named by the
job, the code and the weights, so that another worker process on the same machine resumes a run
whose process was killed, and still has the result when a killed driver asks again.
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
_KEEP_SECONDS = 86_400.0  # that a run that nobody fetched is kept
_LOCK_TIMEOUT = 10.0  # seconds for a process without a driver to release a run

_thread = threading.local()


def run_remote_job(line: str) -> dict[str, Any]:
    """Run a job; return its `state`, its `message`, and the `files` of the run."""
    job = Job.from_json_line(line)
    scratch = _scratch_folder(job)
    local_job = replace(job, folder=str(scratch))
    worker = get_worker()

    def on_progress(running: Job | None, epochs: int) -> None:
        if running:
            worker.log_event(TOPIC, {"id": job.id, "epochs": epochs})

    ((_, outcome),) = list(_executor(job.threads).run(iter([local_job]), on_progress))
    files = {}
    if outcome.state in ("finished", "diverged", "pruned"):
        for path in sorted(scratch.rglob("*")):
            name = path.relative_to(scratch).as_posix()
            if path.is_file() and name not in layout.LOCK_FILES:
                files[name] = path.read_bytes()
    return {"state": outcome.state, "message": outcome.message, "files": files}


def _executor(threads: int) -> LocalExecutor:
    """Return this thread's process for runs; it ends with the dask worker."""
    executor = getattr(_thread, "executor", None)
    if executor is None or executor.threads != threads:
        executor = _thread.executor = LocalExecutor(1, threads)
    return executor


def _scratch_folder(job: Job) -> Path:
    """Return the folder of a job, once no other process holds its lock."""
    root = Path(tempfile.gettempdir()) / f"whit-{getpass.getuser()}"
    root.mkdir(mode=0o700, exist_ok=True)
    _remove_expired(root)
    origin = f"{compatibility_versions()['whit']}{job.model_sha256}{job.teacher_sha256}"
    folder = root / f"{job.id}-{hashlib.sha256(origin.encode()).hexdigest()[:16]}"
    deadline = time.monotonic() + _LOCK_TIMEOUT
    while time.monotonic() < deadline:
        holder = read_lock_holder(folder / layout.CHECKPOINTS)
        if holder is None or holder.is_alive() is False:
            return folder
        time.sleep(0.1)
    return folder.with_name(f"{folder.name}-{secrets.token_hex(4)}")


def _remove_expired(root: Path) -> None:
    for folder in root.iterdir():
        try:
            if time.time() - folder.stat().st_mtime > _KEEP_SECONDS:
                shutil.rmtree(folder, ignore_errors=True)
        except FileNotFoundError:
            continue  # removed by another process
