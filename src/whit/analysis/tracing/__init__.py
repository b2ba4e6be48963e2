"""One traced forward pass: what ran, what it read and wrote, and which stored numbers it used."""

__all__ = [
    "ablation",
    "call_stack",
    "dataflow",
    "failures",
    "hooks",
    "memory_layout",
    "patterns",
    "read_values",
    "recorder",
    "sandbox",
    "session",
    "stored_tensors",
    "trace",
]
