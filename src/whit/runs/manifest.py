"""The manifest of a run: digests of its files and of the result itself, in `result.json`.

It detects files that were changed after the run, by accident or by hand. If the manifest was also
rewritten, `whit audit` detects it: it recomputes the accuracy from the weights.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from whit.recipes.schema1 import digest_key
from whit.runs import layout
from whit.system.untrusted_files import unreadable_reason

NOT_READ = "not read: "  # in place of a digest, before the reason
_MAX_TEXT_BYTES = 100_000_000
HASHED_FILES = tuple(name for name in layout.FILES if name != layout.RESULT)


def with_manifest(result: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return the result with the digests of the other files, and its own digest."""
    hashed = {**result, "files": {name: _file_digest(folder / name) for name in HASHED_FILES}}
    return {**hashed, "digest": _digest(hashed)}


def verify_manifest(result: dict[str, Any], folder: Path) -> Iterator[tuple[str, str, str]]:
    """Yield (file, recorded digest, digest now) for each file that was altered or is missing.

    `result` is the content of the result file as it is stored, in either schema.
    """
    files = result.get("files")
    files = files if isinstance(files, dict) else {}
    for name in HASHED_FILES:
        now = _file_digest(folder / name)
        if files.get(name) != now:
            yield name, str(files.get(name)), str(now)
    key = digest_key(result)
    now = _digest({name: value for name, value in result.items() if name != key})
    if result.get(key) != now:
        yield layout.RESULT, str(result.get(key)), now


def _digest(value: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _file_digest(path: Path) -> str | None:
    """Return the SHA-256 of a file; None where there is none.

    In place of the digest of a file that no run has, such as one of many gigabytes, why it is not
    read.
    """
    if path.is_symlink() or not path.is_file():
        return None
    max_bytes = layout.MAX_WEIGHTS_BYTES if path.name == layout.WEIGHTS else _MAX_TEXT_BYTES
    if reason := unreadable_reason(path, max_bytes):
        return f"{NOT_READ}{reason}"
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
