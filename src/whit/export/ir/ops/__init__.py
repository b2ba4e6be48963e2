"""One entry for each operator of a graph: all that every export target needs to know of it."""

__all__ = ["registry"]
