"""The C target: C99 source with planned static memory, and how to compile it."""

__all__ = ["compile", "float_lowering", "source"]
