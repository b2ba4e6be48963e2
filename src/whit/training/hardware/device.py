"""The device and the memory that a run computes with."""

from __future__ import annotations

import ctypes

import torch

from whit.errors import InputError


def resolve_device(name: str) -> torch.device:
    """Return `cpu`, `cuda` or `cuda:N`. Raises InputError if it is not available."""
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise InputError(f"--device {name}: not a device. Allowed: cpu, cuda, cuda:0, cuda:1, ...")
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if not count:
            raise InputError(
                f"--device {name}: CUDA is not available on this machine or in this torch. Use cpu."
            )
        if (device.index or 0) >= count:
            raise InputError(
                f"--device {name}: this machine has {count} CUDA device(s), starting at cuda:0."
            )
    return device


def enable_determinism(device: torch.device) -> None:
    """Make CUDA deterministic, and compute fp32 as fp32; CPUs do both already."""
    if device.type == "cuda":
        torch.backends.cudnn.deterministic = True
        torch.backends.cudnn.benchmark = False
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cuda.matmul.allow_tf32 = False


def tune_malloc() -> None:
    """Configure glibc to reuse freed memory instead of returning it to the system at every step.

    A step frees and allocates the same tens of megabytes; returning them costs a page fault for
    each 4 kB, up to half of a step's time. Without glibc this does nothing. The numbers of the
    options are those of <malloc.h>.
    """
    trim_threshold, top_pad, mmap_threshold = -1, -2, -3
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return
    mallopt(mmap_threshold, 1 << 30)
    mallopt(trim_threshold, (1 << 31) - 1)
    mallopt(top_pad, 64 << 20)
