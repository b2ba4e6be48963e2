"""What each aten operation does to kinds, receptive fields and multiply-adds."""

__all__ = [
    "call",
    "products",
    "randomness",
    "rearranging",
    "recurrent",
    "reductions",
    "registry",
    "windows",
]
