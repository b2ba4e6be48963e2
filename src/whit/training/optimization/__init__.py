"""What changes the weights: the objective, the optimizer with its average, and quantization."""

__all__ = ["distillation", "objective", "optim", "qat"]
