"""JavaScript and torch name the same class, and their logits agree."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from browser.chromium import PROGRAM, Watched, logits_in, module
from export.zoo import CLASSES, networks, some_images
from harness.records import first_runs
from whit.data.datasets import load_dataset
from whit.export.ir.build import build_graph
from whit.export.ir.capture import capture_graph
from whit.export.ir.fusion import fuse
from whit.runs.reader import read_run
from whit.training.evaluation import predict
from whit.verification.restore import load_run_model

pytestmark = [
    pytest.mark.skipif(PROGRAM is None, reason="Chromium is not installed"),
    pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel"),
]
EVERY = dict(networks())
# The first seed of each record that keeps its weights.
RECORDS = [run for run in first_runs() if (run / "weights.safetensors").exists()]


def compare(watched: Watched, name: str, model: nn.Module, images: Tensor) -> None:
    graph = fuse(capture_graph(model, (1, 28, 28), CLASSES, name))
    with torch.inference_mode():
        theirs = torch.cat([model(part.float()) for part in images.split(500)])
    ours = logits_in(watched.page, graph, images)
    assert (ours - theirs).abs().max() < 1e-3
    assert torch.equal(ours.argmax(1), theirs.argmax(1))
    assert watched.said == []


@pytest.mark.parametrize("name", EVERY)
def test_the_browser_gives_the_logits_of_torch(watched: Watched, name: str) -> None:
    compare(watched, name, EVERY[name], some_images(20))


@pytest.mark.slow
@pytest.mark.parametrize("name", EVERY)
def test_the_same_class_on_every_test_image(watched: Watched, name: str) -> None:
    compare(watched, name, EVERY[name], load_dataset("mnist").test.images)


@pytest.mark.slow
@pytest.mark.parametrize("run", RECORDS, ids=lambda run: run.parents[1].name)
def test_a_record_decides_the_same_on_every_test_image(watched: Watched, run: Path) -> None:
    trained = load_run_model(read_run(run))
    images = trained.dataset.test.images
    theirs = predict(trained.predictor, trained.dataset.test, trained.normalize)
    ours = logits_in(watched.page, build_graph(trained), images)
    assert (ours - theirs).abs().max() < 1e-3
    assert torch.equal(ours.argmax(1), theirs.argmax(1))


def test_the_error_function(watched: Watched) -> None:
    module(watched.page, "network.js")
    points = torch.cat([torch.linspace(-7, 7, 501), torch.tensor([0.0, 2.5, -2.5])]).double()
    found = watched.page.evaluate("(x) => x.map(whit.errorFunction)", points.tolist())
    assert (torch.tensor(found, dtype=torch.float64) - torch.erf(points)).abs().max() < 1e-12
