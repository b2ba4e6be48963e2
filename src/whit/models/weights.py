"""Weights as safetensors: bytes without code, the same bytes for the same numbers."""

from __future__ import annotations

import hashlib
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from whit.errors import InputError

_HEADER = 1_000_000  # bytes that names and shapes may take in a file, many times what they do


def save_weights(model: nn.Module) -> bytes:
    """Return parameters and buffers as a safetensors file; a shared tensor is stored once."""
    stored: dict[str, Tensor] = {}
    seen: set[tuple[object, ...]] = set()
    for name, tensor in model.state_dict().items():
        place = (tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype)
        if place in seen and tensor.numel():
            continue
        seen.add(place)
        # Plain layout and memory of its own, whatever the layout during training.
        stored[name] = tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
    return safetensors.torch.save(stored)


def load_weights(model: nn.Module, path: Path) -> None:
    """Put the tensors of a safetensors file into `model`.

    Raises InputError naming every tensor that is missing, left over, or of another shape. A file
    larger than the model's tensors can make it is refused before it is read.
    """
    most = _HEADER + 2 * sum(t.numel() * t.element_size() for t in model.state_dict().values())
    try:
        with path.open("rb") as stream:
            content = stream.read(most + 1)
        if len(content) > most:
            raise InputError(f"{path}: larger than {most:,} bytes, so not of this model.")
        stored = safetensors.torch.load(content)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}.") from None
    except SafetensorError as error:
        raise InputError(f"{path}: not a whole safetensors file: {error}.") from None
    wanted = model.state_dict()
    given_places = {wanted[name].data_ptr() for name in stored if name in wanted}
    problems = []
    for name, tensor in wanted.items():
        if name not in stored:
            if tensor.data_ptr() not in given_places:
                problems.append(f"{path}: no tensor {name!r}, which the model has.")
        elif stored[name].shape != tensor.shape:
            problems.append(
                f"{path}: tensor {name!r} is {tuple(stored[name].shape)}, "
                f"the model wants {tuple(tensor.shape)}."
            )
    problems += [f"{path}: tensor {n!r} is not in the model." for n in stored if n not in wanted]
    if problems:
        raise InputError(problems)
    model.load_state_dict(stored, strict=False)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
