"""The numbers of a report, each counted another way."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from easy_data import easy_split
from whit.data.splits import Split
from whit.reports.wording import format_percent
from whit.runs.reader import RunRecord, read_run
from whit.training.evaluation import evaluate, predict
from whit.verification.error_analysis import NUM_BINS, analyze_logits, analyze_run
from whit.verification.restore import load_run_model


def run_logits(record: RunRecord) -> tuple[torch.Tensor, Split, tuple[str, ...]]:
    trained = load_run_model(record)
    logits = predict(trained.predictor, trained.split, trained.normalize)
    return logits, trained.split, trained.dataset.classes


def test_the_numbers_counted_another_way(runs: Path) -> None:
    record = read_run(runs / "seed-0")
    found = analyze_run(load_run_model(record))
    logits, split, classes = run_logits(record)
    labels, said = split.labels.tolist(), logits.argmax(1).tolist()
    assert found.classes == classes
    assert (found.correct, found.total) == (sum(map(int.__eq__, labels, said)), len(labels))
    assert record.result is not None
    assert found.correct == record.result["test"]["correct"]
    for true in range(10):
        for guess in range(10):
            count = sum(pair == (true, guess) for pair in zip(labels, said, strict=True))
            assert found.confusion.get((true, guess), 0) == count
    assert sum(found.confusion.values()) == found.total
    assert sum(count for _, _, count in found.confused_pairs) == found.num_errors > 5
    for label, of_class in enumerate(found.by_class):
        assert of_class.total == labels.count(label)
        assert of_class.correct == found.confusion.get((label, label), 0)
    trained = load_run_model(record)
    assert found.correct == evaluate(trained.predictor, split, trained.normalize).correct


def test_errors_come_worst_first(runs: Path) -> None:
    record = read_run(runs / "seed-0")
    found = analyze_run(load_run_model(record))
    assert record.result is not None
    assert sorted(error.index for error in found.errors) == record.result["test"]["misclassified"]
    chances = [error.probabilities[error.true] for error in found.errors]
    assert chances == sorted(chances)
    for error in found.errors:
        assert error.true != error.predicted
        assert max(error.probabilities) == error.probabilities[error.predicted]
        assert sum(error.probabilities) == pytest.approx(1, abs=1e-5)
        assert not error.disputed


def test_calibration_against_its_definition() -> None:
    """Guo et al. 2017, in a plain loop."""
    torch.manual_seed(0)
    split = easy_split("test", 500)
    logits = 3 * torch.randn(500, 10)
    logits[range(250), split.labels[:250]] += 4
    found = analyze_logits(logits, split, tuple("0123456789")).calibration
    bins: list[list[tuple[float, bool]]] = [[] for _ in range(NUM_BINS)]
    for row, label in zip(logits.tolist(), split.labels.tolist(), strict=True):
        powers = np.exp(np.array(row) - max(row))
        chances = powers / powers.sum()
        place = next(m for m in range(NUM_BINS) if chances.max() <= (m + 1) / NUM_BINS)
        bins[place].append((float(chances.max()), bool(chances.argmax() == label)))
    gap = 0.0
    for known, one in zip(bins, found.bins, strict=True):
        assert len(known) == one.count
        if known:
            sure, right = (float(np.mean(column)) for column in zip(*known, strict=True))
            assert one.confidence == pytest.approx(sure, abs=1e-6)
            assert one.accuracy == pytest.approx(right)
            gap += len(known) / 500 * abs(sure - right)
    assert found.error == pytest.approx(gap, abs=1e-6)
    assert sum(one.count for one in found.bins) == 500


def test_logits_that_are_no_numbers_are_counted_as_wrong() -> None:
    split = easy_split("test", 20)
    found = analyze_logits(torch.full((20, 10), torch.nan), split, tuple("0123456789"))
    assert found.correct == 2  # argmax of nothing is the first class
    assert found.calibration.error == pytest.approx(0.1)


def test_shares_are_never_rounded_up() -> None:
    assert format_percent(0.99999) == "99.9 %"
    assert format_percent(0.0004) == "< 0.1 %"
    assert format_percent(0.0) == "0.0 %"
    assert format_percent(1.0) == "100.0 %"
    assert format_percent(0.3) == "30.0 %"
