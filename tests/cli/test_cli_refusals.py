"""Every wrong input gives one clear message and exit code 2, and writes nothing.

The message is all of standard error, and standard output stays empty, also with `--json`. Golden
files in tests/golden/cli/refused/ have each command and its message.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from calling import Done

LONG = "x" * 300

WRONG = {
    # recipes
    "recipe-unknown": "plan sprnt",
    "recipe-unknown-path": "train nowhere/net.toml",
    "recipe-long-name": f"plan {LONG}",
    "recipe-not-toml": "plan no.toml.toml",
    "recipe-binary": "plan binary.toml",
    "recipe-huge": "plan huge.toml",
    "recipe-long-number": "plan long-number.toml",
    "recipe-nested": "plan deep.toml",
    "recipe-empty": "plan empty.toml",
    "recipe-folder": "plan a-folder",
    "recipe-unreadable": "plan /proc/self/mem",
    "recipe-endless": "plan /dev/zero",
    "recipe-every-table-wrong": "train keys.toml",
    "recipe-schema-1": "plan schema-1.toml",
    "recipe-schema-3": "plan schema-3.toml",
    "recipes-unknown": "recipes sprnt",
    "recipes-keys-of-one": "recipes --keys sprint",
    # base
    "base-unknown": "plan base-unknown.toml",
    "base-number": "plan base-number.toml",
    "base-circle": "plan base-circle.toml",
    "base-schema-1": "plan base-schema-1.toml",
    "base-and-wrong-keys": "plan base-keys.toml",
    "base-folder": "plan base-folder.toml",
    # --set
    "set-no-equals": "train easy.toml --set epochs",
    "set-unknown-keys": "train easy.toml --set train.epoch=3 --set trian.epochs=3",
    "set-into-no-table": "train easy.toml --set name.first=3",
    "set-many": "train easy.toml --set train.epochs=-1 --set train.batch_size=0 --set x",
    "set-huge-epochs": f"train easy.toml --set train.epochs={10**30}",
    "set-huge-number": f"train easy.toml --set train.epochs={'9' * 5000}",
    "set-huge-limit": f"train easy.toml --set budget.params='< {'9' * 5000}'",
    "set-schema-1": (
        "plan sprint --set model.views=5 --set train.evaluate=val --set average.decay=0.9 "
        "--set data.val=5000"
    ),
    "set-types": (
        "plan easy.toml --set eval.test=1 --set train.batch_size=2.5 --set optim.lr=high "
        "--set data.mean=0.1 --set eval.tta_shifts=5 --set train.precision=fp64 --set ema=true "
        "--set optim.betas=[0.9] --set optim.momentum=1"
    ),
    "set-a-number-for-a-list": "plan easy.toml --set model.strides=2",
    "set-deep": f"train easy.toml --set train.epochs={'[' * 5000}",
    "set-date": "train source.toml --set model.name=models.py:Net --set model.width=2020-01-01",
    "lr-nan": "plan easy.toml --set optim.lr=nan",
    "lr-inf": "plan easy.toml --set optim.lr=inf",
    "lr-negative": "plan easy.toml --set optim.lr=-0.1",
    "lr-huge": f"plan easy.toml --set optim.lr=1{'0' * 400}",
    "label-smoothing-one": "plan easy.toml --set train.label_smoothing=1",
    "dropout-ends-early": "plan easy.toml --set train.dropout_end=0.2",
    "limits-without-sign": "plan easy.toml --set budget.params=20000 --set budget.epochs='20'",
    "limits-with-the-wrong-sign": (
        "plan easy.toml --set budget.params='> 9' --set budget.accuracy='< 99'"
    ),
    "limit-over-100": "plan easy.toml --set budget.accuracy='>= 100.5'",
    "kind-unknown": "plan easy.toml --set budget.require='[\"dropuot\"]'",
    "kind-required-and-forbidden": "plan easy.toml --set budget.forbid='[\"gap\"]'",
    "schedule-unknown": "plan easy.toml --set schedule.name=cosin",
    "schedule-keys-of-another": "plan easy.toml --set schedule.name=cosine --set schedule.at=[0,1]",
    "schedule-falls": "plan easy.toml --set schedule.at='[0, 1, 0.5]'",
    "val-read-but-not-cut": "train sprint --set eval.each_epoch=val",
    # sizes against the data, and the model
    "val-takes-everything": "train easy.toml --set data.val_size=400",
    "batch-channels-and-shape": (
        "train source.toml --set model.name=models.py:TwelveClasses --set train.batch_size=401 "
        "--set data.mean=[0.1,0.1,0.1] --set data.std=[1,1,1]"
    ),
    "batch-larger-than-the-rest": (
        "train easy.toml --set train.batch_size=301 --set data.val_size=100"
    ),
    "model-unknown": "plan easy.toml --set model.name=plian",
    "model-every-key-wrong": "plan model.toml",
    "model-lists-of-wrong-length": "plan sizes.toml",
    "model-keys-for-a-fixed-one": "plan published-16848 --set model.widths=[8]",
    "model-shrinks-to-nothing": (
        "train easy.toml --set model.widths=[8,8,8,8,8,8] --set model.pool_after=[1,2,3,4,5,6]"
    ),
    "model-kernel-larger-than-the-map": (
        "train easy.toml --set model.widths=[8] --set model.kernels=[63] --set model.pool_after=[] "
        "--set model.paddings=[0]"
    ),
    "model-too-large-to-build": "plan easy.toml --set model.widths=[4096,4096,4096,4096]",
    # a user's own model
    "source-file-missing": "train source.toml --set model.name=model.py:Net",
    "source-class-missing": "plan source.toml --set model.name=models.py:Nett",
    "source-no-class": "plan source.toml --set model.name=models.py",
    "source-syntax": "plan easy.toml --set model.name=syntax.py:Net",
    "source-import": "plan easy.toml --set model.name=import.py:Net",
    "source-whole-file": "plan sprint --run-whole-file",
    "source-no-module": "plan source.toml --set model.name=models.py:NoModule",
    "source-keys": "plan source.toml --set model.name=models.py:Net --set model.widht=3",
    "source-constructor": "train source.toml --set model.name=models.py:BadConstructor",
    "source-forward": "train source.toml --set model.name=models.py:BadForward",
    "source-twelve-classes": "train source.toml --set model.name=models.py:TwelveClasses",
    "source-map": "train source.toml --set model.name=models.py:Map",
    "source-pair": "train source.toml --set model.name=models.py:Pair",
    "source-huge": "train source.toml --set model.name=models.py:Huge",
    # a model file, or a recipe, in the wrong place
    "model-file-with-a-recipe-alone": "train --recipe smallest",
    "model-file-and-wrong-recipe": (
        "train models.py:Net --recipe sprnt --set train.epoch=3 --set model.x=1 --seed x"
    ),
    "model-file-without-class": "plan models.py",
    "model-file-twice": "plan models.py:Net --set model.name=plain",
    "model-file-exported": "export models.py:Net --format c",
    "recipe-exported": "export sprint --format c",
    "model-file-reported": "report models.py:Net",
    "recipe-empty-name": "plan ''",
    "study-of-a-recipe-by-another": "study sprint --recipe smallest --seeds 2",
    # data
    "data-missing": "train easy.toml --set data.name=nowhere.npz",
    "data-misspelt": "data mnsit",
    "data-long-name": f"data {LONG}",
    "data-empty-folder": "train easy.toml --set data.name=a-folder",
    "data-not-an-npz": "data not-an.npz",
    "data-cut-npz": "train easy.toml --set data.name=cut.npz",
    "data-labels": "train easy.toml --set data.name=labels.npz",
    "data-idx": "train easy.toml --set data.name=idx",
    "data-circle": "data circle",
    # options of train
    "device-unknown": "train easy.toml --device gpu",
    "device-cuda": "train easy.toml --device cuda:9",
    "threads-zero": "train easy.toml --threads 0",
    "threads-negative": "train easy.toml --threads -1",
    "threads-many": "train easy.toml --threads 100000",
    "threads-text": "train easy.toml --threads abc",
    "seed-negative": "train easy.toml --seed -1",
    "seed-huge": f"train easy.toml --seed {2**63}",
    "seed-endless": f"train easy.toml --seed {'9' * 5000}",
    "seed-text": "train easy.toml --seed abc",
    "out-a-folder": "train easy.toml --out a-folder",
    "out-a-file": "train easy.toml --out easy.npz",
    "out-a-dangling-link": "train easy.toml --out dangling",
    "out-below-a-file": "train easy.toml --out easy.npz/run",
    "out-long-name": f"train easy.toml --out new/{LONG}",
    "options-all-at-once": (
        "train keys.toml --set x --seed -1 --threads 0 --device gpu --out a-folder"
    ),
    # audit
    "audit-missing": "audit nowhere",
    "audit-long-name": f"audit {LONG}",
    "audit-a-folder": "audit a-folder",
    "audit-unfinished": "audit spoilt/unfinished",
    "audit-no-weights": "audit spoilt/no-weights",
    "audit-recipe": "audit spoilt/recipe",
    "audit-cut-result": "audit spoilt/cut-result",
    "audit-list-result": "audit spoilt/list-result",
    "audit-typed-result": "audit spoilt/typed-result",
    "audit-empty-result": "audit spoilt/empty-result",
    "audit-cut-log": "audit spoilt/cut-log",
    "audit-typed-log": "audit spoilt/typed-log",
    "audit-empty-log": "audit spoilt/empty-log",
    "audit-environment": "audit spoilt/environment",
    "audit-cut-weights": "audit spoilt/cut-weights",
    "audit-other-weights": "audit spoilt/other-weights",
    "audit-weights-alone": "audit runs/easy-0/weights.safetensors",
    "audit-weights-missing": "audit nowhere.safetensors --recipe easy.toml",
    "audit-weights-of-another-model": "audit runs/easy-0/weights.safetensors --recipe wider.toml",
    "audit-set-without-recipe": "audit runs/easy-0 --set train.epochs=3",
    "audit-run-with-recipe": "audit runs/easy-0 --recipe sprint",
    "audit-recipe-with-recipe": "audit easy.toml --recipe sprint",
    # runs and compare
    "runs-missing": "runs nowhere nobody",
    "runs-a-file": "runs easy.npz",
    "compare-one": "compare runs/easy-0",
    "compare-unfinished": "compare runs/easy-0 spoilt/unfinished more/untested-0",
    "compare-missing": "compare runs nowhere",
    "compare-damaged": "compare runs/easy-0 spoilt/typed-result",
    "compare-one-recipe": "compare runs",
    "compare-with-itself": "compare runs/easy-0 runs runs/easy-1 runs/easy-1/",
    "compare-other-data": "compare runs more/other-0",
    # study
    "study-everything-wrong": "study sprnt --seeds 0 --jobs none --threads 99999 --device gpu",
    "study-seeds-that-end-before-they-begin": "study easy.toml --seeds 1009-1000",
    "study-too-many-seeds": "study easy.toml --seeds 1-99999",
    "study-several-recipes-wrong": "study nope1 keys.toml nope2 --seeds 3 --set train.epoch=3",
    "study-several-plans-wrong": (
        "study easy.toml wider.toml --seeds 2 --set data.name=nowhere.npz --out easy.toml"
    ),
    "study-same-recipe-twice": "study easy.toml easy.toml --seeds 2",
    "study-into-a-file": "study easy.toml --seeds 2 --out easy.toml",
    "study-judged-on-nothing": "study easy.toml --seeds 2 --set eval.test=false",
    "study-judged-on-different-images": "study easy.toml sprint --seeds 2",
    "study-sizes-that-do-not-fit": "study easy.toml --seeds 2 --set model.weight_groups=[1,1]",
    # search
    "search-nothing": "search nowhere --trials 0 --jobs 0 --seed -1",
    "search-typo": "search typo.toml",
    "search-unknown-key": "search unknown-key.toml",
    # serve
    "serve-port": "serve --port 65536",
    "serve-port-text": "serve --port http",
    "serve-missing": "serve nowhere easy.npz",
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_input_is_one_message(
    name: str,
    workshop: Path,
    whit: Callable[..., Done],
    golden: Callable[[str, str], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    before = sorted(workshop.rglob("*"))
    done = whit(WRONG[name], workshop)
    assert done.out == ""
    assert done.code == 2
    assert "Traceback" not in done.err
    assert done.err.endswith("\n")
    assert all(line.startswith("whit: ") for line in done.err.splitlines())
    assert sorted(workshop.rglob("*")) == before
    golden(f"refused/{name}", masked(f"$ whit {WRONG[name]}\n{done.err}", workshop))


def test_no_place_to_write_is_found_before_anything_is_read(
    workshop: Path, whit: Callable[..., Done], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.access", lambda *_: False)
    done = whit("train easy.toml --out new/run", workshop)
    assert (done.code, done.out) == (2, "")
    assert done.err == f"whit: --out new/run: no permission to write in {workshop}.\n"
    done = whit("study easy.toml --seeds 2 --out new", workshop)
    assert (done.code, done.out) == (2, "")
    assert done.err == f"whit: --out new: no permission to write in {workshop}.\n"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("tarin", "tarin"),
        ("train --sed 3", "--sed"),
        ("plan", "RECIPE"),
        ("plan sprint easy.toml", "easy.toml"),
        ("train --seed", "--seed"),
        ("study sprint", "--seeds"),
    ],
)
def test_wrong_usage_names_what_is_wrong(line: str, said: str, whit: Callable[..., Done]) -> None:
    done = whit(line)
    assert (done.code, done.out) == (2, "")
    assert said in done.err
    assert "Traceback" not in done.err


def test_an_error_that_nobody_foresaw_is_no_missed_budget(
    whit: Callable[..., Done], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("whit.recipes.listing.recipe_rows", lambda: {}["nothing"])
    done = whit("recipes")
    assert (done.code, done.out) == (3, "")
    assert "KeyError: 'nothing'\nwhit: failed with the error above." in done.err


@pytest.mark.parametrize("verb", ["plan", "train", "audit", "runs", "compare", "data"])
def test_with_json_standard_output_stays_empty(
    verb: str, workshop: Path, whit: Callable[..., Done]
) -> None:
    done = whit(f"{verb} nowhere --json", workshop)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("whit: ")


def test_an_over_budget_model_is_refused_with_every_violation_and_how_to_mend_it(
    workshop: Path,
    whit: Callable[..., Done],
    golden: Callable[[str, str], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def no_data(*_: object, **__: object) -> None:
        raise AssertionError("data was read")

    monkeypatch.setattr("whit.training.setup.load_kept_dataset", no_data)
    before = sorted(workshop.rglob("*"))
    line = (
        "train easy.toml --set budget.params='< 1000' --set budget.epochs='< 3' "
        '--set \'budget.forbid=["linear", "maxpool"]\' --set model.dropout=0.0'
    )
    done = whit(line, workshop)
    assert (done.code, done.out) == (1, "")
    assert sorted(workshop.rglob("*")) == before
    golden("refused-by-budget", f"$ whit {line}\n{done.err}")


def test_every_golden_file_has_its_case() -> None:
    folder = Path(__file__).parents[1] / "golden" / "cli" / "refused"
    assert {file.stem for file in folder.iterdir()} == set(WRONG)


def masked(text: str, folder: Path) -> str:
    """Return `text` without what depends on the machine, and without endless repetitions."""
    text = text.replace(str(folder), "HERE")
    # torch's own words differ between its versions
    text = re.sub(r"RuntimeError: .*?( at `.*)?\n", r"RuntimeError: ...\1\n", text)
    text = re.sub(r"this machine: 1 to \d+", "this machine: 1 to N", text)
    return re.sub(r"(.)\1{39,}", r"\1\1\1...", text)
