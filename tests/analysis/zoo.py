"""Models for the audit: the five published systems and many unusual ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ReLU, BN, Drop, Drop2d, MP = nn.ReLU, nn.BatchNorm2d, nn.Dropout, nn.Dropout2d, nn.MaxPool2d


def conv(i: int, o: int, p: int = 0, k: int = 3, bias: bool = True) -> nn.Conv2d:
    return nn.Conv2d(i, o, k, padding=p, bias=bias)


def published_17098() -> nn.Module:
    return nn.Sequential(
        *(conv(1, 16, 1), ReLU(), BN(16), MP(2), Drop(0.15), ReLU()),
        *(conv(16, 32, 1), ReLU(), BN(32), MP(2), Drop(0.15)),
        *(conv(32, 32), ReLU(), BN(32), Drop(0.15)),
        *(conv(32, 10), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LogSoftmax(1)),
    )


def published_16848() -> nn.Module:
    def block(i: int, o: int, p: int, *rest: nn.Module) -> list[nn.Module]:
        return [conv(i, o, p, bias=False), ReLU(), BN(o), *rest]

    return nn.Sequential(
        *block(1, 16, 0, Drop2d(0.25)),
        *block(16, 16, 0),
        *block(16, 16, 0, MP(2)),
        *block(16, 16, 0, Drop2d(0.25)),
        *block(16, 16, 1, Drop2d(0.1)),
        *block(16, 16, 0, Drop2d(0.1)),
        *block(16, 32, 0, Drop2d(0.25)),
        *(conv(32, 10, k=1, bias=False), nn.AvgPool2d(5), nn.Flatten(), nn.LogSoftmax(1)),
    )


class Original19122(nn.Module):
    """As published, with the BatchNorm that its forward pass never calls."""

    def __init__(self) -> None:
        super().__init__()
        self.body = published_19122()
        self.bn_unused = BN(32)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


def published_19122() -> nn.Module:
    def block(i: int, o: int) -> list[nn.Module]:
        return [conv(i, o, 1), ReLU(), BN(o), Drop2d(0.1)]

    return nn.Sequential(
        *(*block(1, 16), *block(16, 32), MP(2), conv(32, 8, k=1)),
        *(*block(8, 16), *block(16, 32), MP(2), conv(32, 16, k=1)),
        *(conv(16, 32), ReLU(), Drop2d(0.1), conv(32, 10)),
        *(nn.AvgPool2d(3), nn.Flatten(), nn.LogSoftmax(1)),
    )


def published_19130() -> nn.Module:
    return nn.Sequential(
        *(conv(1, 16), ReLU(), BN(16)),
        *(conv(16, 16), ReLU(), BN(16), MP(2), Drop(0.2)),
        *(conv(16, 16), ReLU(), BN(16), Drop(0.2)),
        *(conv(16, 16), ReLU(), BN(16), Drop(0.2)),
        *(conv(16, 64), ReLU(), BN(64), nn.AdaptiveAvgPool2d(1), nn.Flatten(), Drop(0.1)),
        *(nn.Linear(64, 32), ReLU(), nn.BatchNorm1d(32), Drop(0.1)),
        *(nn.Linear(32, 10), nn.LogSoftmax(1)),
    )


def published_15938() -> nn.Module:
    def block(i: int, o: int, *pool: nn.Module, p: float = 0.05) -> list[nn.Module]:
        return [conv(i, o, 1), BN(o), *pool, Drop(p), ReLU()]

    return nn.Sequential(
        *block(1, 16),
        *block(16, 32),
        *(conv(32, 8, k=1), MP(2), Drop(0.05)),
        *block(8, 16),
        *block(16, 16, MP(2)),
        *block(16, 16),
        *block(16, 16, MP(2)),
        *block(16, 16, nn.AvgPool2d(2, 2), p=0.1),
        *(nn.Flatten(), nn.Linear(16, 10), nn.LogSoftmax(1)),
    )


PUBLISHED: dict[str, Callable[[], nn.Module]] = {
    "published-17098": published_17098,
    "published-16848": published_16848,
    "published-19122": published_19122,
    "published-19130": published_19130,
    "published-15938": published_15938,
}

# The parameters of the tables in PUBLISHED.md, layer by layer, zeros left out.
PUBLISHED_ROWS: dict[str, list[int]] = {
    "published-17098": [160, 32, 4640, 64, 9248, 64, 2890],
    "published-16848": [144, 32, *[2304, 32] * 5, 4608, 64, 320],
    "published-19122": [160, 32, 4640, 64, 264, 1168, 32, 4640, 64, 528, 4640, 2890],
    "published-19130": [160, 32, *[2320, 32] * 3, 9280, 128, 2080, 64, 330],
    "published-15938": [160, 32, 4640, 64, 264, 1168, 32, *[2320, 32] * 4, 170],
}


class Written(nn.Module):
    """A model written as a function `forward(self, x)`, with whatever parts are given.

    Always holds `conv`, 1 > 4 channels (40 parameters), and `fc`, 4 > 10 (50 parameters).
    """

    def __init__(self, forward: Callable[[Any, Tensor], Any], **parts: Any):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.fc = nn.Linear(4, 10)
        for name, part in parts.items():
            setattr(self, name, part)
        self._written = (forward,)  # in a tuple, so that no deep copy touches it

    def forward(self, x: Tensor) -> Any:
        return self._written[0](self, x)


def gap(x: Tensor) -> Tensor:
    return x.mean((2, 3))


# Ways to write global average pooling of a (N, 4, 10, 10) map to (N, 4).
GLOBAL: dict[str, Callable[[Tensor], Tensor]] = {
    "mean": lambda x: x.mean((2, 3)),
    "mean, negative dims": lambda x: x.mean((-1, -2)),
    "keepdim": lambda x: torch.mean(x, (2, 3), keepdim=True)[:, :, 0, 0],
    "two means": lambda x: x.mean(-1).mean(-1),
    "flatten": lambda x: x.flatten(2).mean(-1),
    "view": lambda x: x.view(x.shape[0], x.shape[1], -1).mean(-1),
    "adaptive": lambda x: F.adaptive_avg_pool2d(x, 1).flatten(1),
    "adaptive module": lambda x: nn.AdaptiveAvgPool2d((1, 1))(x).flatten(1),
    "avg_pool2d": lambda x: F.avg_pool2d(x, 10).flatten(1),
    "avg_pool2d, stride 1": lambda x: F.avg_pool2d(x, 10, stride=1).flatten(1),
    "rows then columns": lambda x: F.avg_pool2d(F.avg_pool2d(x, (1, 10)), (10, 1)).flatten(1),
    "sum divided": lambda x: x.sum((2, 3)) / 100,
    "sum multiplied": lambda x: x.sum((2, 3)) * 0.01,
    "two sums": lambda x: x.sum(-1).sum(-1) / (x.shape[2] * x.shape[3]),
    "divided first": lambda x: (x / 100).sum((2, 3)),
    "permuted": lambda x: x.permute(0, 2, 3, 1).mean((1, 2)),
    "permuted, flat": lambda x: x.permute(0, 2, 3, 1).reshape(x.shape[0], -1, 4).mean(1),
    "channels last": lambda x: x.contiguous(memory_format=torch.channels_last).mean((2, 3)),
    "einsum": lambda x: torch.einsum("bchw->bc", x) / 100,
    "product with ones": lambda x: (x.flatten(2) @ torch.full((100, 1), 0.01)).squeeze(-1),
    "channel by channel": lambda x: torch.stack([x[:, c].mean((1, 2)) for c in range(4)], 1),
    "after relu": lambda x: F.relu(x).mean((2, 3)),
    "of a pooled map": lambda x: F.max_pool2d(x, 2).mean((2, 3)),
}

# What only looks like it.
NOT_GLOBAL: dict[str, Callable[[Tensor], Tensor]] = {
    "part of the map": lambda x: F.avg_pool2d(x, 9).flatten(1),
    "slice": lambda x: x[:, :, 1:, 1:].mean((2, 3)),
    "slice, relu": lambda x: F.relu(x[:, :, 1:]).mean((2, 3)),
    "every second": lambda x: x[:, :, ::2, ::2].mean((2, 3)),
    "cropped": lambda x: F.pad(x, (-1, -1, -1, -1)).mean((2, 3)),
    "one row": lambda x: x[:, :, 0].mean(-1),
    "part of the flat map": lambda x: x.flatten(2)[:, :, :99].mean(-1),
    "max": lambda x: x.amax((2, 3)),
    "adaptive max": lambda x: F.adaptive_max_pool2d(x, 1).flatten(1),
    "log-sum-exp": lambda x: x.logsumexp((2, 3)),
    "rows only": lambda x: x.mean(2).amax(-1),
    "plain sum": lambda x: x.sum((2, 3)),
    "channels": lambda x: x.mean(1).flatten(1)[:, :4],
    "1x1 map": lambda x: F.adaptive_avg_pool2d(F.max_pool2d(x, 10), 1).flatten(1),
    "one pixel": lambda x: x[:, :, 5, 5],
}
