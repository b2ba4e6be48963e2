"""Short texts of reports: values on one line, counts, percentages."""

from __future__ import annotations

from whit.reports.document import Severity

MAX_CHARS, MAX_SENTENCE_CHARS = 200, 1000  # of a text from a run's files
SEVERITIES: dict[str, Severity] = {"met": "good", "missed": "bad", "pending": "pending"}


def truncate(value: object, max_chars: int = MAX_CHARS) -> str:
    """Return a value in one line of at most `max_chars` characters."""
    text = " ".join(str(value).split())
    return text if len(text) <= max_chars else f"{text[: max_chars - 1]}…"


def one_line(text: object) -> str:
    """Return a message, which may quote untrusted text, in one line."""
    return truncate(text, MAX_SENTENCE_CHARS)


def format_percent(fraction: float) -> str:
    """Return a fraction from 0 to 1 in percent with one decimal, never rounded up."""
    tenths = int(1000 * fraction + 1e-9)
    if not tenths and fraction > 0:
        return "< 0.1 %"
    return f"{tenths // 10}.{tenths % 10} %"


def plural(count: int, noun: str) -> str:
    """Return the noun as it follows the count."""
    return noun if count == 1 else f"{noun}s"


def describe_trend(first: float, last: float) -> str:
    """Return the change from the first value to the last as a phrase."""
    if last < first or last > first:
        return f"{'falls' if last < first else 'rises'} from {first:.3g} to {last:.3g}"
    return f"stays at {last:.3g}"
