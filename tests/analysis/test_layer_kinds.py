"""Kinds are what a forward pass does. Run: pytest tests/analysis/test_layer_kinds.py"""

import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from zoo import GLOBAL, NOT_GLOBAL, Written, gap

from whit.analysis import KINDS, LAYER_KINDS, Audit, audit_model
from whit.analysis.rules.registry import OPERATORS, PREFIXES


def audit(forward, **parts) -> Audit:
    return audit_model(Written(forward, **parts), (1, 12, 12), 10)


def test_the_vocabulary_needs_no_torch() -> None:
    code = "import sys, whit.analysis.kinds, whit.recipes.budget; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_operators_and_budgets_use_the_same_vocabulary() -> None:
    kinds = {operator.kind for operator in (*OPERATORS.values(), *PREFIXES.values())}
    assert kinds - {None} <= KINDS.keys()
    assert LAYER_KINDS.items() <= KINDS.items()


@pytest.mark.parametrize("way", GLOBAL)
def test_every_way_of_global_average_pooling(way: str) -> None:
    found = audit(lambda m, x: m.fc(GLOBAL[way](m.conv(x))))
    assert "gap" in found.kinds
    assert found.params.total == 90
    assert found.kinds <= KINDS.keys()


@pytest.mark.parametrize("way", NOT_GLOBAL)
def test_what_only_looks_like_it(way: str) -> None:
    assert "gap" not in audit(lambda m, x: m.fc(NOT_GLOBAL[way](m.conv(x)))).kinds


def test_partial_average_pooling_is_called_so() -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 10), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(4, 10))
    found = audit_model(model, (1, 12, 12))  # a 3x3 map, of which 2x2 is averaged
    assert "avgpool" in found.kinds
    assert "gap" not in found.kinds
    assert found.receptive_field == 11


LINEAR = {
    "nn.Linear": lambda m, x: m.fc(gap(m.conv(x))),
    "product": lambda m, x: gap(m.conv(x)) @ m.fc.weight.T,
    "einsum": lambda m, x: torch.einsum("nc,kc->nk", gap(m.conv(x)), m.fc.weight),
    "flattening convolution": lambda m, x: m.wide(m.conv(x)).flatten(1),
    "padded flattening convolution": lambda m, x: m.padded(m.conv(x)).mean((2, 3)),
    "1x1 convolution of a flattened map": lambda m, x: m.point(
        m.conv(x).reshape(x.shape[0], 400, 1, 1)
    ).flatten(1),
    "product over positions": lambda m, x: m.conv(x).flatten(1) @ m.flat,
    "weighted sum": lambda m, x: (m.conv(x)[:, None] * m.each).sum((2, 3, 4)),
    "linear at each pixel": lambda m, x: gap(
        m.fc(m.conv(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    ),
    "unfolded": lambda m, x: (m.flat.T @ F.unfold(m.conv(x), 10)).flatten(1),
    "conv1d over features": lambda m, x: m.line(gap(m.conv(x))[:, None]).flatten(1),
}
NOT_LINEAR = {
    "1x1 convolution": lambda m, x: gap(m.one(m.conv(x))),
    "1x1 convolution of a 1x1 map": lambda m, x: m.one(F.adaptive_avg_pool2d(m.conv(x), 1)).flatten(
        1
    ),
    "product at each pixel": lambda m, x: gap(
        (m.conv(x).permute(0, 2, 3, 1) @ m.fc.weight.T).permute(0, 3, 1, 2)
    ),
    "einsum at each pixel": lambda m, x: gap(torch.einsum("nchw,kc->nkhw", m.conv(x), m.fc.weight)),
    "kernel smaller than the map": lambda m, x: gap(m.nine(m.conv(x))),
    "dilated kernel": lambda m, x: gap(m.dilated(m.conv(x))),
    "result thrown away": lambda m, x: (m.fc(gap(m.conv(x))), gap(m.one(m.conv(x))))[1],
    "not called": lambda m, x: gap(m.one(m.conv(x))),
}


def parts() -> dict[str, nn.Module | nn.Parameter]:
    return {
        "wide": nn.Conv2d(4, 10, 10),
        "padded": nn.Conv2d(4, 10, 11, padding=1),
        "point": nn.Conv2d(400, 10, 1),
        "flat": nn.Parameter(torch.randn(400, 10)),
        "each": nn.Parameter(torch.randn(10, 4, 10, 10)),
        "line": nn.Conv1d(1, 10, 4),
        "one": nn.Conv2d(4, 10, 1),
        "nine": nn.Conv2d(4, 10, 9),
        "dilated": nn.Conv2d(4, 10, 4, dilation=3),
    }


@pytest.mark.parametrize("way", LINEAR)
def test_fully_connected(way: str) -> None:
    assert "linear" in audit(LINEAR[way], **parts()).kinds


@pytest.mark.parametrize("way", NOT_LINEAR)
def test_not_fully_connected(way: str) -> None:
    found = audit(NOT_LINEAR[way], **parts())
    assert "linear" not in found.kinds
    assert "conv" in found.kinds


class SilentDropout(nn.Dropout):
    def forward(self, x: Tensor) -> Tensor:
        return x


class FixedNorm(nn.BatchNorm2d):
    def train(self, mode: bool = True) -> "FixedNorm":
        return super().train(False)


def dead_branches(m: Written, x: Tensor) -> Tensor:
    x = m.conv(x)
    dropped, normed = F.dropout(x, 0.2, m.training), m.bn(x)
    return m.fc(gap(x + (dropped - dropped) + (normed - normed)))


# way: (kind, whether it takes effect, forward)
TRAINED = {
    "module": ("dropout", True, lambda m, x: m.fc(gap(m.drop(m.conv(x))))),
    "module 2d": ("dropout", True, lambda m, x: m.fc(gap(m.drop2d(m.conv(x))))),
    "functional": ("dropout", True, lambda m, x: m.fc(F.dropout(gap(m.conv(x)), 0.1, m.training))),
    "by hand": (
        "dropout",
        True,
        lambda m, x: m.fc(
            gap(m.conv(x) * (torch.rand(4, 1, 1) > 0.2) if m.training else m.conv(x))
        ),
    ),
    "alpha": ("dropout", True, lambda m, x: m.fc(gap(m.alpha(m.conv(x))))),
    "p = 0": ("dropout", False, lambda m, x: m.fc(gap(m.zero(m.conv(x))))),
    "never called": ("dropout", False, lambda m, x: m.fc(gap(m.conv(x)))),
    "thrown away": ("dropout", False, lambda m, x: (m.drop(x), m.fc(gap(m.conv(x))))[1]),
    "times zero": ("dropout", False, lambda m, x: m.fc(gap(m.conv(x) + 0 * m.drop(m.conv(x))))),
    "difference with itself": ("dropout", False, dead_branches),
    "always off": ("dropout", False, lambda m, x: m.fc(F.dropout(gap(m.conv(x)), 0.5, False))),
    "only by name": ("dropout", False, lambda m, x: m.fc(gap(m.silent(m.conv(x))))),
    "noise": (
        "dropout",
        False,
        lambda m, x: m.fc(gap(m.conv(x)) + (torch.randn(4) if m.training else 0)),
    ),
    "batch norm": ("batchnorm", True, lambda m, x: m.fc(gap(m.bn(m.conv(x))))),
    "batch norm, functional": (
        "batchnorm",
        True,
        lambda m, x: m.fc(
            gap(
                F.batch_norm(m.conv(x), m.bn.running_mean, m.bn.running_var, None, None, m.training)
            )
        ),
    ),
    "gate that starts at zero": (
        "batchnorm",
        True,
        lambda m, x: m.fc(gap(m.conv(x) + m.gate * m.bn(m.conv(x)))),
    ),
    "batch norm never called": ("batchnorm", False, lambda m, x: m.fc(gap(m.conv(x)))),
    "batch norm thrown away": (
        "batchnorm",
        False,
        lambda m, x: (m.bn(m.conv(x)), m.fc(gap(m.conv(x))))[1],
    ),
    "batch norm with itself": ("batchnorm", False, dead_branches),
    "fixed statistics": ("batchnorm", False, lambda m, x: m.fc(gap(m.fixed(m.conv(x))))),
    "instance norm": ("batchnorm", False, lambda m, x: m.fc(gap(F.relu(m.instance(m.conv(x)))))),
}


@pytest.mark.parametrize("way", TRAINED)
def test_what_happens_in_training(way: str) -> None:
    kind, present, forward = TRAINED[way]
    found = audit(
        forward,
        drop=nn.Dropout(0.1),
        drop2d=nn.Dropout2d(0.2),
        alpha=nn.AlphaDropout(0.2),
        zero=nn.Dropout(0.0),
        silent=SilentDropout(0.5),
        bn=nn.BatchNorm2d(4),
        fixed=FixedNorm(4),
        instance=nn.InstanceNorm2d(4),
        gate=nn.Parameter(torch.zeros(1)),
    )
    assert (kind in found.kinds) == present
    assert found.output_problem is None


def test_rows_stand_in_the_order_of_forward() -> None:
    def forward(m: Written, x: Tensor) -> Tensor:
        x = F.dropout(F.relu(m.bn(m.conv(x))), 0.1, m.training)
        return m.fc(gap(x) + F.relu(gap(x)))

    found = audit(forward, bn=nn.BatchNorm2d(4))
    assert [(layer.name, layer.kind) for layer in found.layers] == [
        ("conv", "conv"),
        ("bn", "batchnorm"),
        ("forward.relu", "relu"),
        ("forward.dropout", "dropout"),
        ("forward.mean", "gap"),
        ("forward.mean (2)", "gap"),
        ("forward.relu (2)", "relu"),
        ("forward.add", "add"),
        ("fc", "linear"),
    ]


@pytest.mark.filterwarnings("ignore")  # torch warns that its quantization will move
def test_a_quantized_linear_layer_is_one() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 10))
    quantized = torch.ao.quantization.quantize_dynamic(network, {nn.Linear}, torch.qint8)
    found = audit_model(quantized, (1, 4, 4), 10)
    assert "linear" in found.kinds
    assert found.kinds_known
    assert found.macs is None
    assert found.params.total == 170
    assert "one quantization scale for the batch" in (found.batch_dependence or "")
