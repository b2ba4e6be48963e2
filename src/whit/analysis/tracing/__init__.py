"""One traced forward pass: what ran, what it read and wrote, and which stored numbers it used."""

__all__ = [
    "ablation",
    "call_stack",
    "dataflow",
    "hooks",
    "memory_layout",
    "recorder",
    "sandbox",
    "session",
    "stored_tensors",
    "trace",
]
