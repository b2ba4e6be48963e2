"""The five published systems, layer by layer in the order of their forward passes.

Source: the write-ups and their code. Weights are initialized by torch's defaults, as theirs were.
Global average pooling is written as a mean. The originals have 1 channel and 10 classes; here both
depend on the data.
"""

from __future__ import annotations

from torch import nn

from whit.models.layers import Dropout, GlobalAvgPool, named_sequential


def _conv(inputs: int, outputs: int, padding: int = 0, *, bias: bool = True) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=padding, bias=bias)


def _relu() -> nn.ReLU:
    return nn.ReLU(inplace=True)  # equal results with less memory


def published_17098(channels: int, classes: int) -> nn.Sequential:
    """Biases on, Dropout 0.15, no linear layer; the first block has a second ReLU at its end.

    That ReLU matters: BatchNorm's output can be negative.
    """
    return named_sequential(
        _conv(channels, 16, 1), _relu(), nn.BatchNorm2d(16), nn.MaxPool2d(2), Dropout(0.15),
        _relu(),
        _conv(16, 32, 1), _relu(), nn.BatchNorm2d(32), nn.MaxPool2d(2), Dropout(0.15),
        _conv(32, 32), _relu(), nn.BatchNorm2d(32), Dropout(0.15),
        _conv(32, classes), GlobalAvgPool(),
    )  # fmt: skip


def published_16848(channels: int, classes: int) -> nn.Sequential:
    """No bias anywhere, Dropout2d; what the write-up calls fully connected is a 1x1 convolution."""
    return named_sequential(
        _conv(channels, 16, bias=False), _relu(), nn.BatchNorm2d(16), nn.Dropout2d(0.25),
        _conv(16, 16, bias=False), _relu(), nn.BatchNorm2d(16),
        _conv(16, 16, bias=False), _relu(), nn.BatchNorm2d(16), nn.MaxPool2d(2),
        _conv(16, 16, bias=False), _relu(), nn.BatchNorm2d(16), nn.Dropout2d(0.25),
        _conv(16, 16, 1, bias=False), _relu(), nn.BatchNorm2d(16), nn.Dropout2d(0.1),
        _conv(16, 16, bias=False), _relu(), nn.BatchNorm2d(16), nn.Dropout2d(0.1),
        _conv(16, 32, bias=False), _relu(), nn.BatchNorm2d(32), nn.Dropout2d(0.25),
        nn.Conv2d(32, classes, 1, bias=False), GlobalAvgPool(),
    )  # fmt: skip


def published_19122(channels: int, classes: int) -> nn.Sequential:
    """Biases on, Dropout2d 0.1, no linear layer; the 1x1 convolutions have no activation.

    The original class also holds a BatchNorm(32) that it never calls; it is omitted here.
    """
    return named_sequential(
        _conv(channels, 16, 1), _relu(), nn.BatchNorm2d(16), nn.Dropout2d(0.1),
        _conv(16, 32, 1), _relu(), nn.BatchNorm2d(32), nn.Dropout2d(0.1),
        nn.MaxPool2d(2), nn.Conv2d(32, 8, 1),
        _conv(8, 16, 1), _relu(), nn.BatchNorm2d(16), nn.Dropout2d(0.1),
        _conv(16, 32, 1), _relu(), nn.BatchNorm2d(32), nn.Dropout2d(0.1),
        nn.MaxPool2d(2), nn.Conv2d(32, 16, 1),
        _conv(16, 32), _relu(), nn.Dropout2d(0.1),
        _conv(32, classes), GlobalAvgPool(),
    )  # fmt: skip


def published_19130(channels: int, classes: int) -> nn.Sequential:
    """Biases on, Dropout, two linear layers after global average pooling."""
    return named_sequential(
        _conv(channels, 16), _relu(), nn.BatchNorm2d(16),
        _conv(16, 16), _relu(), nn.BatchNorm2d(16), nn.MaxPool2d(2), Dropout(0.2),
        _conv(16, 16), _relu(), nn.BatchNorm2d(16), Dropout(0.2),
        _conv(16, 16), _relu(), nn.BatchNorm2d(16), Dropout(0.2),
        _conv(16, 64), _relu(), nn.BatchNorm2d(64), GlobalAvgPool(), Dropout(0.1),
        nn.Linear(64, 32), _relu(), nn.BatchNorm1d(32), Dropout(0.1),
        nn.Linear(32, classes),
    )  # fmt: skip


def published_15938(channels: int, classes: int) -> nn.Sequential:
    """Biases on, the order conv, BatchNorm, pooling, Dropout, ReLU.

    Its last pooling is not global: it averages the top-left 2x2 of a 3x3 map.
    """
    return named_sequential(
        _conv(channels, 16, 1), nn.BatchNorm2d(16), Dropout(0.05), _relu(),
        _conv(16, 32, 1), nn.BatchNorm2d(32), Dropout(0.05), _relu(),
        nn.Conv2d(32, 8, 1), nn.MaxPool2d(2), Dropout(0.05),
        _conv(8, 16, 1), nn.BatchNorm2d(16), Dropout(0.05), _relu(),
        _conv(16, 16, 1), nn.BatchNorm2d(16), nn.MaxPool2d(2), Dropout(0.05), _relu(),
        _conv(16, 16, 1), nn.BatchNorm2d(16), Dropout(0.05), _relu(),
        _conv(16, 16, 1), nn.BatchNorm2d(16), nn.MaxPool2d(2), Dropout(0.05), _relu(),
        _conv(16, 16, 1), nn.BatchNorm2d(16), nn.AvgPool2d(2), Dropout(0.10), _relu(),
        nn.Flatten(), nn.Linear(16, classes),
    )  # fmt: skip
