"""Every figure of the records is that of the run folders; what a claim needs, and counts."""

from __future__ import annotations

import argparse
import json
import re
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import check
import claims
import int8
import pages
import precision
import published
import pytest
import reproduce
import validation
from claims import CLAIMS, ONE_PASS, Attempt, Claim, read_attempts, write_attempt
from evidence import BoardCost, Evidence, Int8Row, find_evidence, read_int8, weights_sha256

from export import read
from whit.export.quantization import calibration
from whit.recipes.recipe import load_recipe
from whit.runs.reader import RunRecord, read_run

RECORDS = Path(__file__).parents[1] / "records"


def test_every_figure_is_that_of_the_run_folders() -> None:
    assert check.problems() == []


@pytest.fixture
def claim(tmp_path: Path) -> Claim:
    """The claim of sprint with a copy of its runs."""
    shutil.copytree(RECORDS / "sprint", tmp_path / "sprint")
    copied = replace(CLAIMS["sprint"], root=tmp_path)
    assert check.claim_problems(copied) == []
    return copied


def test_a_changed_cell_is_named(claim: Claim) -> None:
    page = claim.folder / "README.md"
    evidence = find_evidence(claim.folder, "sprint")
    assert evidence is not None
    right = evidence.correct[0]
    wrong = right + 1
    page.write_text(page.read_text().replace(f"| {right} |", f"| {wrong} |", 1))
    (problem,) = check.claim_problems(claim)
    assert re.match(
        rf".*sprint/README\.md, line \d+: .*{wrong}.*; the run folders give .*{right}", problem
    )


def test_an_edited_result_is_named(claim: Claim) -> None:
    (file,) = claim.folder.glob("sprint-*/seed-*3/result.json")
    result = json.loads(file.read_text())
    result["test"]["correct"] = 9999
    file.write_text(json.dumps(result))
    edited, *_ = check.claim_problems(claim)
    assert str(file.parent) in edited


def test_a_study_without_an_attempt_is_named(
    claim: Claim, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims, "ATTEMPTS", tmp_path / "none.jsonl")
    assert "sprint: no attempt of sprint in attempts.jsonl" in check.claim_problems(claim)


def test_a_figure_of_one_forward_pass_is_of_the_same_weights(claim: Claim) -> None:
    row = {"recipe": "sprint", "seed": 0, "weights_sha256": "of others", "correct": 9940}
    (claim.folder / ONE_PASS).write_text(json.dumps(row) + "\n")
    problems = check.claim_problems(claim)
    assert len([problem for problem in problems if "has no row for seed-" in problem]) == 10


def run_of(seed: int, correct: int, evaluations: int = 1) -> RunRecord:
    (any_run,) = (RECORDS / "sprint").glob("*/seed-*3")
    run = read_run(any_run)
    assert run.result is not None
    test = {**run.result["test"], "correct": correct, "evaluations": evaluations}
    environment = {**run.environment, "seed": seed}
    return replace(run, result={**run.result, "test": test}, environment=environment)


COUNTS = [9944, 9940, 9942, 9941, 9952, 9939, 9945, 9952, 9941, 9947]  # in the mean 99.443 %


@pytest.fixture(scope="module")
def runs() -> tuple[RunRecord, ...]:
    return tuple(run_of(1000 + i, count) for i, count in enumerate(COUNTS))


def test_a_claim_needs_ten_new_seeds_and_an_interval_above_its_limit(
    runs: tuple[RunRecord, ...],
) -> None:
    def objections(limit: float, *runs: RunRecord) -> list[str]:
        return Claim("sprint", "", limit, ("sprint",)).objections(Evidence("sprint", runs))

    assert objections(99.40, *runs) == []
    assert objections(99.42, *runs) == [
        "the lower end of the one-sided interval, 99.415 %, is below 99.42 %"
    ]
    assert objections(99.0, *runs[:9]) == ["9 of 10 seeds"]
    assert objections(99.0, run_of(7, 9944), *runs[1:]) == [
        "seeds below 1000, which tuning may have used"
    ]
    assert objections(99.0, run_of(1000, 9944, evaluations=2), *runs[1:]) == [
        "the test split was evaluated more than once for a seed"
    ]


def test_a_claim_may_limit_its_worst_seed_and_its_costs(runs: tuple[RunRecord, ...]) -> None:
    at_most = {"parameters": 19_000, "epochs": 4}
    claim = Claim("sprint", "", 99.40, ("sprint",), worst=99.40, at_most=at_most)
    assert claim.objections(Evidence("sprint", runs)) == [
        "the worst seed, 99.39 %, is below 99.40 %",
        "19,322 parameters, above 19,000",
    ]


def test_a_verdict_names_the_reasons(runs: tuple[RunRecord, ...]) -> None:
    claim = Claim("sprint", "fewest epochs", 99.40, ("sprint",))
    assert claim.verdict(Evidence("sprint", runs)) == "yes"
    one_epoch = replace(claim, at_most={"epochs": 1})
    assert one_epoch.verdict(Evidence("sprint", runs)) == "no: 3 epochs, above 1"
    assert one_epoch.verdict(Evidence("sprint", runs[:1])) == (
        "no: 1 of 10 seeds; 3 epochs, above 1"
    )


def int8_row(run: RunRecord, correct: int, instructions: float = 1.5e6) -> Int8Row:
    board = BoardCost("Cortex-M4", 100, instructions, 1_600_000, 20_000, 1544, 1972, "gcc; QEMU")
    return Int8Row("sprint", run.seed or 0, weights_sha256(run), correct, 1936, board)


def test_claims_about_microcontrollers_are_judged_in_int8(runs: tuple[RunRecord, ...]) -> None:
    claim = replace(CLAIMS["quickest"], recipes=("sprint",))
    rows = tuple(map(int8_row, runs, [count - 10 for count in COUNTS]))
    evidence = Evidence("sprint", runs, rows)
    (objection,) = claim.objections(evidence)
    assert objection == "the lower end of the one-sided interval, 99.315 %, is below 99.40 %"
    cells = dict(zip(pages.HEAD, pages.cells(claim, evidence, ""), strict=True))
    assert cells["judged by"] == "1,500,000 instructions, 1,544 bytes of RAM, 1,972 bytes of stack"
    assert cells["test, mean ± sd %"] == "99.343 ± 0.047"  # in float32 99.443
    assert cells["worst %"] == "99.29"
    good = tuple(map(int8_row, runs, COUNTS))
    assert claim.objections(Evidence("sprint", runs, good)) == []
    slow = (*good[:9], int8_row(runs[9], 9947, 2.1e6))
    assert claim.objections(Evidence("sprint", runs, slow)) == [
        "2,100,000 instructions, above 2,000,000"
    ]


def test_no_figure_in_int8_is_shown_before_every_seed_is_measured(
    runs: tuple[RunRecord, ...],
) -> None:
    claim = replace(CLAIMS["tiniest"], recipes=("sprint",))
    evidence = Evidence("sprint", runs, (int8_row(runs[0], 9960),))
    assert claim.objections(evidence) == ["1 of 10 seeds measured in int8"]
    cells = dict(zip(pages.HEAD, pages.cells(claim, evidence, ""), strict=True))
    assert {cells[name] for name in ("judged by", "test, mean ± sd %", "worst %")} == {"-"}


def test_a_run_without_its_int8_form_is_named(claim: Claim) -> None:
    in_int8 = replace(claim, costs=("bytes of constants",))
    missing = [p for p in check.claim_problems(in_int8) if "int8.jsonl: has no row for seed-" in p]
    assert len(missing) == 10


def test_a_claim_without_runs_is_harmless(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = Claim("not-begun", "an aim", 99.40, ("no-such-recipe",), root=tmp_path)
    assert find_evidence(begun.folder, "no-such-recipe") is None
    assert check.claim_problems(begun) == []
    monkeypatch.setattr(pages, "PAGE", tmp_path / "README.md")
    monkeypatch.setattr(pages, "CLAIMS", {begun.name: begun})
    pages.write_pages([begun])
    assert not begun.folder.exists()
    assert "an aim" not in pages.PAGE.read_text()


def test_the_int8_form_of_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    trained = read.trained()
    test = trained.dataset.test
    few = replace(test, images=test.images[:50], labels=test.labels[:50])
    loaded = replace(trained, dataset=replace(trained.dataset, test=few))
    monkeypatch.setattr(int8, "load_run_model", lambda run: loaded)
    monkeypatch.setattr(int8, "IMAGES", 1)
    monkeypatch.setattr(calibration, "NUM_IMAGES", 20)
    row = int8.measure_run(trained.run, int8.HAS_TOOLS)
    assert 48 <= row.correct <= 50
    assert 18_650 < row.constant_bytes < 20_000
    assert bool(row.board) == int8.HAS_TOOLS
    if row.board:
        assert 3e6 < row.board.instructions == row.board.max_instructions
        assert row.board.ram > 4_000
        assert "arm-none-eabi-gcc" in row.board.tools


def test_runs_are_measured_in_int8_once_and_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, correct = run_of(1000, 9944), [9944]
    monkeypatch.setattr(int8, "measure_run", lambda run, _: int8_row(run, correct[-1]))
    evidence = [Evidence("sprint", (run,))]
    (row,) = int8.measure_missing(tmp_path, evidence, on_board=True)
    assert read_int8(tmp_path) == {weights_sha256(run): row}
    correct.append(9943)  # as if the export had changed
    assert list(int8.measure_missing(tmp_path, evidence, on_board=True)) == []
    assert list(int8.measure_missing(tmp_path, evidence, on_board=True, again=True)) == [
        replace(row, correct=9943)
    ]


def test_a_differing_int8_form_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = run_of(1000, 9944)
    row = int8_row(run, 9944)
    monkeypatch.setattr(int8, "measure_run", lambda run, on_board: row if on_board else other)
    other = replace(row, correct=9943, board=None)
    monkeypatch.setattr(int8, "HAS_TOOLS", False)
    assert int8.differences(row, run) == ["in int8, correct is 9943, not 9944"]
    assert "not compared: gcc; QEMU is needed" in capsys.readouterr().err
    monkeypatch.setattr(int8, "HAS_TOOLS", True)
    monkeypatch.setattr(int8, "tool_versions", lambda: "gcc; QEMU")
    assert int8.differences(int8_row(run, 9944, 2e6), run) == [
        "in int8, instructions is 1500000.0, not 2000000.0"
    ]


def test_an_export_that_changes_the_answers_is_another_attempt(
    claim: Claim, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims, "ATTEMPTS", tmp_path / "attempts.jsonl")
    in_int8, correct = replace(claim, costs=("bytes of constants",)), [9944]
    monkeypatch.setattr(int8, "measure_run", lambda run, _: int8_row(run, correct[-1]))
    reproduce.measure_int8(in_int8, "0-9", again=False)
    reproduce.measure_int8(in_int8, "0-9", again=True)
    assert read_attempts() == []
    correct.append(9945)
    reproduce.measure_int8(in_int8, "0-9", again=True)
    (attempt,) = read_attempts()
    assert attempt.recipe == "sprint, exported again"
    assert attempt.correct == (9945,) * 10


def test_a_resumed_study_is_one_attempt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "ATTEMPTS", tmp_path / "attempts.jsonl")
    begun = Attempt("2026-11-27", "sprint", "sprint", "1000-1009", (), None, "here", "sprint-1")
    write_attempt(begun)
    write_attempt(replace(begun, correct=(9940,), mean=99.4))
    write_attempt(replace(begun, recipe_id="sprint-2"))
    assert [(one.recipe_id, one.correct) for one in read_attempts()] == [
        ("sprint-1", (9940,)),
        ("sprint-2", ()),
    ]


def test_quantiles_of_a_published_figure() -> None:
    ours = [9940, 9942, 9942, 9945]
    assert published.quantile(9939, ours) == 0
    assert published.quantile(9942, ours) == 0.5
    assert published.quantile(9946, ours) == 1


def test_a_mean_is_not_rounded_up() -> None:
    assert pages.mean_text((99.39, 99.40, 99.4099)) == "99.399 ± 0.010"
    assert pages.mean_text((99.4,)) == "99.40"


def test_ranks_share_their_mean() -> None:
    assert validation._ranks([99.4, 99.6, 99.4, 99.5]) == [1.0, 3.5, 1.0, 2.5]


def test_rows_of_an_older_recipe_are_not_mixed_with_those_of_a_newer() -> None:
    old, new, other = (
        validation.Row(name, f"{name}-{number}", "block", 5, 0, 9930, (9940,), "EPYC")
        for name, number in (("sprint", 1), ("sprint", 2), ("sharpest", 1))
    )
    assert validation.newest([old, other, new]) == [other, new]


def precision_rows(*gaps: int) -> list[precision.Row]:
    """A pair of trainings for each seed: what bf16 has more correct than fp32."""
    return [
        precision.Row("sprint", "sprint-1", name, seed, seed, 9930 + seed + more, seconds, "EPYC")
        for seed, gap in enumerate(gaps)
        for name, more, seconds in (("fp32", 0, 20.0), ("bf16", gap, 10.0 + seed))
    ]


def test_what_bf16_costs_is_a_paired_difference() -> None:
    row = precision.table(precision_rows(-3, -1, 0, -4)).splitlines()[-1]
    assert row == (
        "| sprint-1 | 4 | 99.315 ± 0.013 | 99.295 ± 0.021 | -2.00 | -0.020 (-0.049 to +0.009) "
        "| 0.12 | 0.018 | 0.57 |"
    )
    assert "sprint-1 | 4 |" in precision.page(precision_rows(-3, -1, 0, -4))


def test_a_seed_without_both_precisions_is_no_pair() -> None:
    rows = precision_rows(-3, -1, 0)[:-1]
    assert [fp32.seed for fp32, _ in precision.find_pairs(rows, "sprint-1")] == [0, 1]
    assert len(precision.table(rows[:3]).splitlines()) == 2  # no spread is known of one pair
    assert "| -2.00 | -0.020 | - | 0.000 |" in precision.table(precision_rows(-2, -2))


def test_seconds_are_compared_on_one_machine_only() -> None:
    first, second, *others = precision_rows(-2, -2, -1)
    rows = [first, replace(second, machine="another", seconds=99.0), *others]
    assert precision.table(rows).endswith("| 0.57 |")  # 11 of 20 and 12 of 20


def test_only_what_has_no_row_is_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "RUNS", tmp_path / "runs.jsonl")
    studies = []

    def train(
        recipes: list[str], seed: int, keys: list[str], jobs: int, out: Path
    ) -> dict[str, RunRecord]:
        precisions = [load_recipe(path).train.precision for path in recipes]
        studies.append((seed, keys[-1], precisions))
        return dict.fromkeys(recipes, read.trained().run)

    monkeypatch.setattr(precision, "train_on_val", train)
    precision.train(["sprint"], [7], 2, tmp_path)
    assert studies == [(7, "data.val_block=1", ["fp32", "bf16"])]
    rows = precision.read_rows()
    precision.RUNS.write_text(json.dumps(asdict(rows[0])) + "\n")
    precision.train(["sprint"], [7, 8], 2, tmp_path)
    assert [which for *_, which in studies[1:]] == [["bf16"], ["fp32", "bf16"]]
    assert [(row.seed, row.precision) for row in precision.read_rows()] == [
        (7, "fp32"), (7, "bf16"), (8, "fp32"), (8, "bf16")
    ]  # fmt: skip


def test_precision_needs_bf16_and_seeds_for_tuning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "has_bf16", lambda: False)
    monkeypatch.setattr("sys.argv", ["precision.py"])
    with pytest.raises(SystemExit, match="does not multiply bf16"):
        precision.main()
    assert precision.parse_seeds("0-19") == range(20)
    for seeds in ("990-1000", "5", "9-3"):
        with pytest.raises(argparse.ArgumentTypeError, match="both below 1000"):
            precision.parse_seeds(seeds)
