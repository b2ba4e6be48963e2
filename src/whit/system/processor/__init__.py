"""The processor: the cores that programs share, turns on them, and Python's garbage collector."""

__all__ = ["collector", "cores", "load", "turns"]
