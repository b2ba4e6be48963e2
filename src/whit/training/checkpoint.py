"""Checkpoints: one file each, named by number and digest; the two newest are kept.

    checkpoint/000012-9f86d081884c7d65.safetensors

Tensors as safetensors, everything else as JSON in its header. The name holds the first 64 bits
of the content's SHA-256, so a truncated or corrupted file is recognized before it is parsed, and
the previous one is used.
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
from whit.system.atomic_files import atomic_write

_NUM_KEPT = 2
_METADATA_KEY = "whit"  # the header's one entry that is not a tensor
_QUARANTINED = "damaged-"


@dataclass(frozen=True)
class Checkpoint:
    """The content of a file: tensors by name, and JSON."""

    path: Path
    tensors: dict[str, Tensor]
    metadata: dict[str, Any]


def serialize(tensors: dict[str, Tensor], metadata: dict[str, Any]) -> bytes:
    """Return the content of a checkpoint; the same values give the same bytes."""
    content: bytes = safetensors.torch.save(tensors, {_METADATA_KEY: json.dumps(metadata)})
    return content


def file_name(number: int, content: bytes) -> str:
    return f"{number:06d}-{sha256(content).hexdigest()[:16]}.safetensors"


def write_checkpoint(folder: Path, content: bytes) -> Path:
    """Write a new checkpoint into `folder`, then remove all but the two newest.

    Raises OSError when it cannot be written; the earlier ones then remain.
    """
    earlier = _numbered(folder)
    path = folder / file_name(earlier[0][0] + 1 if earlier else 0, content)
    atomic_write(path, content)
    for _, older in earlier[_NUM_KEPT - 1 :]:
        older.unlink(missing_ok=True)
    return path


def find_latest_checkpoint(folder: Path, max_bytes: int) -> tuple[Checkpoint | None, list[Path]]:
    """Return the newest valid checkpoint, and the damaged ones that are newer.

    Files larger than `max_bytes` are not read: no checkpoint of this run can be.
    """
    damaged: list[Path] = []
    for _, path in _numbered(folder):
        if checkpoint := _read(path, max_bytes):
            return checkpoint, damaged
        damaged.append(path)
    return None, damaged


def valid_checkpoints(folder: Path, max_bytes: int) -> Iterator[Checkpoint]:
    """Yield every valid checkpoint, newest first."""
    for _, path in _numbered(folder):
        if checkpoint := _read(path, max_bytes):
            yield checkpoint


def quarantine(path: Path) -> None:
    """Rename a damaged checkpoint, so that it is not read again until the run is finished."""
    path.rename(path.with_name(_QUARANTINED + path.name))


def _numbered(folder: Path) -> list[tuple[int, Path]]:
    """Return the checkpoints with their numbers, newest first."""
    if not folder.is_dir():
        return []
    matched = [(CHECKPOINT_NAME.fullmatch(path.name), path) for path in folder.iterdir()]
    return sorted(((int(match[1]), path) for match, path in matched if match), reverse=True)


def _read(path: Path, max_bytes: int) -> Checkpoint | None:
    try:
        if path.is_symlink() or not path.is_file() or path.stat().st_size > max_bytes:
            return None
        content = path.read_bytes()
        match = CHECKPOINT_NAME.fullmatch(path.name)
        if match is None or sha256(content).hexdigest()[:16] != match[2]:
            return None
        length = int.from_bytes(content[:8], "little")
        metadata = json.loads(json.loads(content[8 : 8 + length])["__metadata__"][_METADATA_KEY])
        tensors = safetensors.torch.load(content)
    except (OSError, ValueError, KeyError, TypeError, RecursionError, SafetensorError):
        return None
    return Checkpoint(path, tensors, metadata) if isinstance(metadata, dict) else None
