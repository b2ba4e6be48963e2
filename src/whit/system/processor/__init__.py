"""The processor: the cores that programs share, turns on them, and the time to start and end."""

__all__ = ["collector", "cores", "load", "process_exit", "turns"]
