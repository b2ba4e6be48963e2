"""What whit asks of the machine under it: files, signals, random streams, text."""

__all__ = [
    "atomic_files",
    "console",
    "json_worker",
    "numbers",
    "optional_deps",
    "rng",
    "signals",
    "text_tables",
    "untrusted_files",
    "validation_errors",
]
