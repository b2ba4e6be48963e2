"""Read a user's file or notebook without executing it: its statements and their dependencies."""

__all__ = [
    "discovery",
    "ipython_syntax",
    "notebook",
    "python_file",
    "scopes",
    "slicing",
    "source",
    "statements",
]
