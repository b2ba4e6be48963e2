"""Short texts of the reports: values in one line, counts, percentages."""

from __future__ import annotations

from whit.reports.document import Mood

LONGEST, LONGEST_SENTENCE = 200, 1000  # characters of a text that somebody else wrote
MOOD: dict[str, Mood] = {"met": "good", "missed": "bad", "open": "open"}


def shown(value: object, longest: int = LONGEST) -> str:
    """Return a value of a file in one line of at most so many characters."""
    text = " ".join(str(value).split())
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def sentence(text: object) -> str:
    """Return a message that may quote what somebody else wrote, in one line."""
    return shown(text, LONGEST_SENTENCE)


def share(value: float) -> str:
    """Return a share from 0 to 1 in percent with one decimal, never rounded up."""
    tenths = int(1000 * value + 1e-9)
    if not tenths and value > 0:
        return "< 0.1 %"
    return f"{tenths // 10}.{tenths % 10} %"


def trend(first: float, last: float) -> str:
    said = "falls" if last < first else "rises" if last > first else "stays"
    if said == "stays":
        return f"stays at {last:.3g}"
    return f"{said} from {first:.3g} to {last:.3g}"


def epochs_said(count: int) -> str:
    return f"{count} epoch{'' if count == 1 else 's'}"
