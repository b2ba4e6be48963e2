"""Intervals and p-values against published tables and plain twins; sentences that follow them."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from statistics import mean, stdev

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.forging import reseal
from harness.records import runs_of
from whit.errors import InputError
from whit.experiments.comparison import compare, compare_runs
from whit.experiments.seed_group import SeedGroup
from whit.experiments.statistics import (
    SampleStats,
    SignificanceTest,
    correct_tests,
    describe_correction,
    format_p,
    holm_adjust,
    mcnemar_test,
    paired_t_test,
    t_critical,
    t_two_sided_p,
    welch_t_test,
)
from whit.runs.reader import read_run
from whit.system.display.line_plot import PERCENT, ticks


@pytest.mark.parametrize(
    ("freedom", "level", "quantile"),
    # A table of Student's t as printed in textbooks.
    [
        (1, 0.95, 12.706),
        (2, 0.95, 4.303),
        (4, 0.95, 2.776),
        (9, 0.95, 2.262),
        (9, 0.99, 3.250),
        (29, 0.95, 2.045),
        (120, 0.95, 1.980),
    ],
)
def test_quantiles_are_those_of_the_tables(freedom: int, level: float, quantile: float) -> None:
    assert t_critical(freedom, level) == pytest.approx(quantile, abs=5e-4)
    assert t_two_sided_p(quantile, freedom) == pytest.approx(1 - level, abs=2e-4)


def by_simpson(t: float, freedom: float) -> float:
    """P(|T| >= t) by summing the density: the plain twin."""
    scale = math.gamma((freedom + 1) / 2) / (math.sqrt(freedom * math.pi) * math.gamma(freedom / 2))
    steps = 2000
    density = [
        scale * (1 + (t * i / steps) ** 2 / freedom) ** (-(freedom + 1) / 2)
        for i in range(steps + 1)
    ]
    inner = density[0] + density[-1] + 4 * sum(density[1:-1:2]) + 2 * sum(density[2:-1:2])
    return 1 - 2 * inner * t / steps / 3


@given(st.floats(0.01, 12), st.floats(1, 200))
def test_p_values_are_those_of_the_plain_twin(t: float, freedom: float) -> None:
    assert t_two_sided_p(t, freedom) == pytest.approx(by_simpson(t, freedom), abs=1e-6)


def test_an_interval_of_a_mean() -> None:
    values = (99.40, 99.50, 99.45, 99.55, 99.60)
    sample = SampleStats(values)
    half = 2.7764 * stdev(values) / math.sqrt(5)
    assert sample.interval == pytest.approx((mean(values) - half, mean(values) + half), abs=1e-4)
    assert SampleStats((99.4,)).interval is None


def test_pairs_are_seen_where_two_samples_are_not() -> None:
    """Seeds that differ much, and a recipe that is a little better with each."""
    of_a = [99.1, 99.3, 99.5, 99.7, 99.9]
    of_b = [value + gap for value, gap in zip(of_a, (0.05, 0.06, 0.04, 0.05, 0.05), strict=True)]
    found = paired_t_test("a", "b", list(zip(of_a, of_b, strict=True)))
    assert found.is_significant
    assert found.seeds_needed is None
    assert str(found).endswith("statistically significant, b is better than a.")
    assert "a is better than b" in str(paired_t_test("a", "b", list(zip(of_b, of_a, strict=True))))
    apart = welch_t_test("a", "b", of_a, of_b)
    assert not apart.is_significant
    assert apart.interval is not None
    assert apart.interval[0] < 0 < apart.interval[1]


def test_welch_as_in_a_worked_example() -> None:
    """Two samples of unequal spread; t = -2.46, 24.99 degrees (a standard worked example)."""
    a = [27.5, 21.0, 19.0, 23.6, 17.0, 17.9, 16.9, 20.1, 21.9, 22.6, 23.1, 19.6, 19.0, 21.7, 21.4]
    b = [27.1, 22.0, 20.8, 23.4, 23.4, 23.5, 25.8, 22.0, 24.8, 20.2, 21.9, 22.1, 22.9, 20.5, 24.4]
    found = welch_t_test("a", "b", a, b)
    assert found.difference_pp == pytest.approx(mean(b) - mean(a))
    assert found.p_value == pytest.approx(0.021, abs=0.001)


def test_how_many_more_seeds_would_suffice() -> None:
    """The number that is named does make a difference of that size and spread significant."""
    gaps = (0.09, -0.05, 0.06, -0.03, 0.04)
    found = paired_t_test("a", "b", [(99.0, 99.0 + gap) for gap in gaps])
    assert found.seeds_needed is not None
    assert f"about {found.seeds_needed} more seeds per recipe would" in str(found)
    seeds = len(gaps) + found.seeds_needed
    error = stdev(gaps) / math.sqrt(seeds)
    assert abs(mean(gaps)) > t_critical(seeds - 1) * error
    error = stdev(gaps) / math.sqrt(seeds - 1)
    assert abs(mean(gaps)) <= t_critical(seeds - 2) * error


def test_no_difference_is_not_promised_to_more_seeds() -> None:
    found = paired_t_test("a", "b", [(99.0, 99.1), (99.1, 99.0)])
    assert (found.is_significant, found.seeds_needed) == (False, None)
    assert "even 1,000 seeds could not resolve a difference this small" in str(found)


@pytest.mark.parametrize(
    "found",
    [
        paired_t_test("a", "b", [(99.0, 99.0), (99.1, 99.1)]),
        paired_t_test("a", "b", [(99.40, 99.41), (99.52, 99.53)]),  # apart by one image, twice
        welch_t_test("a", "b", [99.50, 99.50], [99.49]),
        welch_t_test("a", "b", [99.50, 99.50], [99.40, 99.40]),
    ],
)
def test_seeds_without_any_spread_prove_nothing(found: SignificanceTest) -> None:
    assert (found.p_value, found.interval, found.seeds_needed) == (None, None, None)
    assert not found.is_significant
    assert "no variance): no significance test is possible" in str(found)
    assert str(found).endswith("train more seeds per recipe.")


def holm_by_definition(p_values: list[float]) -> list[float]:
    """The plain twin: the smallest level at which Holm's procedure rejects each hypothesis.

    At level alpha it goes through the ordered p-values and rejects the k-th while it is at most
    alpha / (m - k + 1). The adjusted p-value is found by trying all levels that could matter.
    """
    m = len(p_values)
    levels = sorted({min(1.0, n * p) for p in p_values for n in range(1, m + 1)} | {1.0})

    def rejected(alpha: float) -> set[int]:
        found: set[int] = set()
        for k, i in enumerate(sorted(range(m), key=lambda i: p_values[i]), start=1):
            if (m - k + 1) * p_values[i] > alpha:
                break
            found.add(i)
        return found

    return [next((a for a in levels if i in rejected(a)), 1.0) for i in range(m)]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_is_the_stepwise_procedure(p_values: list[float]) -> None:
    assert holm_adjust(p_values) == pytest.approx(holm_by_definition(p_values))


def test_holm_as_in_a_worked_example() -> None:
    """As `p.adjust(c(0.01, 0.04, 0.03, 0.005), "holm")` of R."""
    assert holm_adjust([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_several_comparisons_are_corrected_and_it_is_said() -> None:
    gaps = (0.09, 0.01, 0.06, 0.0, 0.04)
    tests = [
        paired_t_test("a", name, [(99.0, 99.0 + gap) for gap in gaps], 3) for name in ("b", "c")
    ]
    tests.append(welch_t_test("a", "d", [99.5, 99.5], [99.5, 99.5], 3))  # no test is possible
    assert [test.p_value for test in tests[:2]] == pytest.approx([0.0804] * 2, abs=0.01)
    corrected = correct_tests(tests)
    assert [test.adjusted_p for test in corrected[:2]] == pytest.approx(
        [2 * (test.p_value or 0) for test in tests[:2]]
    )
    assert corrected[2] == tests[2]
    assert ", Holm-adjusted for 2 comparisons p = 0." in str(corrected[0])
    assert "adjusted for 2 comparisons (Holm's method)" in (describe_correction(corrected) or "")
    assert correct_tests(tests[:1]) == (tests[0],)
    assert describe_correction(tests[:1]) is None


def test_the_correction_decides_significance_and_the_seeds_that_are_needed() -> None:
    pairs = [(99.0, 99.0 + gap) for gap in (0.09, 0.02, 0.06, 0.01, 0.05)]
    alone = paired_t_test("a", "b", pairs)
    assert alone.is_significant
    corrected = correct_tests([paired_t_test("a", name, pairs, 4) for name in "bcde"])
    assert not any(test.is_significant for test in corrected)
    seeds_needed = corrected[0].seeds_needed
    assert seeds_needed is not None
    gaps = [b - a for a, b in pairs]
    for more, is_enough in ((seeds_needed, True), (seeds_needed - 1, False)):
        n = len(gaps) + more
        half = t_critical(n - 1, 1 - 0.05 / 4) * stdev(gaps) / math.sqrt(n)
        assert (half < mean(gaps)) == is_enough


def test_a_p_value_is_never_printed_as_zero() -> None:
    assert format_p(0.0) == format_p(1e-300) == "p < 0.0001"
    assert format_p(0.0001) == "p = 0.0001"
    assert format_p(0.0123) == "p = 0.012"
    found = mcnemar_test("a", "b", 5.0, 0, 2000)  # 2 / 2**2000 is zero as a float
    assert found.p_value == 0.0
    assert "p < 0.0001" in str(found)
    assert repr(found) == str(found)
    assert found.to_json()["p_value"] > 0


def test_percentages_in_json_are_the_exact_decimals() -> None:
    """96.8625, not 96.86250000000001."""
    (group,) = compare_runs(runs_of("fewest-epochs")[:2]).groups[:1]
    many = SeedGroup("x", group.runs * 3)
    for found in (many, group):
        text = json.dumps(compare([found, group]).to_json())
        numbers: list[str] = []
        json.loads(text, parse_float=numbers.append)
        digits = [len(number.partition(".")[2]) for number in numbers if "e" not in number]
        assert max(digits) <= 6, numbers


def test_compare_counts_seeds_that_diverged_and_says_what_differs(tmp_path: Path) -> None:
    """The same words as a study's: a seed that diverged is counted as missed, other data noted."""
    recorded = runs_of("fewest-epochs")[:3]
    whole = recorded[0]
    for run in recorded:
        shutil.copytree(run, tmp_path / "some" / run.name)
    kept, lost_run, foreign = [tmp_path / "some" / run.name for run in recorded]
    seeds = [read_run(run).seed for run in recorded]
    result = json.loads((lost_run / "result.json").read_text())
    lost = {"state": "diverged", "diverged": {"epoch": 1, "step": 3, "loss": None, "lr": 0.1}}
    reseal(lost_run, result | lost)
    environment = json.loads((foreign / "environment.json").read_text())
    other = json.dumps(environment | {"data_sha256": "0" * 64})
    (foreign / "environment.json").write_text(other)
    reseal(foreign)
    some = compare_runs([tmp_path / "some", whole]).groups[0]
    assert [run.path for run in some.runs] == [kept, foreign]
    assert [run.path for run in some.diverged] == [lost_run]
    correct = [run.result["test"]["correct"] for run in some.runs if run.result]
    assert (some.num_passed, some.num_judged) == (sum(count >= 9940 for count in correct), 3)
    assert any(
        f"diverged with seed {seeds[1]}: excluded from the mean" in note for note in some.notes
    )
    assert any("runs differ in data: 000000000000 (1)" in note for note in some.notes)


def test_a_seed_that_is_there_twice_counts_once(tmp_path: Path) -> None:
    """Else the same run, copied, would be two seeds without any spread."""
    first, second, whole = runs_of("fewest-epochs")[:3]
    for run, name in ((first, "first"), (second, "second"), (first, "third")):
        shutil.copytree(run, tmp_path / "some" / name)
    some = compare_runs([tmp_path / "some", whole]).groups[0]
    assert [run.path.name for run in some.runs] == ["first", "second"]
    assert some.notes == [
        f"some: seed {read_run(first).seed} occurs again in {tmp_path}/some/third: counted once."
    ]


def test_one_seed_each_speaks_of_two_networks_only() -> None:
    found = mcnemar_test("a", "b", 0.2, 5, 25)
    # Twice the chance of 5 or fewer heads in 30 throws.
    assert found.p_value == pytest.approx(2 * sum(math.comb(30, k) for k in range(6)) / 2**30)
    assert "these two trained networks differ" in str(found)
    assert "is better than" not in str(found)
    assert mcnemar_test("a", "b", 0.0, 0, 0).p_value == 1.0


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """Two runs of one recipe with different seeds."""
    for run, name in zip(runs_of("fewest-epochs"), ("first", "second"), strict=False):
        shutil.copytree(run, tmp_path / name)
    return tmp_path / "first", tmp_path / "second"


@pytest.mark.parametrize(
    ("key", "value"),
    [("threads", 7), ("torch", "2.99.0"), ("processor", "another"), ("device", "cuda")],
)
def test_a_different_environment_is_shown(key: str, value: object, pair: tuple[Path, Path]) -> None:
    file = pair[1] / "environment.json"
    environment = json.loads(file.read_text())
    file.write_text(json.dumps(environment | {key: value}))
    reseal(pair[1])
    found = compare_runs(list(pair))
    now = [str(environment[key]), str(value)]
    assert found.to_json()["differences"] == {f"environment.{key}": now}
    assert f"environment.{key}" in str(found)
    assert f"environment.{key}" in found.html()


def test_a_run_is_not_compared_with_itself(pair: tuple[Path, Path]) -> None:
    first, second = pair
    link = first.parent / "link"
    link.symlink_to(first)
    for folders in ([first, first], [first, link, second], [first.parent, second]):
        with pytest.raises(InputError, match="a run is not compared with itself"):
            compare_runs(folders)


def test_copies_of_a_run_are_said(pair: tuple[Path, Path]) -> None:
    first, second = pair
    copy = shutil.copytree(first, first.parent / "copies" / "copy")
    found = compare_runs([first, second, copy])
    (note,) = found.to_json()["notes"]
    assert note.startswith("first and copy: 1 of their runs have equal weights")
    assert note in found.table(10_000)
    assert note in found.html()


def test_a_folder_of_several_recipes_gives_one_table(
    pair: tuple[Path, Path], tmp_path: Path
) -> None:
    for number, run in enumerate(runs_of("sharpest")[:2]):
        shutil.copytree(run, tmp_path / f"sharp-{number}")
    found = compare_runs([tmp_path])
    assert [(group.name, len(group.runs)) for group in found.groups] == [
        ("fewest-epochs", 2),
        ("sharpest", 2),
    ]
    assert len(found.evidence) == 1
    shutil.copytree(tmp_path, tmp_path.parent / f"{tmp_path.name}-studies" / "study")
    deeper = compare_runs([tmp_path.parent / f"{tmp_path.name}-studies"])
    assert [len(group.runs) for group in deeper.groups] == [2, 2]
    other = shutil.copytree(pair[0], tmp_path / "other" / "copy")
    names = [group.name for group in compare_runs([tmp_path, other]).groups]
    assert names == [f"{tmp_path.name}/fewest-epochs", f"{tmp_path.name}/sharpest", "copy"]
    shutil.rmtree(tmp_path / "sharp-0")
    shutil.rmtree(tmp_path / "sharp-1")
    with pytest.raises(InputError, match="2 runs of one recipe: give another run"):
        compare_runs([tmp_path])


def test_no_interval_reaches_beyond_what_an_accuracy_can_be() -> None:
    assert SampleStats((99.0, 100.0)).interval == (pytest.approx(93.147, abs=1e-3), 100.0)
    assert SampleStats((0.0, 1.0)).interval == (0.0, pytest.approx(6.853, abs=1e-3))
    found = paired_t_test("a", "b", [(0.0, 100.0), (10.0, 60.0)])
    assert found.interval == (-100.0, 100.0)
    assert "95 % interval -100.000 to +100.000" in str(found)


def test_no_axis_of_accuracies_reaches_beyond_100() -> None:
    for values in ((100.0, 100.0), (99.97, 100.0), (0.0, 0.0), (0.0, 100.0), (50.0, 50.0)):
        found = ticks(min(values), max(values), 5, PERCENT)
        assert 0 <= found[0] <= min(values)
        assert max(values) <= found[-1] <= 100
        assert len(found) >= 2
