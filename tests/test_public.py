"""The public surface of the package, and the example that uses it."""

from __future__ import annotations

import importlib
import inspect
import os
import subprocess
import sys
from pathlib import Path

import pytest

import whit
from whit.recipes.recipe import load_recipe
from whit.training.plan import make_plan

ROOT = Path(__file__).parents[1]


def test_exported_names() -> None:
    """Widening the surface is a decision, made by editing this test."""
    assert whit.__all__ == [
        "Audit",
        "AuditResult",
        "BudgetInfeasible",
        "Comparison",
        "Dataset",
        "ExportResult",
        "InputError",
        "Interrupted",
        "LoadedRun",
        "Plan",
        "Recipe",
        "RunFailed",
        "RunResult",
        "SearchResult",
        "Study",
        "WhitError",
        "audit",
        "compare",
        "export",
        "load_data",
        "load_recipe",
        "load_run",
        "plan",
        "report",
        "resume",
        "runs",
        "search",
        "study",
        "train",
    ]
    assert all(hasattr(whit, name) for name in whit.__all__)
    assert dir(whit) == whit.__all__  # what completion shows


def test_packages_do_not_hide_functions() -> None:
    """Importing the package `whit.runs` would replace the function of this name."""
    names = {path.stem for path in (ROOT / "src" / "whit").iterdir()} & set(whit.__all__)
    assert names == {"export", "runs"}
    for name in names:
        assert inspect.ismodule(importlib.import_module(f"whit.{name}"))
        assert inspect.isfunction(getattr(whit, name))


def test_values_print_well_at_a_prompt_and_in_a_notebook() -> None:
    planned = make_plan(load_recipe("published-16848"))
    assert repr(planned) == str(planned)
    assert "Verdict: missed." in str(planned)
    html = planned._repr_html_()
    assert html.startswith("<")
    assert "16,848" in html
    judgement = whit.audit("published-16848")
    assert "20 is not &lt; 20" in judgement._repr_html_()


def test_import_whit_leaves_torch_alone() -> None:
    code = "import sys, whit; sys.exit(bool({'torch', 'pydantic'} & sys.modules.keys()))"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_example_runs(tmp_path: Path) -> None:
    env = {**os.environ, "OMP_NUM_THREADS": "2"}
    example = ROOT / "examples" / "own_model.py"
    command = [sys.executable, str(example)]
    done = subprocess.run(
        command, cwd=tmp_path, env=env, capture_output=True, text=True, check=True
    )
    assert "Test set: Average loss" in done.stdout
    assert "Verdict: " in done.stdout
    (run,) = (tmp_path / "runs").iterdir()
    assert (run / "result.json").is_file()
    judgement = whit.audit(f"{example}:Net")
    assert judgement.verdict == "pending"
    assert judgement.audit.params.total < 20_000


def test_another_model_leaves_the_sizes_of_the_first_behind() -> None:
    """As the tutorial has it: `whit train sprint --set model.name=my_model.py:Net`."""
    name = f"model.name={ROOT / 'examples' / 'own_model.py'}:Net"
    planned = make_plan(load_recipe("sprint").with_overrides([name]))
    assert planned.audit.params.total == whit.audit(name.partition("=")[2]).metrics.params
    resized = load_recipe("sprint").with_overrides(["model.widths=[8, 8]", "model.name=plain"])
    assert resized.model.arguments == {"widths": [8, 8]}


def test_a_study_from_python(
    easy_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(easy_recipe.parent)
    found = whit.study(easy_recipe, seeds=2, out=tmp_path / "studies", jobs=2, quiet=True)
    assert found.failures == ()
    assert found.comparison is not None
    (group,) = found.comparison.groups
    assert len(group.accuracy.values) == 2
    assert repr(found) == str(found)
    assert "95 % interval" in str(found)
