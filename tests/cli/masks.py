"""What no two runs share, replaced by one letter a kind."""

from __future__ import annotations

import re


def without_times(text: str) -> str:
    """Mask times and rates, and what other processors round differently: losses, accuracies."""
    text = re.sub(r"[\d.,]+ s\b", "T s", text)
    text = re.sub(r"[\d,]+ images/s", "R images/s", text)
    text = re.sub(r"loss:? \d+\.\d+", "loss L", text)
    text = re.sub(r"accuracy \d+\.\d+%", "accuracy A%", text)
    text = re.sub(r"\d+/100 \(\d+\.\d\d%\)", "C/100 (A%)", text)
    text = re.sub(
        r"Note: trained with uncommitted changes [^\n]*\n", "", text
    )  # as the checkout is
    return re.sub(r"\d+\.\d\d \(\d+/100\)", "A (C/100)", text)
