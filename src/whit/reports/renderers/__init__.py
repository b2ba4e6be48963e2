"""A document written as HTML or as Markdown."""

__all__ = ["html", "markdown"]
