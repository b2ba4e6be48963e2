"""The journal of a search on one machine: repaired when it is opened, and appended whole records.

The folder of a search is locked by its one process, so the journal needs no lock of its own; one
that a killed process of an earlier version left has no effect.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from optuna.storages.journal import JournalFileBackend

from whit.errors import InputError
from whit.system.atomic_files import atomic_write, durable_append
from whit.system.untrusted_files import unreadable_reason

ADVICE = (
    "Restore the file from a copy, or remove it: the search then takes the trials from their "
    "folders, and the sampler forgets their parameters."
)
_MAX_BYTES = 1 << 30  # a trial takes about 2,000
_RECORD_START = b'{"op_code"'  # what Optuna begins each record with


class Journal(JournalFileBackend):
    """Optuna's journal file. A record that the disk has no space for leaves nothing behind."""

    def __init__(self, path: Path):
        """Open or create it; `repairs` are sentences on what was cut off.

        Raises InputError when a record is damaged that others follow, OSError when it cannot be
        read or repaired.
        """
        self.path = path
        self.repairs = repair_journal(path)
        super().__init__(str(path))

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        lines = [json.dumps(log, separators=(",", ":")) + "\n" for log in logs]
        durable_append(self.path, "".join(lines).encode())


def repair_journal(path: Path) -> list[str]:
    """Remove incomplete records; return a sentence where there were any.

    What was removed is appended to `<path>.torn`. Raises InputError for a damaged record that is
    neither the last one nor the start of a write that failed, and for a file that is no journal.
    """
    try:
        reason = unreadable_reason(path, _MAX_BYTES)
    except FileNotFoundError:
        return []
    if reason:
        raise InputError(f"{path}: {reason}: not the journal of a search. Remove it.")
    content = path.read_bytes()
    records: list[bytes] = []
    torn: list[bytes] = []
    damaged = None  # number of a line without a record
    lines = content.split(b"\n")
    for number, line in enumerate(lines, start=1):
        record = _find_record(line)
        if record is None:
            if line.strip(b"\0\r "):
                damaged = damaged or number
            if line:
                torn.append(line)
            continue
        if damaged:
            raise InputError(
                f"{path}: line {damaged} of {len(lines)} is damaged, and others follow it. {ADVICE}"
            )
        records.append(record)
        if len(record) < len(line):
            torn.append(line.replace(record, b"", 1))
    repaired = b"".join(record + b"\n" for record in records)
    if repaired == content:
        return []
    if torn:
        durable_append(path.with_name(f"{path.name}.torn"), b"\n".join(torn) + b"\n")
    atomic_write(path, repaired)
    count = sum(map(len, torn))
    if not count:  # only a line end was missing
        return []
    return [
        f"{path}: {count:,} bytes of incomplete records were removed; they "
        f"are kept in {path.name}.torn."
    ]


def _find_record(line: bytes) -> bytes | None:
    """Return the record at the end of a line.

    The start of one may precede it: of a write that failed, or zeros after a power failure.
    """
    start = line.find(_RECORD_START)
    while start >= 0:
        record = line[start:].rstrip(b"\0\r ")
        try:
            if isinstance(json.loads(record), dict):
                return record
        except (ValueError, RecursionError):
            pass
        start = line.find(_RECORD_START, start + 1)
    return None
