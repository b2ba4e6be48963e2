"""The files beside a user's own: importable by name while it runs, and forgotten afterwards."""

from __future__ import annotations

import contextlib
import importlib
import sys
import types
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def neighbours(folder: Path) -> Iterator[None]:
    """Make the files in `folder` importable by name, and forget them again afterwards.

    A module of the same name from elsewhere is set aside meanwhile: `from blocks import Block`
    means the file beside the user's, not one that some other model brought before.
    """
    loose = _loose_names(folder)
    entry = str(folder)

    def take_out() -> dict[str, types.ModuleType]:
        names = [name for name in sys.modules if name.partition(".")[0] in loose]
        return {name: sys.modules.pop(name) for name in names}

    set_aside = take_out()
    sys.path.insert(0, entry)
    importlib.invalidate_caches()  # a file written a moment ago must be seen
    try:
        yield
    finally:
        if entry in sys.path:
            sys.path.remove(entry)
        take_out()
        sys.modules.update(set_aside)


def _loose_names(folder: Path) -> set[str]:
    """Return the names importable from `folder`, less the modules that must stay what they are.

    Those are the standard library, whit itself, and every installed package already in use:
    importing torch a second time because of a folder named `torch` would break it.
    """
    names = set()
    try:
        for entry in folder.iterdir():
            name = entry.stem if entry.suffix == ".py" else entry.name
            if name.isidentifier() and not name.startswith("__"):
                names.add(name)
    except OSError:  # a folder that may be entered but not listed
        return set()
    kept = {name for name in names if _is_installed(sys.modules.get(name))}
    return names - kept - sys.stdlib_module_names - {"whit"}


def _is_installed(module: types.ModuleType | None) -> bool:
    return module is not None and _in_site_packages(Path(getattr(module, "__file__", None) or ""))


def _in_site_packages(path: Path) -> bool:
    return not {"site-packages", "dist-packages"}.isdisjoint(path.parts)


def is_neighbour(folder: Path, path: Path) -> bool:
    """Return whether a file in `folder`, or in a package there, is the user's and not installed."""
    if not path.is_relative_to(folder) or _in_site_packages(path):
        return False
    first = path.relative_to(folder).parts[0]
    return first.removesuffix(".py") in _loose_names(folder)
