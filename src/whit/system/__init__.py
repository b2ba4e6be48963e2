"""Operating system and text utilities: files, signals, child processes, random state, tables."""

__all__ = [
    "atomic_files",
    "console",
    "json_worker",
    "numbers",
    "optional_deps",
    "processor",
    "rng",
    "signals",
    "text_tables",
    "untrusted_files",
    "validation_errors",
]
