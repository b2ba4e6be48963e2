"""The drawings and small images of a report."""

__all__ = ["network", "plots", "thumbnails"]
