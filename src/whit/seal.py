"""The seal of a run: digests of its files and of the result itself, in `result.json`.

It finds what was altered after the fact by accident or by hand. Whoever alters everything and
seals it again is found by what `whit audit` recomputes: weights do not lie about accuracy.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

SEALED = ("recipe.toml", "environment.json", "log.jsonl", "weights.safetensors", "audit.txt")


def sealed(result: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return the result with the digests of the files beside it, and then its own."""
    files = {name: _file_digest(folder / name) for name in SEALED}
    whole = {**result, "files": files}
    return {**whole, "seal": _digest(whole)}


def broken_seals(result: dict[str, Any], folder: Path) -> Iterator[tuple[str, str, str]]:
    """Yield (file, digest as sealed, digest now) for each file that is not as it was sealed."""
    files = result.get("files")
    files = files if isinstance(files, dict) else {}
    for name in SEALED:
        now = _file_digest(folder / name)
        if files.get(name) != now:
            yield name, str(files.get(name)), str(now)
    own = _digest({key: value for key, value in result.items() if key != "seal"})
    if result.get("seal") != own:
        yield "result.json", str(result.get("seal")), own


def _digest(value: dict[str, Any]) -> str:
    return sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _file_digest(path: Path) -> str | None:
    """SHA-256 of a file, read in pieces; None where there is no such file of its own."""
    if path.is_symlink() or not path.is_file():
        return None
    whole = sha256()
    with path.open("rb") as stream:
        while piece := stream.read(1 << 20):
            whole.update(piece)
    return whole.hexdigest()
