"""Unusual models give notes, never crash, and are left unchanged. Run: pytest tests/analysis"""

import random
import warnings

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from zoo import PUBLISHED, Written, gap

from whit.analysis import audit_model


def test_nothing_is_changed() -> None:
    model = PUBLISHED["published-19130"]()
    model[0].weight.requires_grad_(False)
    model[2].eval()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    torch.manual_seed(7)
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()
    audit_model(model, num_classes=10)
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1] == random.getstate()
    assert (before[2] == np.random.get_state()[1]).all()
    assert torch.is_grad_enabled()
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert not model[0].weight.requires_grad
    assert not any(module._forward_hooks for module in model.modules())


def test_a_model_that_cannot_be_copied_is_put_back() -> None:
    model = Written(lambda m, x: m.fc(gap(m.bn(m.conv(x)))), bn=nn.BatchNorm2d(4))
    model.product = model.fc.weight * 2  # not a leaf: deepcopy refuses
    found = audit_model(model, (1, 12, 12), 10)
    assert found.params.total == 98
    assert {"batchnorm", "gap"} <= found.kinds
    assert any("cannot be copied" in note for note in found.notes)
    assert model.bn.num_batches_tracked == 0
    assert torch.equal(model.bn.running_mean, torch.zeros(4))
    assert model.training


def test_failing_forward_keeps_what_was_learned() -> None:
    model = Written(lambda m, x: m.fc(m.conv(x).flatten(1)), held=nn.Buffer(torch.ones(7)))
    found = audit_model(model, (1, 12, 12), 10)
    assert found.params.total == 97  # which buffers are read is not known, so all are counted
    assert (found.macs, found.receptive_field, found.output_shape) == (None, None, None)
    rows = {layer.name: layer for layer in found.layers}
    assert rows["conv"].macs == 3600
    assert (rows["fc"].kind, rows["fc"].params, rows["fc"].macs) == ("module", 50, None)
    assert "cannot be multiplied" in found.output_problem
    assert any("forward pass fails" in note for note in found.notes)


def test_failing_in_training_mode_only() -> None:
    def forward(m: Written, x: Tensor) -> Tensor:
        if m.training:
            raise RuntimeError("no")
        return m.fc(gap(m.bn(m.conv(x))))

    found = audit_model(Written(forward, bn=nn.BatchNorm2d(4)), (1, 12, 12), 10)
    assert found.params.total == 98
    assert "batchnorm" not in found.kinds
    assert any("training mode" in note for note in found.notes)


def test_lazy_model_that_fails() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.LazyLinear(10))
    found = audit_model(model)  # expects three channels, gets one
    assert found.params.total == 112
    assert any("lazy" in note for note in found.notes)


OUTPUTS = {
    "tuple": (lambda m, x: (m.fc(gap(m.conv(x))), x), "the output is a tuple, not a tensor"),
    "map": (lambda m, x: m.conv(x), "(2, 4, 10, 10)"),
    "classes": (lambda m, x: gap(m.conv(x)), "(2, 4); it must be (2, 10)"),
    "nothing": (lambda m, x: None, "forward returns None, as without a `return`"),
    "one for the batch": (lambda m, x: m.fc(gap(m.conv(x))).mean(0), "(10,)"),
}


@pytest.mark.parametrize("case", OUTPUTS)
def test_output_problems(case: str) -> None:
    forward, expected = OUTPUTS[case]
    problem = audit_model(Written(forward), (1, 12, 12), 10).output_problem
    assert problem is not None
    assert expected in problem


def test_squeeze_loses_the_batch_of_one() -> None:
    found = audit_model(Written(lambda m, x: m.fc(gap(m.conv(x))).squeeze()), (1, 12, 12), 10)
    assert "for one image the output has shape (10,), not (1, 10)" in found.notes


UNUSUAL = {
    "data_ptr": lambda m, x: m.fc(gap(m.conv(x))) + 0 * m.conv.weight.data_ptr(),
    "no_grad": lambda m, x: m.fc(torch.no_grad()(gap)(m.conv(x))),
    "checkpoint": lambda m, x: m.fc(gap(checkpoint(m.conv, x, use_reentrant=False))),
    "in place": lambda m, x: m.fc(gap(m.conv(x).relu_().add_(1).mul_(2))),
    "control flow": lambda m, x: m.fc(gap(m.conv(x)) * (2 if x.mean() > 0 else 3)),
    "print": lambda m, x: m.fc(gap(m.conv(x))) + len(str(x)) * 0,
    "double inside": lambda m, x: m.fc(gap(m.conv(x).double()).float()),
    "deleted attribute": lambda m, x: (setattr(m, "calls", 1), m.fc(gap(m.conv(x))))[1],
    "written slices": lambda m, x: m.fc(gap(sliced(m.conv(x)))),
    "vmap": lambda m, x: m.fc(torch.vmap(lambda image: image.mean((1, 2)))(m.conv(x))),
}


def sliced(x: Tensor) -> Tensor:
    result = torch.zeros(x.shape[0], 8, 10, 10)
    result[:, :4] = x
    return result[:, :4]


@pytest.mark.parametrize("case", UNUSUAL)
def test_strange_forwards(case: str) -> None:
    found = audit_model(Written(UNUSUAL[case]), (1, 12, 12), 10)
    assert found.params.total == 90
    assert found.params.unused == 0
    assert found.output_problem is None
    assert found.macs == 3640
    if case != "vmap":
        assert "gap" in found.kinds, found


def test_script_module() -> None:
    parts = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        model = torch.jit.script(nn.Sequential(*parts, nn.Linear(4, 10)))
    found = audit_model(model, (1, 12, 12), 10)
    assert found.params.total == 98
    assert found.macs == 3640
    assert {"conv", "batchnorm", "gap", "linear"} <= found.kinds


def test_weight_norm_stays_one_row() -> None:
    model = Written(lambda m, x: m.fc(gap(m.conv(x))))
    nn.utils.parametrizations.weight_norm(model.conv)
    found = audit_model(model, (1, 12, 12), 10)
    assert found.params.total == 94
    assert [layer.name for layer in found.layers] == ["conv", "forward.mean", "fc"]


def test_meta_double_and_empty_models() -> None:
    with torch.device("meta"):
        meta = PUBLISHED["published-16848"]()
    assert audit_model(meta).params.total == 16_848
    assert audit_model(PUBLISHED["published-16848"]().double()).macs == 3_148_928
    empty = audit_model(nn.Identity())
    assert (empty.params.total, empty.macs, empty.receptive_field) == (0, 0, 1)


class Counting(nn.Module):
    """Makes tensors of its own in forward, which torch lists otherwise under some modes."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6)
        self.drop, self.fc = nn.Dropout(0.2), nn.Linear(6, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for make in (torch.arange, torch.ones, torch.zeros):
            x = x * (1 + make(x.shape[3], dtype=x.dtype))
        return self.fc(self.drop(self.norm(self.conv(x)).mean((2, 3))))


def test_tensors_made_in_forward() -> None:
    found = audit_model(Counting(), (1, 12, 12), 10)
    assert found.notes == ()
    assert {"batchnorm", "dropout", "gap", "linear"} <= found.kinds


def test_three_channels_and_other_sizes() -> None:
    found = audit_model(nn.Conv2d(3, 8, 5, stride=2), (3, 33, 47))
    assert found.output_shape == (8, 15, 22)
    assert found.macs == 3 * 8 * 25 * 15 * 22


def test_few_passes() -> None:
    """What an audit costs, in passes over few images: seconds depend on what else runs."""
    images: list[int] = []

    class Counted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = PUBLISHED["published-16848"]()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            images.append(len(x))
            return self.network(x)

    audit_model(Counted())
    assert len(images) <= 60
    assert sum(images) <= 600
