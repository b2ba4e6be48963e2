"""What a network does on a split, image by image: confusion, classes, errors, calibration.

N images, K classes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from whit.data.splits import Split
from whit.evaluation import predict
from whit.run_record import RunRecord
from whit.trained import Trained

MOST_ERRORS = 1000  # kept with their K probabilities; more would be read by nobody
BINS = 15

# Places in MNIST's test split whose label most people who are asked dispute.
DISPUTED = frozenset(
    (947, 1621, 1901, 2130, 2462, 2597, 2654, 3520, 3558, 5937, 6651, 6783, 8527, 9679, 9729)
)


@dataclass(frozen=True)
class Error:
    """An image that was not right. `index` is its place in the split, from 0.

    `true` and `predicted` are labels; `probabilities` has one for each class and sums to 1.
    """

    index: int
    true: int
    predicted: int
    probabilities: tuple[float, ...]
    disputed: bool = False


@dataclass(frozen=True)
class ClassCount:
    """How many images of a class there are, and how many of them were right."""

    label: int
    correct: int
    total: int


@dataclass(frozen=True)
class Bin:
    """Images whose largest probability lies in (low, high]; the means are None without images."""

    low: float
    high: float
    count: int
    confidence: float | None  # mean of the largest probabilities
    accuracy: float | None  # share that was right


@dataclass(frozen=True)
class Calibration:
    """Whether a network is right as often as it is sure to be.

    Reliability by 15 bins of equal width over the largest probability. `error` is the expected
    calibration error: the mean of |accuracy - confidence| over the bins, each weighted by its
    share of the images, from 0 to 1 (Guo, Pleiss, Sun and Weinberger 2017, arXiv 1706.04599).
    """

    bins: tuple[Bin, ...]
    error: float


@dataclass(frozen=True)
class Findings:
    """Counts over one split. `confusion` has the (true, predicted) pairs that occur.

    `errors` are worst first: the smallest probability of the true class, then the smaller index;
    at most MOST_ERRORS of them.
    """

    split: str
    classes: tuple[str, ...]
    correct: int
    total: int
    confusion: dict[tuple[int, int], int]
    errors: tuple[Error, ...]
    calibration: Calibration

    @property
    def num_errors(self) -> int:
        return self.total - self.correct

    @property
    def by_class(self) -> tuple[ClassCount, ...]:
        """One for each class, in the order of the labels."""
        totals = [0] * len(self.classes)
        for (true, _), count in self.confusion.items():
            totals[true] += count
        return tuple(
            ClassCount(label, self.confusion.get((label, label), 0), total)
            for label, total in enumerate(totals)
        )

    @property
    def confused(self) -> tuple[tuple[int, int, int], ...]:
        """(true, predicted, count) of every pair that was confused, the most frequent first."""
        pairs = [(*pair, count) for pair, count in self.confusion.items() if pair[0] != pair[1]]
        return tuple(sorted(pairs, key=lambda found: (-found[2], found[:2])))


def findings_of(trained: Trained) -> Findings:
    """Evaluate a finished run's weights on the split that it was judged on.

    Raises InputError where there are no images of it.
    """
    split = trained.split
    logits = predict(trained.model, split, trained.normalise)
    return counted(logits, split, trained.dataset.classes, disputed_of(trained.run))


def disputed_of(run: RunRecord) -> frozenset[int]:
    """Return which images of the run's split are known to be disputed; only MNIST's test has."""
    is_known = run.recipe.data.name == "mnist" and run.recipe.train.test
    return DISPUTED if is_known else frozenset()


def counted(
    logits: Tensor, split: Split, classes: Sequence[str], disputed: frozenset[int] = frozenset()
) -> Findings:
    """Return the findings of logits, float (N, K), for the images of `split` in their order."""
    predicted = logits.argmax(1)  # (N,)
    # Weights that were spoilt may give no numbers at all.
    probabilities = logits.softmax(1).nan_to_num(0.0)  # (N, K)
    pairs = Counter(zip(split.labels.tolist(), predicted.tolist(), strict=True))
    wrong = (predicted != split.labels).nonzero().flatten()
    of_true = probabilities[wrong, split.labels[wrong]]
    worst = wrong[of_true.argsort(stable=True)][:MOST_ERRORS]
    errors = tuple(
        Error(index, true, said, tuple(row), index in disputed)
        for index, true, said, row in zip(
            worst.tolist(),
            split.labels[worst].tolist(),
            predicted[worst].tolist(),
            probabilities[worst].tolist(),
            strict=True,
        )
    )
    total = len(split)
    confidence = probabilities.amax(1)
    return Findings(
        split.name,
        tuple(classes),
        total - len(wrong),
        total,
        dict(sorted(pairs.items())),
        errors,
        _calibration(confidence.double(), predicted == split.labels),
    )


def _calibration(confidence: Tensor, is_right: Tensor) -> Calibration:
    """Bin images by confidence, float64 (N,), and whether they were right, bool (N,)."""
    edges = torch.arange(1, BINS, dtype=torch.float64) / BINS
    places = torch.bucketize(confidence, edges)  # (low, high]
    counts = torch.bincount(places, minlength=BINS)
    sure = torch.bincount(places, weights=confidence, minlength=BINS)
    right = torch.bincount(places, weights=is_right.double(), minlength=BINS)
    bins = []
    for place, count in enumerate(counts.tolist()):
        means = (None, None)
        if count:
            means = (float(sure[place]) / count, float(right[place]) / count)
        bins.append(Bin(place / BINS, (place + 1) / BINS, count, *means))
    gap = float((right - sure).abs().sum()) / len(confidence)
    return Calibration(tuple(bins), gap)
