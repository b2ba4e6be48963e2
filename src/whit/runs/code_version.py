"""The version of whit's code: its commit in a checkout, and a digest of its files."""

from __future__ import annotations

import hashlib
import subprocess
from importlib import metadata, resources
from pathlib import Path
from typing import Any

_PACKAGE = Path(str(resources.files("whit")))


def git_state() -> dict[str, Any]:
    """Return the commit of the checkout that whit runs from, and whether it was changed.

    Both are None for an installed package. `sha256` is over whit's Python files, and identifies
    the state of the code in either case.
    """
    return {**_checkout_state(), "sha256": _code_sha256()}


def compatibility_versions() -> dict[str, str]:
    """Return what must be equal on all machines of a study, without importing torch."""
    return {"whit": _code_sha256(), "torch": metadata.version("torch")}


def _code_sha256() -> str:
    digest = hashlib.sha256()
    for path in sorted(_PACKAGE.rglob("*.py")):
        digest.update(f"{path.relative_to(_PACKAGE).as_posix()}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _checkout_state() -> dict[str, Any]:
    root = _PACKAGE.parents[1]
    if not (root / ".git").exists():
        return {"commit": None, "dirty": None}
    try:
        commit = _git(root, "rev-parse", "HEAD")
        # Only the package's own files change what a run does; not its recorded accuracies, which
        # `whit recipes` prints.
        watched = ("src", "pyproject.toml", ":!src/whit/recipes/builtin/recorded.json")
        dirty = bool(_git(root, "status", "--porcelain", "--", *watched))
    except (OSError, subprocess.SubprocessError):
        return {"commit": None, "dirty": None}
    return {"commit": commit, "dirty": dirty}


def _git(root: Path, *arguments: str) -> str:
    # `git status` would lock the index to refresh it: a commit at the same time would fail, and
    # all later ones if this process were killed meanwhile.
    command = ["git", "--no-optional-locks", "-C", str(root), *arguments]
    output = subprocess.check_output(command, stderr=subprocess.DEVNULL, text=True, timeout=10)
    return output.strip()
