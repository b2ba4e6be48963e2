"""Read and write weights as safetensors: without code, and equal tensors give equal bytes."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from whit.errors import InputError
from whit.recipes.schema1 import upgrade_weight_name
from whit.system.untrusted_files import read_untrusted

_MAX_HEADER = 1_000_000  # bytes of names and shapes in a file, far more than a model needs


def save_weights(model: nn.Module) -> bytes:
    """Return parameters and buffers as a safetensors file; a shared tensor is stored once."""
    stored: dict[str, Tensor] = {}
    names: dict[tuple[object, ...], str] = {}
    for name, tensor in model.state_dict().items():
        key = (tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype)
        if names.setdefault(key, name) != name and tensor.numel():
            continue
        # A contiguous copy, whatever the memory format during training.
        stored[name] = tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
    return safetensors.torch.save(stored)


def load_weights(model: nn.Module, path: Path) -> None:
    """Load the tensors of a safetensors file into `model`.

    Raises InputError that names every tensor that is missing, unexpected, or of another shape. At
    most as many bytes are read as the model's tensors and a header can take.
    """
    expected = model.state_dict()
    max_bytes = _MAX_HEADER + 2 * sum(t.numel() * t.element_size() for t in expected.values())
    try:
        content = read_untrusted(os.path.realpath(path), max_bytes + 1)
        if content is None:
            raise InputError(f"{path}: not a regular file.")
        if len(content) > max_bytes:
            raise InputError(
                f"{path}: larger than {max_bytes:,} bytes, the maximum for this model."
            )
        stored = _rename_schema1(safetensors.torch.load(content), expected)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}.") from None
    except SafetensorError as error:
        raise InputError(f"{path}: not a complete safetensors file: {error}.") from None
    loaded = {expected[name].data_ptr() for name in stored if name in expected}
    problems = []
    for name, tensor in expected.items():
        if name not in stored:
            if tensor.data_ptr() not in loaded:
                problems.append(f"{path}: no tensor {name!r}, which the model has.")
        elif stored[name].shape != tensor.shape:
            problems.append(
                f"{path}: tensor {name!r} is {tuple(stored[name].shape)}, "
                f"the model expects {tuple(tensor.shape)}."
            )
    problems += [f"{path}: tensor {n!r} is not in the model." for n in stored if n not in expected]
    if problems:
        raise InputError(problems)
    model.load_state_dict(stored, strict=False)


def _rename_schema1(stored: dict[str, Tensor], expected: Collection[str]) -> dict[str, Tensor]:
    """Return the tensors with those names of schema 1 renamed that the model has in schema 2."""
    renamed = {}
    for name, tensor in stored.items():
        new_name = upgrade_weight_name(name)
        is_old = name not in expected and new_name in expected and new_name not in stored
        renamed[new_name if is_old else name] = tensor
    return renamed


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
