"""Optional dependencies, which only some commands need."""

from __future__ import annotations

from importlib.util import find_spec

from whit.errors import InputError


def require_extra(extra: str, *modules: str) -> None:
    """Raise InputError, saying what to install, unless all modules are installed."""
    missing = [module for module in modules if find_spec(module) is None]
    if missing:
        raise InputError(
            f"{' and '.join(missing)}: not installed. This command requires it: "
            f"pip install 'whit[{extra}]'."
        )
