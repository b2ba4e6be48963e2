"""Tamper-evident run folders: every change after the run is found and named."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load, save

import whit
from whit.errors import InputError, SourceError
from whit.runs.manifest import HASHED_FILES, with_manifest
from whit.verification.verify import audit


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, easy_npz: Path) -> Path:
    folder = tmp_path_factory.mktemp("evidence")
    shutil.copy(easy_npz, folder / "easy.npz")
    (folder / "easy.toml").write_text(
        'schema = 2\nname = "easy"\n'
        '[model]\nname = "plain"\nwidths = [8, 16]\npool_after = [1, 2]\n'
        f'[data]\nname = "{folder / "easy.npz"}"\n'
        "[train]\nepochs = 2\nbatch_size = 16\n[optim]\nlr = 0.1\n"
        '[budget]\nparams = "< 20000"\nepochs = "< 20"\naccuracy = ">= 80"\n'
    )
    whit.train(folder / "easy.toml", out=folder / "run", threads=1, quiet=True)
    return folder / "run"


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "run"))


def rules(run: Path) -> set[str]:
    return {found.rule for found in audit(run).mismatches}


def edited(run: Path, change: Any) -> None:
    file = run / "result.json"
    result = json.loads(file.read_text())
    change(result)
    file.write_text(json.dumps(result))


def test_an_untouched_run_holds(run: Path) -> None:
    judgement = audit(run)
    assert judgement.mismatches == ()
    assert judgement.verdict == "met"


@pytest.mark.parametrize("name", HASHED_FILES)
def test_one_more_byte_in_any_file_is_found(run: Path, name: str) -> None:
    file = run / name
    content = file.read_bytes()
    if name == "weights.safetensors":
        tensors = load(content)
        tensors["norm1.bias"] += 1e-6
        file.write_bytes(save(tensors))
    elif name == "environment.json":
        file.write_bytes(content.replace(b'"seed": 0', b'"seed": 0 '))
    elif name == "log.jsonl":
        file.write_bytes(content.replace(b'"epoch": 1', b'"epoch":  1'))
    else:
        file.write_bytes(content + b"\n")
    judgement = audit(run)
    assert f"altered {name}" in rules(run)
    assert judgement.verdict == "missed"
    assert str(run / name) in judgement.table(1000)


@pytest.mark.parametrize("name", ["audit.txt", "environment.json"])
def test_a_file_that_is_gone_is_missed(run: Path, name: str) -> None:
    (run / name).unlink()
    assert f"altered {name}" in rules(run)


@pytest.mark.parametrize("name", ["log.jsonl", "weights.safetensors", "recipe.toml"])
def test_without_what_is_judged_there_is_no_judgement(run: Path, name: str) -> None:
    (run / name).unlink()
    with pytest.raises(InputError, match=name):
        audit(run)


@pytest.mark.parametrize(
    "change",
    [
        lambda r: r["seconds"].update(train=0.001),
        lambda r: r.update(seed=1),
        lambda r: r.pop("digest"),
        lambda r: r["files"].pop("audit.txt"),
        lambda r: r.update(notes=["all is well"]),
        lambda r: r["best_epoch"].update(epoch=1),
    ],
    ids=["seconds", "seed", "digest", "files", "notes", "best epoch"],
)
def test_anything_altered_in_the_result_is_found(run: Path, change: Any) -> None:
    edited(run, change)
    assert "altered result.json" in rules(run)


def test_every_number_of_the_log_is_covered_by_the_manifest(run: Path) -> None:
    file = run / "log.jsonl"
    first, *rest = file.read_text().splitlines()
    row = json.loads(first)
    for key, value in row.items():
        changed = {**row, key: value + 1 if isinstance(value, int | float) else []}
        if changed == row:
            continue
        file.write_text("\n".join([json.dumps(changed), *rest]) + "\n")
        assert "altered log.jsonl" in rules(run), key


def test_a_rewritten_manifest_is_found_by_the_weights(run: Path) -> None:
    """Everything is made to agree, but the weights are not as good as it says."""
    file = run / "weights.safetensors"
    tensors = load(file.read_bytes())
    tensors["linear1.weight"] = -tensors["linear1.weight"]
    file.write_bytes(save(tensors))

    def forge(result: dict[str, Any]) -> None:
        import hashlib

        result["weights_sha256"] = hashlib.sha256(file.read_bytes()).hexdigest()
        for key in ("files", "digest"):
            del result[key]
        result.update(with_manifest(result, run))

    edited(run, forge)
    assert not any(rule.startswith("altered") for rule in rules(run))
    assert "record accuracy" in rules(run)


@pytest.mark.parametrize(("key", "forged"), [("macs", 1), ("receptive_field", [28, 3])])
def test_what_the_network_computes_and_sees_is_recomputed(
    run: Path, key: str, forged: object
) -> None:
    recomputed = audit(run).audit.to_json()
    assert json.loads((run / "result.json").read_text())[key] == recomputed[key]

    def forge(result: dict[str, Any], **changes: object) -> None:
        for name in ("files", "digest"):
            del result[name]
        result.update(with_manifest({**result, **changes}, run))

    edited(run, lambda result: forge(result, **{key: forged}))
    assert rules(run) == {f"record {key}"}
    # Results of older versions have none of these, which is no mismatch.
    new_keys = ("forward_passes", "macs", "receptive_field")
    edited(run, lambda result: (*map(result.pop, new_keys), forge(result)))
    assert rules(run) == set()


def test_another_processor_may_decide_a_tie_otherwise(run: Path) -> None:
    """Two classes with equal logits: which one is predicted may differ on another machine only."""
    file = run / "weights.safetensors"
    tensors = load(file.read_bytes())
    for name in ("linear1.weight", "linear1.bias"):
        tensors[name][1] = tensors[name][0]
    file.write_bytes(save(tensors))
    environment = json.loads((run / "environment.json").read_text())

    def write_manifest(processor: str, wrong: list[int]) -> None:
        value = {**environment, "processor": processor}
        (run / "environment.json").write_text(json.dumps(value))

        def change(result: dict[str, Any]) -> None:
            import hashlib

            right = result["test"]["total"] - len(wrong)
            result["test"].update(misclassified=wrong, correct=right, accuracy=float(right))
            result["weights_sha256"] = hashlib.sha256(file.read_bytes()).hexdigest()
            for key in ("files", "digest"):
                result.pop(key, None)
            result.update(with_manifest(result, run))

        edited(run, change)
        log = (run / "log.jsonl").read_text().splitlines()
        last = json.loads(log[-1])
        last["evaluations"][-1]["correct"] = 100 - len(wrong)
        (run / "log.jsonl").write_text("\n".join([*log[:-1], json.dumps(last)]) + "\n")
        edited(run, change)

    here = environment["processor"]
    write_manifest(here, [])
    # Of classes 0 and 1, all images are predicted as 0 here: those of 1 are wrong.
    wrong_here = sorted(_wrong(run))
    ones = [place for place in wrong_here if place % 10 == 1]
    assert ones
    write_manifest(here, [place for place in wrong_here if place != ones[0]])
    assert "record accuracy" in rules(run)
    write_manifest("another", [place for place in wrong_here if place != ones[0]])
    judgement = audit(run)
    assert "record accuracy" not in {found.rule for found in judgement.mismatches}
    assert any("get the other of two classes" in note for note in judgement.notes)
    rights = [place for place in range(100) if place not in wrong_here and place % 10 > 1]
    write_manifest("another", [*wrong_here, rights[0]])
    assert "record accuracy" in rules(run), "an image that is no tie"


def _wrong(run: Path) -> tuple[int, ...]:
    from whit.data.datasets import load_dataset
    from whit.data.normalization import build_normalize
    from whit.models.build import build_initialized_model
    from whit.models.weights import load_weights
    from whit.training.evaluation import evaluate

    recipe = whit.load_recipe(run / "recipe.toml")
    model = build_initialized_model(recipe, (1, 28, 28), 10)
    load_weights(model, run / "weights.safetensors")
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    dataset = load_dataset(recipe.data.name)
    normalize = build_normalize(recipe.data, dataset, torch.device("cpu"))
    return evaluate(model, dataset.test, normalize).misclassified


def test_uncommitted_changes_are_noted(run: Path) -> None:
    file = run / "environment.json"
    environment = json.loads(file.read_text())
    for dirty in (True, False):
        environment["code"] = {"commit": "0123456789abcdef", "dirty": dirty}
        file.write_text(json.dumps(environment))
        said = "trained with uncommitted changes to commit 0123456789ab."
        assert (said in audit(run).notes) is dirty


def test_code_that_comes_with_a_run_is_not_run(run: Path, tmp_path: Path) -> None:
    (run / "evil.py").write_text(f"class Net: open({str(tmp_path / 'ran')!r}, 'w')\n")
    recipe = (run / "recipe.toml").read_text()
    start = recipe.index("[model]")
    end = recipe.index("[data]")
    (run / "recipe.toml").write_text(
        f'{recipe[:start]}[model]\nname = "{run / "evil.py"}:Net"\n\n{recipe[end:]}'
    )
    with pytest.raises(SourceError, match="a file in the run folder itself"):
        audit(run)
    (run / "result.json").unlink()
    with pytest.raises(SourceError, match="a file in the run folder itself"):
        whit.resume(run, quiet=True)
    assert not (tmp_path / "ran").exists()
