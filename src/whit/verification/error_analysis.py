"""Error analysis on a split: confusion, classes, misclassified images, calibration.

N images, K classes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from whit.data.splits import Split
from whit.runs.reader import RunRecord
from whit.training.evaluation import predict
from whit.verification.restore import LoadedRun

MAX_ERRORS = 1000  # stored with their K probabilities
NUM_BINS = 15

# Indices in MNIST's test split whose label most human annotators dispute.
KNOWN_LABEL_ERRORS = frozenset(
    (947, 1621, 1901, 2130, 2462, 2597, 2654, 3520, 3558, 5937, 6651, 6783, 8527, 9679, 9729)
)


@dataclass(frozen=True)
class Misclassification:
    """A misclassified image. `index` is its index in the split, from 0.

    `true` and `predicted` are labels; `probabilities` has one for each class and sums to 1.
    """

    index: int
    true: int
    predicted: int
    probabilities: tuple[float, ...]
    disputed: bool = False


@dataclass(frozen=True)
class ClassCount:
    """The number of images of a class, and how many of them were classified correctly."""

    label: int
    correct: int
    total: int


@dataclass(frozen=True)
class CalibrationBin:
    """Images with a confidence in (low, high]; the means are None without images."""

    low: float
    high: float
    count: int
    confidence: float | None  # mean
    accuracy: float | None  # from 0 to 1


@dataclass(frozen=True)
class Calibration:
    """Whether the confidence of a network matches its accuracy.

    Reliability in 15 bins of equal width of the confidence, which is the probability of the
    predicted class. `error` is the expected calibration error: the mean of |accuracy - confidence|
    over the bins, each weighted by its fraction of the images, from 0 to 1 (Guo, Pleiss, Sun and
    Weinberger 2017, arXiv 1706.04599).
    """

    bins: tuple[CalibrationBin, ...]
    error: float


@dataclass(frozen=True)
class ErrorAnalysis:
    """Counts over one split. `confusion` has the (true, predicted) pairs that occur.

    `errors` are sorted by the probability of the true class, smallest first, then by index; there
    are at most MAX_ERRORS.
    """

    split: str
    classes: tuple[str, ...]
    correct: int
    total: int
    confusion: dict[tuple[int, int], int]
    errors: tuple[Misclassification, ...]
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
    def confused_pairs(self) -> tuple[tuple[int, int, int], ...]:
        """(true, predicted, count) of every confused pair of classes, the most frequent first."""
        pairs = [(*pair, count) for pair, count in self.confusion.items() if pair[0] != pair[1]]
        return tuple(sorted(pairs, key=lambda pair: (-pair[2], pair[:2])))


def analyze_run(loaded: LoadedRun) -> ErrorAnalysis:
    """Evaluate the weights of a finished run on the split that its verdict uses.

    Raises InputError when the images of the split are not available.
    """
    split = loaded.split
    logits = predict(loaded.predictor, split, loaded.normalize)
    return analyze_logits(logits, split, loaded.dataset.classes, known_label_errors(loaded.run))


def known_label_errors(run: RunRecord) -> frozenset[int]:
    """Return the indices of disputed labels in the run's split; known for MNIST's test only."""
    is_known = run.recipe.data.name == "mnist" and run.recipe.eval.test
    return KNOWN_LABEL_ERRORS if is_known else frozenset()


def analyze_logits(
    logits: Tensor, split: Split, classes: Sequence[str], disputed: frozenset[int] = frozenset()
) -> ErrorAnalysis:
    """Return the analysis of logits, float (N, K), for the images of `split` in their order."""
    predicted = logits.argmax(1)  # (N,)
    # Damaged weights may give NaN.
    probabilities = logits.softmax(1).nan_to_num(0.0)  # (N, K)
    pairs = Counter(zip(split.labels.tolist(), predicted.tolist(), strict=True))
    is_correct = predicted == split.labels
    wrong = (~is_correct).nonzero().flatten()
    true_probabilities = probabilities[wrong, split.labels[wrong]]
    worst = wrong[true_probabilities.argsort(stable=True)][:MAX_ERRORS]
    errors = tuple(
        Misclassification(index, true, guess, tuple(row), index in disputed)
        for index, true, guess, row in zip(
            worst.tolist(),
            split.labels[worst].tolist(),
            predicted[worst].tolist(),
            probabilities[worst].tolist(),
            strict=True,
        )
    )
    calibration = _calibrate(probabilities.amax(1).double(), is_correct)
    correct, confusion = len(split) - len(wrong), dict(sorted(pairs.items()))
    return ErrorAnalysis(
        split.name, tuple(classes), correct, len(split), confusion, errors, calibration
    )


def _calibrate(confidence: Tensor, is_correct: Tensor) -> Calibration:
    """Bin images by confidence, float64 (N,), with whether they are correct, bool (N,)."""
    edges = torch.arange(1, NUM_BINS, dtype=torch.float64) / NUM_BINS
    indices = torch.bucketize(confidence, edges)  # (low, high]
    counts = torch.bincount(indices, minlength=NUM_BINS)
    confidences = torch.bincount(indices, weights=confidence, minlength=NUM_BINS)
    correct = torch.bincount(indices, weights=is_correct.double(), minlength=NUM_BINS)
    bins = []
    for i, count in enumerate(counts.tolist()):
        confidence_mean = float(confidences[i]) / count if count else None
        accuracy = float(correct[i]) / count if count else None
        low, high = i / NUM_BINS, (i + 1) / NUM_BINS
        bins.append(CalibrationBin(low, high, count, confidence_mean, accuracy))
    gap = float((correct - confidences).abs().sum()) / len(confidence)
    return Calibration(tuple(bins), gap)
