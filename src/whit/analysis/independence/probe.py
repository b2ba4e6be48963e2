"""Compare a model's outputs for the same images in different batches.

In two batches of the same size, with the same image at the same position, an honest model computes
the same bits, whatever the other images are: each kernel does the same work. So a single bit that
differs is a dependence. Where sizes or positions differ, sums may be computed in another order;
there float64 tells a dependence from rounding.
"""

from __future__ import annotations

import contextlib
import copy
import io
import itertools
import random
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from whit.analysis.independence.call_state import StateValue, find_changes, other_values, read_state
from whit.analysis.independence.cause import SignatureRecorder, describe_mixing
from whit.analysis.sources.executed_code import ExecutedCode, watch_code
from whit.analysis.tracing.ablation import perturb_zero_weights
from whit.analysis.tracing.trace import Signature

SMALL = 4  # images in a small batch
NUM_IMAGES = 3 * SMALL  # at least, to be probed with
_SEED = 30_000
_TOLERANCE, _COARSE_TOLERANCE = 1e-6, 1e-3  # relative to the largest output: float64, others

_OTHERS = "the output for an image depends on the other images of its batch"
_CALLS = "the output for an image depends on earlier batches or on the number of calls"
_RANDOM = "the output for an image is random: it changes from call to call"
_SIZE = "the output for an image depends on the size of its batch or on its position in it"


def find_batch_dependence(
    model: nn.Module, images: Tensor, large: int = 0, quick: bool = False
) -> str | None:
    """Return a sentence if the output for an image depends on more than that image, else None.

    `images`, (N, C, H, W), are as the model takes them; fewer than NUM_IMAGES are repeated. `large`
    of them are also evaluated in one batch, as an evaluation does. `quick` omits the probes of
    rare causes, for a model whose pass takes long. Runs copies of `model` in evaluation mode; where
    it cannot be copied, the model itself. Global random state changes.
    """
    with contextlib.redirect_stdout(io.StringIO()):
        return _Probe(model, images, quick).find(large)


class _Probe:
    def __init__(self, model: nn.Module, images: Tensor, quick: bool):
        self.quick = quick
        self.original = model
        self.model = _copy(model)
        self.images = images[torch.arange(max(len(images), NUM_IMAGES)) % len(images)]
        self.executed = ExecutedCode()

    def find(self, large: int) -> str | None:
        first, second = self.images[:SMALL], self.images[SMALL : 2 * SMALL]
        with watch_code(self.executed):
            start = self.run(first)
        if start is None or len(start) != SMALL:
            return None  # the audit says what fails
        return (
            self._find_history(first, second)
            or self._find_randomness(first)
            or self._find_mixing(first, second)
            or (None if self.quick else self._find_gated_mixing(first, second))
            or (self._find_mixing_of_many(large) if large > SMALL else None)
            or self._find_size_dependence(first)
            or (None if self.quick else self._find_first_batch(first, second))
        )

    def run(
        self, images: Tensor, model: nn.Module | None = None, seed: int | None = _SEED
    ) -> Tensor | None:
        """Return the output for `images`; None where the pass fails.

        Without a seed the generators continue from where they are.
        """
        if seed is not None:
            torch.manual_seed(seed)
            random.seed(seed)
            np.random.seed(seed)
        model = self.model if model is None else model
        try:
            with torch.no_grad():
                output = model.eval()(images.clone())
        except Exception:
            return None
        if not isinstance(output, Tensor) or not output.dim():
            return None
        return (output.dequantize() if output.is_quantized else output.detach()).clone()

    # --- calls ------------------------------------------------------------------------------

    def _find_history(self, first: Tensor, second: Tensor) -> str | None:
        """Find an output that other calls change, or state that calls change and outputs read."""
        before = self.run(first)
        state = read_state(self.model, self.executed)
        self.run(second)
        changes = find_changes(state, read_state(self.model, self.executed))
        self.run(self.images[-3:] * 3 + 1)
        after = self.run(first)
        if not _same(before, after):
            return _describe_state([*changes.values()])
        for place, change in changes.items():
            for i, value in enumerate(other_values(change)):
                if place not in state:  # an object that each call makes again
                    change, value = self._find_again(change.name, i) or (change, value)
                with _replaced(change, value):
                    # the first call may refill what is only kept, the second would read it
                    output = self.run(first)
                if output is not None and not _same(output, after):
                    return _describe_state([change])
        return None

    def _find_again(self, name: str, i: int) -> tuple[StateValue, object] | None:
        """Return the value of this name as it is now, and the `i`-th other one."""
        for state in read_state(self.model, self.executed).values():
            if state.name == name:
                for other in itertools.islice(other_values(state), i, None):
                    return state, other
        return None

    def _find_first_batch(self, first: Tensor, second: Tensor) -> str | None:
        """Find what a model keeps of the first batch that it ever saw."""
        outputs = []
        for start in (second, self.images[2 * SMALL : 3 * SMALL] * 3 + 1):
            model = _copy(self.original)
            if model is self.original:
                return None
            self.run(start, model)
            outputs.append(self.run(first, model))
        if None in [type(output) for output in outputs] or _same(*outputs):
            return None
        return f"{_CALLS}: it keeps something of the first batch"

    def _find_randomness(self, first: Tensor) -> str | None:
        seeded = self.run(first)
        if not _same(seeded, self.run(first, seed=None)):
            return _RANDOM
        return None

    # --- other images -----------------------------------------------------------------------

    def _find_mixing(
        self, first: Tensor, second: Tensor, model: nn.Module | None = None
    ) -> str | None:
        """Compare the first image in batches of one size, and the last."""
        expected = self.run(first, model)
        if expected is None:
            return None
        rest = second[1:]
        companions = (rest, rest * 100, torch.zeros_like(rest), first[:1].expand_as(rest))
        for others in companions[:1] if self.quick else companions:
            mixed = torch.cat([first[:1], others])
            if (mixing := self._compare(first, mixed, 1, expected, model)) is not None:
                return mixing
        mixed = torch.cat([rest, first[-1:]])  # what runs along the batch ends here
        if (mixing := self._compare(first, mixed, -1, expected, model)) is not None:
            return mixing
        poison = torch.cat([first[:1], torch.full_like(rest, torch.nan)])
        poisoned = self.run(poison, model)
        if poisoned is not None and poisoned.is_floating_point() and len(poisoned) == SMALL:
            spreads = poisoned[0].isnan().any() and not expected[0].isnan().any()
            if spreads:
                return self._describe_mixing(first, poison, model)
        return None

    def _compare(
        self,
        batch: Tensor,
        mixed: Tensor,
        kept: int,
        expected: Tensor,
        model: nn.Module | None = None,
    ) -> str | None:
        """Compare the outputs for the first `kept` images that two batches share.

        Negative: for the last ones. `expected` is the output for `batch`.
        """
        shared = slice(kept) if kept > 0 else slice(kept, None)
        output = self.run(mixed, model)
        if output is None or _same(output[shared], expected[shared]):
            return None
        if not _same(self.run(mixed, model), output) or not _same(self.run(batch, model), expected):
            return None  # not the same twice: no statement about the other images
        if self._is_rounding(batch, mixed, shared, model):
            return None
        return self._describe_mixing(batch, mixed, model, last=kept < 0)

    def _is_rounding(
        self, batch: Tensor, mixed: Tensor, shared: slice, model: nn.Module | None
    ) -> bool:
        """Return whether only the order of sums differs, as images go other ways in each batch.

        Experts that each take the images that a router sends them compute batches of other sizes.
        """
        target = self.model if model is None else model
        operations = [self._list_operations(images, target) for images in (batch, mixed)]
        if operations[0] == operations[1]:
            return False
        wide, images = self._widen(torch.cat([batch, mixed]), target)
        outputs = [self.run(half, wide) for half in (images[: len(batch)], images[len(batch) :])]
        if outputs[0] is None or outputs[1] is None or outputs[0].shape != outputs[1].shape:
            return False
        return not _is_far(outputs[0][shared], outputs[1][shared])

    def _list_operations(self, images: Tensor, model: nn.Module) -> list[Signature]:
        recorder = SignatureRecorder()
        with recorder:
            self.run(images, model)
        return recorder.signature

    def _describe_mixing(
        self, batch: Tensor, mixed: Tensor, model: nn.Module | None, last: bool = False
    ) -> str:
        target = self.model if model is None else model
        cause = describe_mixing(lambda images: self.run(images, target), target, batch, mixed, last)
        return f"{_OTHERS}: {cause}" if cause else _OTHERS

    def _find_gated_mixing(self, first: Tensor, second: Tensor) -> str | None:
        """Find a dependence behind a weight that is zero now and that training may change."""
        model = _copy(self.model)
        if model is self.model:
            return None
        perturb_zero_weights(model)
        return self._find_mixing(first, second, model)

    def _find_mixing_of_many(self, large: int) -> str | None:
        """Compare images within batches as large as those of an evaluation."""
        large = min(large, len(self.images))
        batch = self.images[:large]
        expected = self.run(batch)
        if expected is None or len(expected) != large:
            return None
        others = self.images[torch.arange(large) - large // 2][SMALL:]
        mixed = torch.cat([batch[:SMALL], others * 2])
        return self._compare(batch, mixed, SMALL, expected)

    # --- size and position --------------------------------------------------------------------

    def _find_size_dependence(self, first: Tensor) -> str | None:
        """Compare an image alone, in batches of several sizes, and at several positions."""
        model, images = self._widen(first, self.model, copies=not self.quick)
        expected = self.run(images, model)
        if expected is None:
            return None
        sizes = ([0], [0, 1], [0, 1, 2], [3, 2, 1, 0], [2, 3, 0, 1], [0, 1, 2, 3] * 9)
        parts = []
        for order in sizes[:1] if self.quick else sizes:
            output = self.run(images[order], model)
            if output is None or len(output) != len(order):
                continue  # the audit notes a pass that fails for one image
            parts.append((output, expected[order]))
        return _SIZE if any(_is_far(*part) for part in parts) else None

    def _widen(
        self, images: Tensor, model: nn.Module, copies: bool = True
    ) -> tuple[nn.Module, Tensor]:
        """Return model and images in float64 where the model allows it."""
        wide = _copy(model) if copies else model
        if wide is not model:
            try:
                wide = wide.double()
            except Exception:
                return model, images
            output = self.run(images.double(), wide)
            if output is not None and output.dtype == torch.float64:
                return wide, images.double()
        return model, images


def _copy(model: nn.Module) -> nn.Module:
    try:
        return copy.deepcopy(model)
    except Exception:
        return model


def _same(one: Tensor | None, other: Tensor | None) -> bool:
    """Return whether two outputs agree in every bit, or cannot be compared."""
    if one is None or other is None:
        return True
    if one.shape != other.shape:
        return False
    return torch.allclose(one, other, rtol=0, atol=0, equal_nan=True)


def _is_far(one: Tensor, other: Tensor) -> bool:
    """Return whether outputs of the same images differ by more than rounding.

    In float32 a threshold inside the model may turn rounding into a step for a few images, so most
    of them must differ.
    """
    if one.shape != other.shape or not one.is_floating_point():
        return one.shape != other.shape
    difference = (one - other).abs().reshape(len(one), -1).amax(1)
    scale = other.abs().max().clamp(min=1e-3)
    if one.dtype == torch.float64:
        return bool((difference > _TOLERANCE * scale).any())
    return bool((difference > _COARSE_TOLERANCE * scale).float().mean() > 0.5)


def _describe_state(changes: list[StateValue]) -> str:
    names = list(dict.fromkeys(change.name for change in changes))[:3]
    return f"{_CALLS}: a call changes {', '.join(names)}" if names else _CALLS


@contextlib.contextmanager
def _replaced(state: StateValue, value: object) -> Iterator[None]:
    """Give a place another value for a while."""
    state.replace(value)
    try:
        yield
    finally:
        state.replace(state.value)
