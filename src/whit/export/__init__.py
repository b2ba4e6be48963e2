"""A trained network as ONNX, C or one HTML file, proven equal to what was trained."""

__all__ = ["exporter", "targets"]
