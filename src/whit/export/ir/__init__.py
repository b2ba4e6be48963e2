"""A trained network as one fused graph of plain operations."""

__all__ = ["build", "capture", "fusion", "graph", "interpreter"]
