"""whit in a real JupyterLab: progress that updates in place, and values that fit the page."""

RECIPE = """\
schema = 2
name = "easy"
description = "Stripes by their direction."
[model]
name = "plain"
widths = [8, 16]
pool_after = [1, 2]
[data]
name = "easy.npz"
[train]
epochs = 3
batch_size = 16
[eval]
each_epoch = "test"
[optim]
lr = 0.1
[budget]
params = "< 20000"
epochs = "< 20"
accuracy = ">= 90"
require = ["batchnorm", "dropout", "gap"]
"""
CELLS = (
    """\
import time
import torch
import whit
from torch import nn

class Net(nn.Module):
    def __init__(self, width=16):
        super().__init__()
        self.conv = nn.Conv2d(1, width, 5, 2)
        self.norm = nn.BatchNorm2d(width)
        self.drop = nn.Dropout(0.05)
        self.last = nn.Conv2d(width, 10, 3)

    def forward(self, x):
        if self.training:
            time.sleep(0.04)
        x = self.drop(torch.relu(self.norm(self.conv(x))))
        return self.last(x).mean((2, 3))

recipe = whit.load_recipe("easy.toml")
recipe""",
    "whit.plan(recipe)",
    "result = whit.train(recipe.with_overrides(['train.epochs=2']), Net(), seed=1)\nresult",
    "run = whit.load_run(result, Net())\nwhit.audit(run)",
    "wider = recipe.with_overrides(['name=wider', 'model.widths=[12, 16]'])\n"
    "study = whit.study([recipe, wider], seeds=3)\nstudy",
    "whit.compare(*(arm.folder for arm in study.arms))",
    "whit.study(recipe, Net, seeds=2)",
    "whit.runs(study.arms[0].folder)",
    "result.history.to_pandas()",
    "import os, signal, threading\n"
    "threading.Timer(2, os.kill, (os.getpid(), signal.SIGINT)).start()\n"
    "whit.train(recipe, Net())",
    "[n for n in get_ipython().Completer.completions('whit.', 5)]",
    "whit.study([recipe.with_overrides([f'name=r{i}', f'model.widths=[{i}, 8]', 'train.epochs=1']) for i in range(4,8)], seeds=2)",
    "print([run.predict(run.dataset.test.images[:5]), run])",
)
