"""Checkpoints: one file each, named by its number and its digest, the two newest kept.

    checkpoint/000012-9f86d081884c7d65.safetensors

Tensors as safetensors, everything else as JSON in its header. The name holds the first 64 bits
of the content's SHA-256, so a file that was cut off, or whose bits have turned, is recognised
before anything in it is read, and the one before it is used.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from whit.runs.layout import CHECKPOINT_NAME
from whit.system.atomic_files import write_whole

_KEPT = 2
_FACTS = "whit"  # the header's one entry that is not a tensor
_DAMAGED = "damaged-"


@dataclass(frozen=True)
class Checkpoint:
    """What a file holds: tensors by name, and JSON."""

    path: Path
    tensors: dict[str, Tensor]
    facts: dict[str, Any]


def encode(tensors: dict[str, Tensor], facts: dict[str, Any]) -> bytes:
    """Return the content of a checkpoint; the same values give the same bytes."""
    content: bytes = safetensors.torch.save(tensors, {_FACTS: json.dumps(facts)})
    return content


def file_name(number: int, content: bytes) -> str:
    return f"{number:06d}-{sha256(content).hexdigest()[:16]}.safetensors"


def write_checkpoint(folder: Path, content: bytes) -> Path:
    """Write a new checkpoint into `folder`, then remove all but the two newest.

    Raises OSError when it cannot be written; those before it are then still there.
    """
    found = _numbered(folder)
    path = folder / file_name(found[0][0] + 1 if found else 0, content)
    write_whole(path, content)
    for _, older in found[_KEPT - 1 :]:
        older.unlink(missing_ok=True)
    return path


def newest_checkpoint(folder: Path, most_bytes: int) -> tuple[Checkpoint | None, list[Path]]:
    """Return the newest whole checkpoint, and the damaged ones that were found before it.

    Files larger than `most_bytes` are not read: no checkpoint of this run can be.
    """
    damaged: list[Path] = []
    for _, path in _numbered(folder):
        if checkpoint := _read(path, most_bytes):
            return checkpoint, damaged
        damaged.append(path)
    return None, damaged


def whole_checkpoints(folder: Path, most_bytes: int) -> Iterator[Checkpoint]:
    """Yield every whole checkpoint, newest first."""
    for _, path in _numbered(folder):
        if checkpoint := _read(path, most_bytes):
            yield checkpoint


def set_aside(path: Path) -> None:
    """Take a damaged checkpoint out of the row, and keep it until the run is finished."""
    path.rename(path.with_name(_DAMAGED + path.name))


def _numbered(folder: Path) -> list[tuple[int, Path]]:
    """Checkpoints by number, newest first."""
    if not folder.is_dir():
        return []
    matched = [(CHECKPOINT_NAME.fullmatch(path.name), path) for path in folder.iterdir()]
    return sorted(((int(match[1]), path) for match, path in matched if match), reverse=True)


def _read(path: Path, most_bytes: int) -> Checkpoint | None:
    try:
        if path.is_symlink() or not path.is_file() or path.stat().st_size > most_bytes:
            return None
        content = path.read_bytes()
        match = CHECKPOINT_NAME.fullmatch(path.name)
        if match is None or sha256(content).hexdigest()[:16] != match[2]:
            return None
        length = int.from_bytes(content[:8], "little")
        facts = json.loads(json.loads(content[8 : 8 + length])["__metadata__"][_FACTS])
        tensors = safetensors.torch.load(content)
    except (OSError, ValueError, KeyError, TypeError, RecursionError, SafetensorError):
        return None
    return Checkpoint(path, tensors, facts) if isinstance(facts, dict) else None
