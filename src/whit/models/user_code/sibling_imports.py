"""Imports from the folder of a user's file, while that file runs."""

from __future__ import annotations

import contextlib
import importlib
import sys
import types
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def sibling_imports(folder: Path) -> Iterator[None]:
    """Make the files in `folder` importable by name inside; remove their modules afterwards.

    A loaded module of the same name from elsewhere is replaced inside: `from blocks import Block`
    means the file in this folder, not one that another model has imported.
    """
    siblings = _find_sibling_names(folder)
    entry = str(folder)

    def remove_modules() -> dict[str, types.ModuleType]:
        names = [name for name in sys.modules if name.partition(".")[0] in siblings]
        return {name: sys.modules.pop(name) for name in names}

    replaced = remove_modules()
    sys.path.insert(0, entry)
    importlib.invalidate_caches()  # the file finder may miss a file written a moment ago
    try:
        yield
    finally:
        if entry in sys.path:
            sys.path.remove(entry)
        remove_modules()
        sys.modules.update(replaced)


def _find_sibling_names(folder: Path) -> set[str]:
    """Return the module names importable from `folder`, without those that must not be shadowed.

    Those are the standard library, whit itself, and every installed package already imported:
    importing torch a second time because of a folder named `torch` would break it.
    """
    try:
        names = {entry.name.removesuffix(".py") for entry in folder.iterdir()}
    except OSError:  # a folder that may be entered but not listed
        return set()
    files = {name: getattr(sys.modules.get(name), "__file__", None) or "" for name in names}
    return {
        name
        for name in names - sys.stdlib_module_names - {"whit"}
        if name.isidentifier() and not name.startswith("__")
        if not _in_site_packages(Path(files[name]))
    }


def _in_site_packages(path: Path) -> bool:
    return not {"site-packages", "dist-packages"}.isdisjoint(path.parts)


def is_sibling(folder: Path, path: Path) -> bool:
    """Return whether a file in `folder`, or in a package there, is the user's and not installed."""
    if not path.is_relative_to(folder) or _in_site_packages(path):
        return False
    first = path.relative_to(folder).parts[0]
    return first.removesuffix(".py") in _find_sibling_names(folder)
