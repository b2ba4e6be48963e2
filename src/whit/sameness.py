"""Whether a run that goes on would still be the same run: what must be as it was, to the byte."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

# What decides the bytes of a run, as keys of environment.json, with words for people.
DECIDING = {
    "whit": "whit",
    "code.sha256": "whit's own code",
    "torch": "torch",
    "numpy": "numpy",
    "system": "system",
    "processor": "processor",
    "processor_features": "processor features",
    "threads": "threads",
    "device": "device",
    "device_name": "device name",
    "data_sha256": "the data",
    "model_sha256": "the model's source",
    "teacher_sha256": "the teacher's weights",
}

Change = dict[str, Any]  # {"what", "before", "now"}


def changes_between(
    before: dict[str, Any], now: dict[str, Any], accepted: Sequence[Change] = ()
) -> list[Change]:
    """Return what differs between two environments, of what decides the bytes of a run.

    `accepted` are changes of earlier resumptions: they hold since then.
    """
    since = {change["what"]: change["now"] for change in accepted}
    found = []
    for key in DECIDING:
        was, is_now = since.get(key, _value(before, key)), _value(now, key)
        if was != is_now:
            found.append({"what": key, "before": was, "now": is_now})
    return found


def describe(change: Change) -> str:
    """Return one change in words, such as `threads: 2 then, 1 now`."""
    what = DECIDING.get(str(change["what"]), str(change["what"]))
    before, now = change["before"], change["now"]
    if isinstance(before, list) and isinstance(now, list):
        gone, new = sorted(set(before) - set(now)), sorted(set(now) - set(before))
        parts = [f"without {', '.join(gone)}"] * bool(gone) + [f"with {', '.join(new)}"] * bool(new)
        return f"{what}: now {' and '.join(parts)}"
    if what.endswith(("code", "data", "source")):
        return f"{what}: changed since"
    return f"{what}: {_shown(before)} then, {_shown(now)} now"


def _shown(value: object) -> str:
    return "unknown" if value is None else str(value)


def _value(environment: dict[str, Any], key: str) -> Any:
    """Look up a dotted key; None when a file that was altered has none."""
    value: Any = environment
    for part in key.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value
