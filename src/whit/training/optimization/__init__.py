"""How weights change: objective, optimizer, weight averaging and quantization."""

__all__ = ["distillation", "objective", "optim", "qat"]
