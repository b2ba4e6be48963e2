"""The run folder: its files, written atomically and read back as untrusted input."""

__all__ = ["layout"]
