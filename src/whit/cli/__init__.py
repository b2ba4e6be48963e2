"""The command line: one function a command."""

__all__ = ["app", "export", "inspect", "options", "report", "search", "serve", "study", "train"]
