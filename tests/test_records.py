"""Every figure of the records is that of the run folders; what a claim needs, and counts."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import check
import claims
import pages
import published
import pytest
import validation
from claims import CLAIMS, ONE_PASS, Attempt, Claim, Evidence, read_attempts, write_attempt

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
    page.write_text(page.read_text().replace("| 9952 |", "| 9953 |", 1))
    (problem,) = check.claim_problems(claim)
    assert re.match(
        r".*sprint/README\.md, line \d+: .*9953.*; the run folders give .*9952", problem
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


def test_a_claim_needs_ten_new_seeds_and_an_interval_above_its_limit() -> None:
    counts = [9944, 9940, 9942, 9941, 9952, 9939, 9945, 9952, 9941, 9947]
    runs = tuple(run_of(1000 + i, count) for i, count in enumerate(counts))
    assert Evidence("sprint", 99.40, runs).objections() == []
    assert Evidence("sprint", 99.42, runs).objections() == [
        "the lower end of the interval is below the limit"  # the mean is 99.443
    ]
    assert Evidence("sprint", 99.0, runs[:9]).objections() == ["9 of 10 seeds"]
    old = (run_of(7, 9944), *runs[1:])
    assert Evidence("sprint", 99.0, old).objections() == [
        "seeds below 1000, which tuning may have used"
    ]
    selected = (run_of(1000, 9944, evaluations=2), *runs[1:])
    assert Evidence("sprint", 99.0, selected).objections() == [
        "the test split was evaluated more than once for a seed"
    ]


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
