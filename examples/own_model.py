"""Your own model in 20 lines: plan, train and evaluate it.

python examples/own_model.py
whit audit examples/own_model.py:Net
"""

from torch import nn

import whit


class Net(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(1, 8, 5, stride=2), nn.BatchNorm2d(8), nn.ReLU(),
            nn.Conv2d(8, 16, 3, stride=2), nn.BatchNorm2d(16), nn.ReLU(), nn.Dropout2d(0.05),
            nn.Conv2d(16, 10, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        )  # fmt: skip


if __name__ == "__main__":
    recipe = whit.load_recipe("sprint").with_overrides(["train.epochs=1"])
    print(whit.plan(recipe, Net()))
    print(whit.train(recipe, Net(), seed=0))
