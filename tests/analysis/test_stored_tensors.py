"""Every stored number is counted once, wherever it hides. Run: pytest tests/analysis"""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from zoo import Written, gap

from whit.analysis import Audit, audit_model

WEIGHT = torch.randn(4, 10)  # 40 numbers outside any model
LISTED = WEIGHT.tolist()
ARRAY = WEIGHT.numpy()


def audit(forward, **parts) -> Audit:
    return audit_model(Written(forward, **parts), (1, 12, 12), 10)


class FixedNorm(nn.BatchNorm2d):
    def train(self, mode: bool = True) -> "FixedNorm":
        return super().train(False)


# Each hides 40 weights, beside `conv` (40, used) and `fc` (50, unused).
HIDING = {
    "frozen": (lambda m, x: gap(m.conv(x)) @ m.frozen),
    "buffer": (lambda m, x: gap(m.conv(x)) @ m.buffer),
    "buffer that is not saved": (lambda m, x: gap(m.conv(x)) @ m.passing),
    "view of a buffer": (lambda m, x: gap(m.conv(x)) @ m.buffer.T.contiguous().T),
    "buffer called running_mean": (lambda m, x: gap(m.conv(x)) @ m.running_mean.view(4, 10)),
    "plain attribute": (lambda m, x: gap(m.conv(x)) @ m.plain),
    "list of tensors": (lambda m, x: gap(m.conv(x)) @ torch.stack(m.listed)),
    "module in a list": (lambda m, x: m.hidden[0](gap(m.conv(x)))),
    "closure": (lambda m, x: gap(m.conv(x)) @ WEIGHT),
    "literal": (lambda m, x: gap(m.conv(x)) @ torch.tensor(LISTED)),
    "numpy": (lambda m, x: gap(m.conv(x)) @ torch.from_numpy(ARRAY)),
    "copied numpy": (lambda m, x: gap(m.conv(x)) @ torch.as_tensor(ARRAY.copy())),
    "computed from a buffer": (lambda m, x: gap(m.conv(x)) @ (m.buffer * 2).relu()),
    "statistics of a batch norm": (
        lambda m, x: gap(m.conv(x)) @ torch.stack([m.bn.running_mean, m.bn.running_var]).view(4, 10)
    ),
}


@pytest.mark.parametrize("case", HIDING)
def test_hiding_weights_gains_nothing(case: str) -> None:
    found = audit(
        HIDING[case],
        frozen=nn.Parameter(WEIGHT.clone(), requires_grad=False),
        buffer=nn.Buffer(WEIGHT.clone()) if "buffer" in case else None,
        passing=nn.Buffer(WEIGHT.clone(), persistent=False) if "saved" in case else None,
        running_mean=nn.Buffer(WEIGHT.flatten().clone()) if "running" in case else None,
        plain=WEIGHT.clone(),
        listed=list(WEIGHT.clone()),
        hidden=[nn.Linear(4, 10, bias=False)],
        bn=nn.BatchNorm2d(20, affine=False),
    )
    total = 40 + 50 + 40  # the frozen parameter is registered in every case
    assert found.params.frozen == 40
    assert found.params.total == total + (0 if case == "frozen" else 40)
    assert found.params.buffers == (0 if case == "frozen" else 40)
    assert sum(layer.params for layer in found.layers) == found.params.total
    assert found.output_problem is None


# No stored weights: 40 + 50 parameters and nothing else.
FREE = {
    "buffer never read": (lambda m, x: m.fc(gap(m.conv(x)))),
    "buffer read in vain": (lambda m, x: (gap(m.conv(x)) @ m.buffer, m.fc(gap(m.conv(x))))[1]),
    "shape of a buffer": (lambda m, x: m.fc(gap(m.conv(x)) * m.buffer.shape[0])),
    "batch norm's statistics": (lambda m, x: m.fc(gap(m.bn(m.conv(x))))),
    "own running statistics": (
        lambda m, x: m.fc(gap(F.batch_norm(m.conv(x), m.mean, m.var, None, None, m.training)))
    ),
    "arange": (lambda m, x: m.fc(gap(m.conv(x)) * torch.arange(4.0))),
    "ones, zeros, full, linspace, eye": (
        lambda m, x: m.fc(
            gap(m.conv(x)) * torch.ones(4) + torch.zeros(4) + torch.linspace(0, 1, 4)
            - torch.full((4,), 0.5) @ torch.eye(4)
        )
    ),
    "one number in the code": (lambda m, x: m.fc(gap(m.conv(x)) * torch.tensor(0.5) * 3)),
}  # fmt: skip


@pytest.mark.parametrize("what", FREE)
def test_what_is_not_stored_is_not_counted(what: str) -> None:
    found = audit(
        FREE[what],
        buffer=nn.Buffer(WEIGHT.clone()),
        bn=nn.BatchNorm2d(4, affine=False),
        mean=nn.Buffer(torch.zeros(4)),
        var=nn.Buffer(torch.ones(4)),
    )
    assert found.params.total == 90
    assert found.params.buffers == found.params.unused == 0


def test_statistics_that_training_never_moves_are_weights() -> None:
    found = audit(lambda m, x: m.fc(gap(m.bn(m.conv(x)))), bn=FixedNorm(4, affine=False))
    assert found.params.buffers == 8
    assert "scale" in found.kinds
    still = audit(
        lambda m, x: m.fc(gap(m.bn(m.conv(x)))), bn=nn.BatchNorm2d(4, affine=False, momentum=0.0)
    )
    assert still.params.buffers == 8


def test_statistics_read_by_another_operation_are_weights() -> None:
    found = audit(
        lambda m, x: m.fc(gap(m.bn(m.conv(x))) + m.bn.running_mean),
        bn=nn.BatchNorm2d(4, affine=False),
    )
    assert found.params.buffers == 4


def test_tied_weights_and_overlapping_views_count_once() -> None:
    tied = nn.Sequential(nn.Flatten(), nn.Linear(9, 9), nn.Linear(9, 9))
    tied[2].weight = tied[1].weight
    found = audit_model(tied, (1, 3, 3))
    assert found.params.total == 81 + 9 + 9
    assert [layer.params for layer in found.layers] == [0, 90, 9]

    memory = torch.randn(100)
    views = Written(lambda m, x: gap(m.conv(x)) @ m.one.view(4, 10) + m.two[:10])
    views.one, views.two = nn.Parameter(memory[:40]), nn.Parameter(memory[20:80])
    found = audit_model(views, (1, 12, 12), 10)
    assert found.params.total == 90 + 80
    assert sum(layer.params for layer in found.layers) == 170


def test_expanded_parameter_is_one_number() -> None:
    model = Written(lambda m, x: m.fc(gap(m.conv(x)) + m.one))
    model.one = nn.Parameter(torch.ones(1).expand(4))
    assert audit_model(model, (1, 12, 12)).params.total == 91


def test_complex_weights_are_two_numbers_each() -> None:
    found = audit(
        lambda m, x: m.fc((gap(m.conv(x)).to(torch.cfloat) * m.turn).real),
        turn=nn.Parameter(torch.randn(4, dtype=torch.cfloat)),
    )
    assert found.params.total == 98


def test_second_call_has_no_parameters_of_its_own() -> None:
    found = audit(lambda m, x: m.fc(gap(m.same(m.same(m.conv(x))))), same=nn.Conv2d(4, 4, 1))
    rows = {layer.name: (layer.params, layer.macs) for layer in found.layers}
    assert rows["same"] == (20, 1600)
    assert rows["same (2)"] == (0, 1600)


def test_unused_parameters_are_named_and_stay_in_the_total() -> None:
    found = audit(
        lambda m, x: (m.extra(m.conv(x)), m.fc(gap(m.conv(x))))[1],
        extra=nn.Conv2d(4, 4, 3),
        never=nn.Linear(7, 7),
        alone=nn.Parameter(torch.zeros(3)),
    )
    assert found.params.total == 90 + 148 + 56 + 3
    assert found.params.unused == 148 + 56 + 3
    rows = {layer.name: (layer.kind, layer.params) for layer in found.layers}
    assert rows["extra"] == ("unused", 148)
    assert rows["never"] == ("unused", 56)
    assert rows["alone"] == ("unused", 3)
    assert any("extra.weight" in note and "never.bias" in note for note in found.notes)


def test_lazy_layers_get_their_shape_on_the_copy_only() -> None:
    model = nn.Sequential(nn.LazyConv2d(4, 3), nn.Flatten(), nn.LazyLinear(10))
    found = audit_model(model, (1, 12, 12), 10)
    assert found.params.total == 40 + 4010
    assert nn.parameter.is_lazy(model[0].weight)


def test_values_that_pass_through_numpy_are_no_constants() -> None:
    found = audit(lambda m, x: m.fc(torch.from_numpy(gap(m.conv(x)).numpy() * 2.0)))
    assert found.params.total == 90
    assert found.params.unused == 0
    assert found.receptive_field is None
    assert any("leave torch" in note for note in found.notes)


def test_random_weights_drawn_in_inference_are_noted() -> None:
    seeded = lambda: torch.randn(4, 4, generator=torch.Generator().manual_seed(1))  # noqa: E731
    found = audit(lambda m, x: m.fc(gap(m.conv(x)) @ seeded()))
    assert "random numbers are drawn in inference" in found.notes


def test_weights_of_the_original_reached_by_a_closure() -> None:
    model = Written(lambda m, x: m.fc(gap(model.conv(x))))  # not the copy's conv
    found = audit_model(model, (1, 12, 12), 10)
    assert (found.params.total, found.params.buffers, found.params.unused) == (90, 0, 0)
    assert found.layers[0].name == "conv"


def test_parameters_times_zero_never_reach_the_output() -> None:
    found = audit(
        lambda m, x: m.fc(gap(m.conv(x))) + 0 * m.extra(gap(m.conv(x))), extra=nn.Linear(4, 10)
    )
    assert found.params.total == 140
    assert found.params.unused == 50
