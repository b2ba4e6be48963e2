"""Running statistics that store numbers: a file of data in the shape of a BatchNorm."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from whit.analysis.sources.constant_channels import count_constant_channels
from whit.analysis.tracing.sandbox import BATCH, set_mode
from whit.analysis.tracing.stored_tensors import storage_key

if TYPE_CHECKING:
    from whit.analysis.tracing.session import TracingSession


def find_stored_statistics(session: TracingSession) -> dict[int, int]:
    """Return by registry entry how many running statistics are storage, not statistics.

    Those of channels that no image changes, and those that a change of the mode writes.
    """
    if session.trace.failure is not None:
        return {}
    running = {
        entry.index: tensor
        for entry in session.registry.entries
        if (tensor := session.registry.find_tensor(entry.index)) is not None
        and any(entry.index in op.statistics for op in session.trace.ops)
    }
    if not running:
        return {}
    stored = _find_switched(session, running)
    images = session.prepare(training=False, batch=2 * BATCH)
    constant = count_constant_channels(session.copy, images)
    for index, tensor in running.items():
        if count := constant.get(storage_key(tensor)):
            stored.setdefault(index, count)
    return stored


def _find_switched(session: TracingSession, running: dict[int, Tensor]) -> dict[int, int]:
    """Return which of the tensors a change to evaluation mode writes, and their sizes."""
    before = {index: tensor.clone() for index, tensor in running.items()}
    set_mode(session.models, training=True)
    with torch.no_grad():
        for tensor in running.values():
            tensor.fill_(1.5)
    set_mode(session.models, training=False)
    switched = {
        index: tensor.numel()
        for index, tensor in running.items()
        if not bool((tensor == 1.5).all())
    }
    with torch.no_grad():
        for index, tensor in running.items():
            tensor.copy_(before[index])
    return switched
