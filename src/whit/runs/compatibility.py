"""Whether a resumed run would give the same bytes: what must not change."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

# Keys of environment.json on which the bytes of a run depend, with their names in messages.
REPRODUCIBILITY_KEYS = {
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


def diff_environments(
    before: dict[str, Any], now: dict[str, Any], accepted: Sequence[Change] = ()
) -> list[Change]:
    """Return the REPRODUCIBILITY_KEYS in which two environments differ.

    `accepted` are changes of earlier resumptions, which replace the values of `before`.
    """
    replaced = {change["what"]: change["now"] for change in accepted}
    changes = []
    for key in REPRODUCIBILITY_KEYS:
        old, new = replaced.get(key, _look_up(before, key)), _look_up(now, key)
        if old != new:
            changes.append({"what": key, "before": old, "now": new})
    return changes


def describe_change(change: Change) -> str:
    """Return one change as text, such as `threads: was 2, now 1`."""
    name = REPRODUCIBILITY_KEYS.get(str(change["what"]), str(change["what"]))
    before, now = change["before"], change["now"]
    if isinstance(before, list) and isinstance(now, list):
        old, new = ({str(item) for item in items} for items in (before, now))
        lists = {"removed": old - new, "added": new - old}
        parts = [f"{word} {', '.join(sorted(items))}" for word, items in lists.items() if items]
        return f"{name}: {'; '.join(parts)}"
    if name.endswith(("code", "data", "source")):
        return f"{name}: changed"
    before, now = ("unknown" if value is None else str(value) for value in (before, now))
    return f"{name}: was {before}, now {now}"


def _look_up(environment: dict[str, Any], key: str) -> Any:
    """Return the value of a dotted key; None where it is missing."""
    value: Any = environment
    for part in key.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value
