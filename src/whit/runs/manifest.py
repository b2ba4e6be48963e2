"""The manifest of a run: digests of its files and of the result itself, in `result.json`.

It detects files that were changed after the run, by accident or by hand: `read_run` verifies it for
every reader. If the manifest was also rewritten, `whit audit` detects it: it recomputes the
accuracy from the weights.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from whit.recipes.schema1 import digest_key
from whit.runs import layout
from whit.system.untrusted_files import unreadable_reason

NOT_READ = "not read: "  # in place of a digest, before the reason
_MAX_TEXT_BYTES = 100_000_000
HASHED_FILES = tuple(name for name in layout.FILES if name != layout.RESULT)
# A folder that is kept as a record may lack these: no number of its result is read from them.
OPTIONAL_FILES = (layout.WEIGHTS, layout.AUDIT)


def with_manifest(result: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return the result with the digests of the other files, and its own digest."""
    names = (*HASHED_FILES, *layout.find_model_files(folder))
    hashed = {**result, "files": {name: _file_digest(folder / name) for name in names}}
    return {**hashed, "digest": _digest(hashed)}


def find_edited(result: dict[str, Any], folder: Path, texts: Mapping[str, str]) -> tuple[str, ...]:
    """Return the files that were altered after the run; OPTIONAL_FILES may be missing.

    `texts` are the contents of files that were read already; they are not read again. Without a
    manifest it is the result that was altered.
    """
    if not isinstance(result.get("files"), dict):
        return (layout.RESULT,)
    return tuple(
        name
        for name, _, _ in verify_manifest(result, folder, texts)
        if name not in OPTIONAL_FILES or os.path.lexists(folder / name)
    )


def verify_manifest(
    result: dict[str, Any], folder: Path, texts: Mapping[str, str] = {}
) -> Iterator[tuple[str, str, str]]:
    """Yield (file, recorded digest, digest now) for each file that was altered or is missing.

    `result` is the content of the result file as it is stored, in either schema; `texts` as of
    `find_edited`.
    """
    files = result.get("files")
    files = files if isinstance(files, dict) else {}
    recorded = (name for name in files if isinstance(name, str) and layout.is_model_file(name))
    model_files = sorted({*recorded, *layout.find_model_files(folder)})
    for name in (*HASHED_FILES, *model_files):
        text = texts.get(name)
        now = _sha256(text.encode()) if text is not None else _file_digest(folder / name)
        if files.get(name) != now:
            yield name, str(files.get(name)), str(now)
    key = digest_key(result)
    now = _digest({name: value for name, value in result.items() if name != key})
    if result.get(key) != now:
        yield layout.RESULT, str(result.get(key)), now


def _digest(value: dict[str, Any]) -> str:
    return _sha256(json.dumps(value, sort_keys=True).encode())


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _file_digest(path: Path) -> str | None:
    """Return the SHA-256 of a file; None where there is none, or a link.

    In place of the digest of a file that no run has, such as one of many gigabytes, why it is not
    read.
    """
    try:
        status = os.lstat(path)
        if not stat.S_ISREG(status.st_mode):
            return None
        max_bytes = layout.MAX_WEIGHTS_BYTES if path.name == layout.WEIGHTS else _MAX_TEXT_BYTES
        if reason := unreadable_reason(path, max_bytes):
            return f"{NOT_READ}{reason}"
        return _cached_digest(path, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    except FileNotFoundError:
        return None
    except OSError as error:
        return f"{NOT_READ}{error.strerror}"


@lru_cache(maxsize=20_000)
def _cached_digest(path: Path, size: int, mtime: int, ctime: int) -> str:
    """Hash a file once while its size and times stay: the page lists the same runs again."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
