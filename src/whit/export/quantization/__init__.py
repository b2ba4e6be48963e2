"""Post-training quantization: uint8 activations, int8 weights, int32 accumulators."""

__all__ = ["quantize", "reference"]
