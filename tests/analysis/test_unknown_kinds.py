"""What was not seen is unknown, and neither present nor absent.

Run: pytest tests/analysis/test_unknown_kinds.py
"""

from __future__ import annotations

import random
import threading
import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from whit.analysis import Audit, audit_model
from whit.recipes.budget import Budget, Metrics

REQUIRED = Budget({"require": ("batchnorm", "dropout", "gap")})


class Base(nn.Module):
    """Convolution, BatchNorm, Dropout and global average pooling: 120 parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.drop = (
            nn.Conv2d(1, 10, 3, 2),
            nn.BatchNorm2d(10),
            nn.Dropout(0.1),
        )

    def body(self, x: Tensor) -> Tensor:
        return self.drop(F.relu(self.norm(self.conv(x)))).mean((2, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


def audit(model: nn.Module) -> Audit:
    return audit_model(model, (1, 12, 12), 10, "model")


def statuses(found: Audit, budget: Budget = REQUIRED) -> list[str]:
    return [row[2] for row in budget.rows(Metrics.from_audit(found, 1))]


# --- forward passes that fail


class OnAnotherDevice(Base):
    def forward(self, x: Tensor) -> Tensor:
        return self.body(x.to("cuda"))


class Mismatch(Base):
    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Conv2d(16, 10, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.drop(F.relu(self.norm(self.conv(x))))
        return self.last(x).mean((2, 3))


class Exits(Base):
    def forward(self, x: Tensor) -> Tensor:
        raise SystemExit(3)


class OnlyInTraining(Base):
    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.conv(x))
        if self.training:
            raise ValueError("nothing to learn")
        return self.drop(x).mean((2, 3))


FAILURES = {
    OnAnotherDevice: ('`return self.body(x.to("cuda"))`: ', ["unknown"] * 3),
    Mismatch: (
        "`return self.last(x).mean((2, 3))`, in layer last: RuntimeError",
        ["present", "present", "unknown"],
    ),
    Exits: ("`raise SystemExit(3)`: SystemExit: 3", ["unknown"] * 3),
    OnlyInTraining: (
        'in training mode at `raise ValueError("nothing to learn")`: ValueError: nothing to learn',
        ["present", "unknown", "present"],
    ),
}


@pytest.mark.parametrize("model", FAILURES)
def test_the_line_of_the_user_comes_first(model: type[nn.Module]) -> None:
    problem, seen = FAILURES[model]
    found = audit(model())
    assert found.failure is not None
    assert found.failure.startswith(__file__) or found.failure.startswith("tests/analysis/test_")
    assert problem in found.failure
    assert found.output_problem == found.failure
    assert statuses(found) == seen
    assert not REQUIRED.violations(Metrics.from_audit(found, 1))
    assert REQUIRED.verdict(Metrics.from_audit(found, 1)) == "pending"
    assert found.table().replace("\n  ", " ").startswith(found.failure)
    assert found.failure.split("`")[0] in found.html()


def test_of_a_model_of_torchs_modules_the_layer_is_named() -> None:
    model = nn.Sequential(nn.Conv2d(1, 8, 3), nn.Flatten(), nn.Linear(5, 10))
    failure = audit(model).failure
    assert failure is not None
    assert failure.startswith("model, layer 2: the forward pass fails: RuntimeError: mat1")


def test_what_is_forbidden_and_not_seen_is_unknown() -> None:
    forbidden = Budget({"forbid": ("linear", "conv")})
    metrics = Metrics.from_audit(audit(Mismatch()), 1)
    assert [row[2:] for row in forbidden.rows(metrics)] == [("unknown", None), ("present", False)]
    metrics = Metrics.from_audit(audit(OnAnotherDevice()), 1)
    assert forbidden.verdict(metrics) == "pending"


def test_nothing_is_met_by_a_network_that_was_not_seen_whole() -> None:
    assert Budget({"params": "< 20000"}).verdict(Metrics(params=1, kinds_known=False)) == "pending"
    assert Budget({"params": "< 20000"}).verdict(Metrics(params=1)) == "met"


# --- operations that cannot be seen


MATRIX = torch.randn(10, 10)
LIBRARY = torch.library.Library("whit_tests", "DEF")
LIBRARY.define("relu(Tensor x) -> Tensor")
LIBRARY.impl("relu", lambda x: x @ MATRIX, "CPU")


class Custom(Base):
    """An operation that is a linear layer and is called relu."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.ops.whit_tests.relu(self.body(x))


class InThread(Base):
    def forward(self, x: Tensor) -> Tensor:
        results: list[Tensor] = []
        thread = threading.Thread(target=lambda: results.append(self.body(x)))
        thread.start()
        thread.join()
        return results[0]


class ThroughNumpy(Base):
    def forward(self, x: Tensor) -> Tensor:
        return torch.from_numpy(self.body(x).numpy() @ MATRIX.numpy())


class Branching(Base):
    def forward(self, x: Tensor) -> Tensor:
        return self.body(x) @ MATRIX if x.mean() > 100 else self.body(x)


class FromTheSecondCall(Base):
    """A linear layer that the first pass does not have."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.first = nn.Linear(10, 10), True

    def forward(self, x: Tensor) -> Tensor:
        if self.first:
            self.first = False
            return self.body(x)
        return self.fc(self.body(x))


class EverySecondCall(Base):
    def __init__(self) -> None:
        super().__init__()
        self.fc, self.calls = nn.Linear(10, 10), 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        x = x + 1 if self.calls % 2 else x
        return self.fc(self.body(x))


class AfterGather(Base):
    def forward(self, x: Tensor) -> Tensor:
        flat = self.drop(self.norm(self.conv(x))).flatten(2)
        return flat.gather(2, torch.arange(5).expand(len(x), 10, 5)).mean(-1)


class NoTrainingMode(Base):
    """As modules made by torch.export are."""

    def train(self, mode: bool = True):
        raise NotImplementedError("Calling train() is not supported yet.")


def test_a_mode_that_cannot_be_changed() -> None:
    found = audit(NoTrainingMode())
    assert found.failure is not None
    assert "test_unknown_kinds.py, line" in found.failure
    assert "the change to evaluation mode fails" in found.failure
    assert statuses(found) == ["unknown"] * 3


class Forgotten(Base):
    def forward(self, x: Tensor) -> None:
        self.body(x)


def test_without_a_return_nothing_is_absent() -> None:
    found = audit(Forgotten())
    assert statuses(found) == ["unknown"] * 3
    assert "test_unknown_kinds.py, line" in (found.output_problem or "")
    assert "as without a `return` statement" in (found.output_problem or "")


class Profiled(Base):
    def forward(self, x: Tensor) -> Tensor:
        with torch.profiler.record_function("body"):
            return self.body(x)


class WithTeacher(Base):
    """A network that is no part of it teaches it in training."""

    def __init__(self) -> None:
        super().__init__()
        self.teacher = [nn.Linear(144, 10)]

    def forward(self, x: Tensor) -> Tensor:
        logits = self.body(x)
        return logits + self.teacher[0](x.flatten(1)) if self.training else logits


@pytest.mark.parametrize("model", [Profiled, WithTeacher])
def test_what_is_known(model: type[nn.Module]) -> None:
    found = audit(model())
    assert found.kinds_known
    assert found.unverified == ()
    assert found.params.total == 120


UNSEEN = [
    Custom,
    InThread,
    ThroughNumpy,
    Branching,
    FromTheSecondCall,
    EverySecondCall,
    AfterGather,
]


@pytest.mark.parametrize("model", UNSEEN)
def test_a_linear_layer_or_pooling_may_hide_there(model: type[nn.Module]) -> None:
    found = audit(model())
    assert found.failure is None
    assert found.output_problem is None
    assert not found.kinds_known
    assert found.notes
    for budget in (Budget({"forbid": ("linear",)}), Budget({"require": ("gap",)})):
        assert budget.verdict(Metrics.from_audit(found, 1)) in ("pending", "missed")
    violations = Budget({"require": ("gap", "maxpool")}).violations(Metrics.from_audit(found, 1))
    assert {violation.rule for violation in violations} <= {"each image judged alone"}


class Doubled(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor) -> Tensor:
        return F.linear(x, weight) * 2

    @staticmethod
    def backward(ctx, gradient: Tensor):
        return gradient, None


class CustomFunction(Base):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(10, 10, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return Doubled.apply(self.body(x), self.fc.weight)


class Mapped(CustomFunction):
    def forward(self, x: Tensor) -> Tensor:
        return torch.vmap(self.fc)(self.body(x))


class Forked(CustomFunction):
    def forward(self, x: Tensor) -> Tensor:
        return torch.jit.wait(torch.jit.fork(self.fc, self.body(x)))


@pytest.mark.parametrize("model", [CustomFunction, Mapped, Forked])
def test_what_looks_hidden_and_is_seen(model: type[nn.Module]) -> None:
    found = audit(model())
    assert found.kinds_known
    assert {"linear", "gap", "batchnorm", "dropout"} <= found.kinds
    assert found.params.total == 220
    assert found.params.unused == 0


# --- passes that differ


class CachedGrid(Base):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.grid = nn.Conv2d(2, 10, 3, 2), None

    def forward(self, x: Tensor) -> Tensor:
        if self.grid is None:
            self.grid = torch.linspace(-1, 1, 12).expand(1, 1, 12, 12)
        return self.body(torch.cat([x, self.grid.expand(len(x), 1, 12, 12)], 1))


class LazyBuffer(CachedGrid):
    def forward(self, x: Tensor) -> Tensor:
        if self.grid is None:
            del self.grid
            self.register_buffer("grid", torch.linspace(-1, 1, 12).expand(1, 1, 12, 12).clone())
        return self.body(torch.cat([x, self.grid.expand(len(x), 1, 12, 12)], 1))


class OneMoreOperation(Base):
    """The first pass has more operations: by its numbers, another one than the linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.first = nn.Linear(10, 10), True

    def forward(self, x: Tensor) -> Tensor:
        if self.first:
            self.first = False
            torch.ones(3) + torch.ones(3)
        return self.fc(self.body(x))


@pytest.mark.parametrize("model", [CachedGrid, LazyBuffer, OneMoreOperation])
def test_a_first_pass_with_other_work(model: type[nn.Module]) -> None:
    found = audit(model())
    assert {"gap", "batchnorm", "dropout", "conv"} <= found.kinds
    assert ("linear" in found.kinds) == (model is OneMoreOperation)
    assert found.kinds_known
    # what the weights hold is counted, although the code computes it
    lazy = ("144 numbers in buffers are counted: grid",) if model is LazyBuffer else ()
    assert found.notes == lazy
    assert found.params.total == {OneMoreOperation: 230, LazyBuffer: 354}.get(model, 210)


class MadeAtFirst(Base):
    def __init__(self) -> None:
        super().__init__()
        self.fc = None

    def forward(self, x: Tensor) -> Tensor:
        if self.fc is None:
            self.fc = nn.Linear(10, 10)
        return self.fc(self.body(x))


def test_a_layer_made_in_the_first_pass_is_there() -> None:
    assert "linear" in audit(MadeAtFirst()).kinds


def test_random_numbers_of_python_are_the_same_in_each_pass() -> None:
    class Drawn(Base):
        def forward(self, x: Tensor) -> Tensor:
            return self.body(x + 1 if random.random() + np.random.rand() < 1 else x)

    assert audit(Drawn()).kinds_known


# --- layouts


def stored(make, read=lambda tensor: tensor.to_dense()) -> type[nn.Module]:
    class Stored(Base):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("mix", make(torch.eye(10)))

        def forward(self, x: Tensor) -> Tensor:
            return self.body(x) @ read(self.mix)

    return Stored


def quantize(x: Tensor) -> Tensor:
    return torch.quantize_per_channel(x, torch.full((10,), 0.1), torch.zeros(10), 0, torch.qint8)


# name: model, numbers in the buffer; of a sparse one also the indices
LAYOUTS = {
    "csr": (stored(Tensor.to_sparse_csr), 10 + 10 + 11),
    "csc": (stored(Tensor.to_sparse_csc), 10 + 10 + 11),
    "coo": (stored(Tensor.to_sparse), 10 + 20),
    "bsr": (stored(lambda x: x.to_sparse_bsr((2, 2))), 20 + 5 + 6),
    "bsc": (stored(lambda x: x.to_sparse_bsc((2, 2))), 20 + 5 + 6),
    "mkldnn": (stored(Tensor.to_mkldnn), 100),
    "quantized": (stored(quantize, Tensor.dequantize), 100),
    "complex": (stored(lambda x: x.to(torch.complex64), lambda x: x.real), 200),
    "conjugate": (stored(lambda x: x.to(torch.complex64).conj(), lambda x: x.real), 200),
    "eight bits": (stored(lambda x: x.to(torch.float8_e4m3fn), Tensor.float), 100),
    "nested": (
        stored(
            lambda x: torch.nested.nested_tensor([x[:3], x[3:]]), lambda x: torch.cat(x.unbind())
        ),
        100,
    ),
    "meta": (stored(lambda x: x.to("meta"), lambda x: x), 100),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_is_counted(layout: str) -> None:
    model, numbers = LAYOUTS[layout]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = audit(model())
    assert found.params.total == 120 + numbers
    assert found.params.buffers == numbers
    assert {"batchnorm", "dropout", "gap", "conv"} <= found.kinds
    assert found.kinds_known
    assert found.failure is None


@pytest.mark.filterwarnings("ignore")
def test_a_sparse_product() -> None:
    class Sparse(Base):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.eye(10).to_sparse_csr())

        def forward(self, x: Tensor) -> Tensor:
            return torch.sparse.mm(self.weight, self.body(x).T).T

    found = audit(Sparse())
    assert "linear" in found.kinds
    assert found.macs == 90 * 25 + 10  # each stored number once
    assert found.receptive_field == 11


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("way", ["script", "trace", "freeze"])
def test_script_modules_inside(way: str) -> None:
    part: nn.Module = nn.Sequential(nn.Linear(10, 10), nn.ReLU()).eval()
    match way:
        case "script":
            part = torch.jit.script(part)
        case "trace":
            part = torch.jit.trace(part, torch.zeros(2, 10))
        case "freeze":
            part = torch.jit.freeze(torch.jit.script(part))
    model = Base()
    model.norm = nn.Sequential(model.norm)  # modes of a tree, of which a frozen module has none
    found = audit(nn.Sequential(model, part))
    assert found.params.total == 230
    assert {"linear", "relu", "gap", "batchnorm", "dropout"} <= found.kinds
    assert found.kinds_known
