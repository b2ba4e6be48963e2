"""The environment of a run: versions, processor, threads, and the state of whit's code."""

from __future__ import annotations

import platform
import sys
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from whit.runs.code_version import git_state
from whit.system.processor.cores import count_cores

if TYPE_CHECKING:
    import torch


def describe_environment(device: torch.device, seed: int, threads: int) -> dict[str, Any]:
    """Return what a repetition needs to give the same bytes, and what to cite."""
    import torch

    capabilities = torch.cpu.get_capabilities()
    features = sorted(name for name, present in capabilities.items() if present is True)
    return {
        "whit": metadata.version("whit"),
        "code": git_state(),
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "numpy": metadata.version("numpy"),
        "system": f"{platform.system()} {platform.machine()}",
        "processor": str(capabilities.get("cpu_name") or platform.processor() or "unknown"),
        "processor_features": features,
        "cores": count_cores(),
        "threads": threads,
        "device": str(device),
        "device_name": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
        "seed": seed,
        "command": command(),
    }


def command() -> list[str] | None:
    """Return the command line of whit, without the machine's paths; None when called in Python."""
    program = Path(sys.argv[0])
    if program.name == "whit" or program.parent.name == "whit":
        return ["whit", *sys.argv[1:]]
    return None
