"""A loss or gradient that is not finite stops the run at that step, and nothing is claimed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load

import whit
from harness.processes import whit as command_line
from whit.errors import InputError

# Its loss or gradient is not a number at the 90th step, which lies in the second of 75 steps.
NET = """
import torch
from torch import nn

class Breaks(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()
    @staticmethod
    def backward(ctx, gradient):
        return gradient * float("nan")

class Net(nn.Module):
    def __init__(self, breaks="loss"):
        super().__init__()
        self.breaks = breaks
        self.conv = nn.Conv2d(1, 10, 5, 4)
        self.norm = nn.BatchNorm2d(10)

    def forward(self, x):
        if self.training and self.norm.num_batches_tracked == 89:
            if self.breaks == "loss":
                x = x + float("inf")
            else:
                x = Breaks.apply(self.conv(x))
                return self.norm(x).mean((2, 3))
        return self.norm(self.conv(x)).mean((2, 3))
"""


@pytest.fixture
def breaking(workplace: Path) -> Path:
    (workplace / "net.py").write_text(NET)
    text = (workplace / "easy.toml").read_text()
    text = text.replace('"plain"\nwidths = [8, 16]\npool_after = [1, 2]', '"net.py:Net"')
    (workplace / "breaks.toml").write_text(text.replace("decay = 0.9", "decay = 0.0"))
    return workplace


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_the_run_stops_at_that_step(breaking: Path, what: str) -> None:
    code, said = command_line(
        breaking, "train", "breaks.toml", "--out", "run", "--threads", "1", "--quiet",
        "--set", f"model.breaks={what}",
    )  # fmt: skip
    assert code == 3, said
    begins = "The loss is nan" if what == "loss" else "The gradient is not finite"
    assert said.startswith(f"whit: {begins} at step 90 (epoch 2), loss ")
    assert "learning rate 0.0" in said
    assert "Try a lower optim.lr" in said
    assert said.endswith("The last finite weights are in run/weights.safetensors.\n")
    run = breaking / "run"
    result = json.loads((run / "result.json").read_text())
    assert result["state"] == "diverged"
    assert result["verdict"] == "missed"
    assert result["test"]["correct"] is None
    assert {"epoch": 2, "step": 90}.items() <= result["diverged"].items()
    assert [violation["rule"] for violation in result["violations"]] == ["diverged"]
    tensors = load((run / "weights.safetensors").read_bytes())
    assert all(bool(tensor.isfinite().all()) for tensor in tensors.values())
    assert tensors["norm.num_batches_tracked"] == 89  # those before the step
    assert len((run / "log.jsonl").read_text().splitlines()) == 1


def test_nothing_is_claimed_of_it(breaking: Path) -> None:
    command_line(breaking, "train", "breaks.toml", "--out", "run", "--threads", "1", "--quiet")
    run = breaking / "run"
    before = {path.name: path.read_bytes() for path in run.iterdir()}
    for arguments, expected in (
        (("audit", "run"), (2, "diverged")),
        (("compare", "run", "run"), (2, "no finished run")),
        (("train", "--resume", "run"), (3, "diverged; if resumed, it would diverge again")),
    ):
        code, said = command_line(breaking, *arguments)
        assert code == expected[0], said
        assert expected[1] in said
    code, said = command_line(breaking, "runs", ".")
    assert code == 0
    assert "diverged" in said
    assert {path.name: path.read_bytes() for path in run.iterdir()} == before


def test_weights_that_overflow_with_finite_gradients(workplace: Path) -> None:
    """A learning rate so high that weights become infinite: the checkpoint's are kept."""

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = torch.nn.Conv2d(1, 10, 5, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.conv(x).mean((2, 3)) * 3e38

    recipe = whit.load_recipe(workplace / "easy.toml").with_overrides(
        [f"data.name={workplace / 'easy.npz'}", "optim.lr=1000", "ema.decay=0.0"]
    )
    torch.manual_seed(0)
    net = Net()
    before = net.conv.weight.detach().clone()
    with pytest.raises(whit.RunFailed, match="The loss is nan at step 2"):
        whit.train(recipe, net, out=workplace / "run", quiet=True)
    tensors = load((workplace / "run" / "weights.safetensors").read_bytes())
    assert torch.equal(tensors["conv.weight"], before)
    with pytest.raises(InputError, match="diverged"):
        whit.audit(workplace / "run")


def test_an_evaluation_that_is_not_finite_is_no_nan_in_json(workplace: Path) -> None:
    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = torch.nn.Conv2d(1, 10, 5, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            logits = self.conv(x).mean((2, 3))
            return logits if self.training else logits * float("inf")

    recipe = whit.load_recipe(workplace / "easy.toml").with_overrides(
        [f"data.name={workplace / 'easy.npz'}", "train.epochs=1", "ema.decay=0.0"]
    )
    whit.train(recipe, Net(), out=workplace / "run", quiet=True)
    for name in ("log.jsonl", "result.json"):
        text = (workplace / "run" / name).read_text()
        assert "NaN" not in text
        assert "Infinity" not in text
    assert json.loads((workplace / "run" / "result.json").read_text())["test"]["loss"] is None
