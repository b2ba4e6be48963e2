"""The functions of the package, as a program or a notebook calls them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import whit
from whit.errors import ModelError
from whit.models.build import initialize_copy


class Net(nn.Module):
    def __init__(self, width: int = 8):
        super().__init__()
        self.conv = nn.Conv2d(1, width, 5, 2)
        self.norm = nn.BatchNorm2d(width)
        self.drop = nn.Dropout(0.05)
        self.last = nn.Conv2d(width, 10, 3)

    def forward(self, images: Tensor) -> Tensor:
        features = self.drop(torch.relu(self.norm(self.conv(images))))
        return self.last(features).mean((2, 3))


class Scaled(Net):
    """Has a parameter of its own, which nothing can initialize again."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def recipe(easy_recipe: Path) -> whit.Recipe:
    return whit.load_recipe(easy_recipe)


def test_a_run_of_a_module_is_loaded_compared_audited_and_exported(
    recipe: whit.Recipe, capsys: pytest.CaptureFixture[str]
) -> None:
    result = whit.train(recipe, Net(), out="first", quiet=True)
    assert capsys.readouterr().out == ""
    loaded = whit.load_run(result, Net())
    assert loaded.recipe.name == "easy"
    assert loaded.history == result.history
    assert loaded.result == result
    assert loaded.result.text() == result.text()
    test = loaded.dataset.test
    assert result.test is not None
    assert int((loaded.predict(test.images) == test.labels).sum()) == result.test.correct
    assert torch.equal(loaded.predict(test.images.numpy()[:, 0]), loaded.predict(test.images))
    with pytest.raises(whit.InputError, match=r"expected uint8 \(N, 1, 28, 28\), found float32"):
        loaded.predict(test.images.float())
    assert whit.audit(loaded).verdict == result.verdict  # its model comes with it
    again = whit.train(recipe, Net(), seed=1, out="second", quiet=True)
    comparison = whit.compare(result, again)
    assert [group.name for group in comparison.groups] == ["first", "second"]
    exported = whit.export(loaded, "c")
    assert exported.path == Path("first.c")
    assert exported.parity.same_class == len(test)
    assert [row["run"] for row in whit.runs(".")] == ["first", "second"]


def test_history_has_one_row_an_epoch(recipe: whit.Recipe) -> None:
    history = whit.train(recipe, quiet=True).history
    assert [row["epoch"] for row in history] == [1, 2, 3]
    assert [row["test_accuracy"] is None for row in history] == [True, True, False]
    last = history[-1]
    assert {"train_loss", "train_accuracy", "test_loss", "lr", "seconds", "steps"} <= set(last)
    assert 0 < last["train_accuracy"] <= 100


def test_each_function_takes_a_module_in_place_of_a_recipe() -> None:
    planned = whit.plan(Net())
    assert planned.recipe.name == "Net"
    assert planned.recipe.data.name == "mnist"
    assert planned.audit.params.total == whit.audit(Net()).metrics.params
    with pytest.raises(whit.InputError, match="Two models"):
        whit.plan(Net(), Net())


def test_each_function_takes_a_file_and_class(tmp_path: Path) -> None:
    source = "from torch import nn\nclass Small(nn.Sequential):\n    def __init__(self):\n"
    source += "        super().__init__(nn.Flatten(), nn.Linear(784, 10))\n"
    (tmp_path / "small.py").write_text(source)
    planned = whit.plan("small.py:Small")
    assert planned.recipe.name == "Small"
    assert planned.audit.params.total == 7850
    assert planned.recipe.model.arguments == {}  # the sizes of the default recipe are another's


def test_a_study_of_a_module_initializes_it_for_each_seed(recipe: whit.Recipe) -> None:
    model = Net()
    before = [parameter.clone() for parameter in model.parameters()]
    study = whit.study(recipe, model, seeds=2, quiet=True)
    assert study.failures == ()
    (arm,) = study.arms
    weights = [
        whit.load_run(arm.run_folder(seed), Net()).model.get_parameter("conv.weight")
        for seed in study.seeds
    ]
    assert not torch.equal(*weights)
    assert all(map(torch.equal, before, model.parameters()))  # copies were trained
    # A model is not known to be the same as before, so that nothing is taken from earlier studies.
    again = whit.study(recipe, Net, seeds=1, quiet=True)
    assert again.arms[0].folder != arm.folder
    assert len(whit.runs("studies")) == 3


def test_a_study_of_a_class_trains_what_training_it_does(recipe: whit.Recipe) -> None:
    built = []

    def build() -> Net:
        built.append(Net(width=6))
        return built[-1]

    study = whit.study(recipe, build, seeds=1, threads=1, quiet=True)
    run = whit.load_run(study.arms[0].run_folder(0), Net(width=6))
    assert len(built) == 2  # one for the plan
    trained = built[-1].state_dict()
    assert all(torch.equal(trained[key], value) for key, value in run.model.state_dict().items())


def test_what_cannot_be_initialized_again_is_refused_by_name(recipe: whit.Recipe) -> None:
    with pytest.raises(ModelError, match=r"Scaled: scale cannot be initialized again"):
        whit.study(recipe, Scaled(), seeds=1, quiet=True)
    with pytest.raises(whit.InputError, match="in this process"):
        whit.study(recipe, Net, jobs=2, quiet=True)
    with pytest.raises(whit.InputError, match=r"expected a torch\.nn\.Module, its class"):
        whit.study(recipe, "Net", quiet=True)  # type: ignore[arg-type]
    assert not Path("studies").exists()


def test_a_copy_is_initialized_by_the_global_generator() -> None:
    model = Net()
    copies = []
    for _ in range(2):
        torch.manual_seed(3)
        copies.append(initialize_copy(model))
    for first, second in zip(copies[0].parameters(), copies[1].parameters(), strict=True):
        assert torch.equal(first, second)


def test_a_data_set_has_its_pixels() -> None:
    dataset = whit.load_data(val=5000)
    assert dataset.train.images.dtype == torch.uint8
    assert tuple(dataset.train.images.shape) == (55_000, 1, 28, 28)
    assert dataset.val is not None
    assert len(dataset.val) == 5000
    assert dataset.test.labels.dtype == torch.int64


def test_a_search_from_python(easy_recipe: Path) -> None:
    Path("tiny.toml").write_text(
        f'name = "tiny"\nbase = "{easy_recipe}"\nobjectives = ["params", "accuracy"]\nval = 50\n'
        'seeds = 1\n[space]\n"train.epochs" = [1, 2]\n'
    )
    found = whit.search("tiny.toml", trials=2, jobs=1, quiet=True)
    assert len(found.trials) == 2
    assert "<table" in found._repr_html_()
    assert len(whit.search(Path("tiny.toml"), trials=2, jobs=1, quiet=True).trials) == 2


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(whit.InputError, match=r"allowed: onnx, c, html\. Did you mean 'onnx'"):
        whit.export("nowhere", "onx")
    with pytest.raises(whit.InputError, match="expected a run folder, a RunResult or a LoadedRun"):
        whit.load_run(3)  # type: ignore[arg-type]
    with pytest.raises(whit.InputError, match="one: no such folder"):
        whit.compare("one")
