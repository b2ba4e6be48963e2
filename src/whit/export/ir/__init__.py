"""A trained network as one fused graph of primitive operations."""

__all__ = ["build", "capture", "fusion", "graph", "interpreter", "support"]
