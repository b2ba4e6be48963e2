"""Operators on tensors of any rank, for ONNX alone: attention, recurrent layers, resampling."""

__all__ = ["convert"]
