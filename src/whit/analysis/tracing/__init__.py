"""One traced forward pass: what ran, what it read and wrote, and which stored numbers it used."""

__all__ = [
    "ablation",
    "call_stack",
    "dataflow",
    "hooks",
    "layout",
    "recorder",
    "sandbox",
    "session",
    "storage",
    "trace",
]
