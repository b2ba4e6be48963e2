"""The HTML target: one page that runs a network in the browser."""

__all__ = ["graph_json", "page"]
