"""The five published systems: every row's parameters, the order of operations, the recipes."""

from __future__ import annotations

import json
from importlib import resources

import pytest
import torch
from torch import nn

from harness.records import RECORDS
from whit.experiments.comparison import compare_runs
from whit.models.published import (
    published_15938,
    published_16848,
    published_17098,
    published_19122,
    published_19130,
)
from whit.recipes.listing import recipe_rows
from whit.recipes.recipe import load_recipe
from whit.training.plan import make_plan

BUILDERS = {
    "published-17098": published_17098,
    "published-16848": published_16848,
    "published-19122": published_19122,
    "published-19130": published_19130,
    "published-15938": published_15938,
}

# As the write-ups and the code behind them give it: c outputs(parameters), b BatchNorm, r ReLU,
# m max-pool, a part average pool, d dropout, g global average pool, l linear.
ORDERS = {
    "published-17098": "c160 r b32 m d r c4640 r b64 m d c9248 r b64 d c2890 g",
    "published-16848": (
        "c144 r b32 d c2304 r b32 c2304 r b32 m c2304 r b32 d c2304 r b32 d c2304 r b32 d "
        "c4608 r b64 d c320 g"
    ),
    "published-19122": (
        "c160 r b32 d c4640 r b64 d m c264 c1168 r b32 d c4640 r b64 d m c528 c4640 r d c2890 g"
    ),
    "published-19130": (
        "c160 r b32 c2320 r b32 m d c2320 r b32 d c2320 r b32 d c9280 r b128 g d l2080 r b64 d l330"
    ),
    "published-15938": (
        "c160 b32 d r c4640 b64 d r c264 m d c1168 b32 d r c2320 b32 m d r c2320 b32 d r "
        "c2320 b32 m d r c2320 b32 a d r f l170"
    ),
}
DROPOUTS = {
    "published-17098": [0.15] * 3,
    "published-16848": [0.25, 0.25, 0.1, 0.1, 0.25],
    "published-19122": [0.1] * 5,
    "published-19130": [0.2, 0.2, 0.2, 0.1, 0.1],
    "published-15938": [0.05] * 7 + [0.10],
}
# Feature map sizes after the layers that change them.
MAPS = {
    "published-17098": [28, 14, 7, 5, 3],
    "published-16848": [28, 26, 24, 22, 11, 9, 7, 5],
    "published-19122": [28, 14, 7, 5, 3],
    "published-19130": [28, 26, 24, 12, 10, 8, 6],
    "published-15938": [28, 14, 7, 3, 1],
}
RECIPES = {  # lr, batch size, epochs, steps in an epoch
    "published-17098": (0.012, 32, 18, 1875),
    "published-16848": (0.01, 128, 20, 469),
    "published-19122": (0.01, 64, 20, 938),
    "published-19130": (0.01, 32, 19, 1875),
    "published-15938": (0.01, 128, 19, 469),
}
LETTERS = {
    "conv": "c",
    "norm": "b",
    "relu": "r",
    "pool": "m",
    "avgpool": "a",
    "drop": "d",
    "gap": "g",
    "linear": "l",
    "flatten": "f",
}


@pytest.mark.parametrize("name", BUILDERS)
def test_every_row_in_order(name: str) -> None:
    model = BUILDERS[name](1, 10)
    rows = []
    for layer_name, layer in model.named_children():
        count = sum(p.numel() for p in layer.parameters())
        rows.append(LETTERS[layer_name.rstrip("0123456789")] + (str(count) if count else ""))
    assert rows == ORDERS[name].split()
    dropouts = [m.p for m in model if isinstance(m, nn.modules.dropout._DropoutNd)]
    assert dropouts == DROPOUTS[name]
    whole_channels = any(isinstance(m, nn.Dropout2d) for m in model)
    assert whole_channels == (name in ("published-16848", "published-19122"))


@pytest.mark.parametrize("name", BUILDERS)
def test_total_and_maps(name: str) -> None:
    model = BUILDERS[name](1, 10).eval()
    total = int(name.removeprefix("published-"))
    assert sum(p.numel() for p in model.parameters()) == total
    sizes = [28]
    x = torch.zeros(2, 1, 28, 28)
    for layer in model:
        x = layer(x)
        if x.ndim == 4 and x.shape[-1] != sizes[-1]:
            sizes.append(x.shape[-1])
    assert x.shape == (2, 10)
    assert sizes == MAPS[name]


@pytest.mark.parametrize("name", BUILDERS)
def test_weights_start_from_torch_defaults(name: str) -> None:
    torch.manual_seed(5)
    model = BUILDERS[name](1, 10)
    torch.manual_seed(5)
    layers = [layer for layer in model if isinstance(layer, nn.Conv2d | nn.Linear)]
    assert len(layers) > 3
    for layer in layers:
        before = [p.clone() for p in layer.parameters()]
        layer.reset_parameters()
        assert all(torch.equal(a, b) for a, b in zip(before, layer.parameters(), strict=True))


@pytest.mark.parametrize("name", BUILDERS)
def test_recipe_as_published(name: str) -> None:
    recipe = load_recipe(name)
    lr, batch_size, epochs, steps = RECIPES[name]
    optim = recipe.optim
    assert (optim.name, optim.lr, optim.momentum, optim.nesterov) == ("sgd", lr, 0.9, False)
    assert (optim.weight_decay, optim.bn_bias_lr_scale) == (0.0, 1.0)
    assert (recipe.train.batch_size, recipe.train.epochs) == (batch_size, epochs)
    assert (recipe.train.precision, recipe.eval.each_epoch) == ("fp32", "test")
    assert recipe.train.label_smoothing == 0
    assert not recipe.augment.active()
    assert recipe.data.val_size == 0
    assert (recipe.data.mean, recipe.data.std) == ((0.1307,), (0.3081,))
    assert {recipe.lr_factor()(p / 10) for p in range(11)} == {1.0}
    assert make_plan(recipe).steps_per_epoch == steps


def test_plans_and_their_verdicts() -> None:
    for name in BUILDERS:
        planned = make_plan(load_recipe(name))
        assert planned.audit.params.total == int(name.removeprefix("published-"))
        assert planned.audit.params.unused == 0
        rules = [violation.rule for violation in planned.violations]
        twenty = name in ("published-16848", "published-19122")
        assert rules == (["epochs"] if twenty else [])
        assert planned.verdict == ("missed" if twenty else "pending")
        assert ("linear" in planned.audit.kinds) == (name in ("published-19130", "published-15938"))
        # The write-up of 15938 calls its last pooling global; it is not.
        assert ("gap" in planned.audit.kinds) == (name != "published-15938")


def test_receptive_fields_of_16848() -> None:
    """The write-up says 16, 18, 20, 22; after the pooling they are 8, 12, 16, 20, 24, then 32."""
    layers = {layer.name: layer for layer in make_plan(load_recipe("published-16848")).audit.layers}
    names = ["pool1", "conv4", "conv5", "conv6", "conv7", "gap1"]
    assert [layers[name].receptive_field for name in names] == [8, 12, 16, 20, 24, 32]


def test_recorded_sizes_are_the_planned_ones() -> None:
    """`whit recipes` shows them without torch; records/reproduce.py wrote them."""
    for row in recipe_rows():
        planned = make_plan(load_recipe(row["name"]))
        assert row["params"] == planned.audit.params.total
        assert row["epochs"] == float(planned.epochs)


def test_the_records_can_be_read_and_compared() -> None:
    folder = RECORDS / "published"
    compared = compare_runs([next(folder.glob(f"{name}-*")) for name in BUILDERS])
    assert {run.state for seeds in compared.groups for run in seeds.runs} == {"finished"}
    recorded = json.loads(
        (resources.files("whit.recipes") / "builtin" / "recorded.json").read_text()
    )
    for name, seeds in zip(BUILDERS, compared.groups, strict=True):
        assert [evaluation.correct for evaluation in seeds.last] == recorded[name]["correct"]
