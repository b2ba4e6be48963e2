"""A trained network as ONNX, C or one HTML file, verified against the trained model."""

__all__ = ["exporter", "targets"]
