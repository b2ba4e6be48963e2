"""An augmentation or an optimizer is one entry: recipe, training and report follow from it.

pytest tests/recipes/test_registries.py
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from whit.recipes.augmentations import AUGMENTATIONS
from whit.recipes.optimizers import OPTIMIZERS
from whit.recipes.recipe_tables import AugmentSpec, OptimSpec

# The entries are added before the recipe's schema is built, as if they were in the modules.
SCRIPT = """
import sys
from typing import Annotated

from pydantic import Field
from whit.recipes import augmentations, optimizers


class Brightness(augmentations.Augmentation):
    rng_stream = "brightness"
    brightness: Annotated[float, Field(ge=0, lt=1)] = 0.0

    def draw(self, count, generator):
        import torch

        return 1 + self.brightness * (2 * torch.rand(count, 1, 1, 1, generator=generator) - 1)

    def apply(self, images, parameters):
        return images * parameters


class SignSGD(optimizers.UpdateRule):
    floor: Annotated[float, Field(ge=0)] = 0.0

    def step(self, params, grads, states, *, lr, weight_decay, **common):
        for p, grad, state in zip(params, grads, states, strict=True):
            state["steps"] = state.get("steps", grad.new_zeros(())) + 1
            p.mul_(1 - lr * weight_decay).sub_(lr * grad.sign() * (grad.abs() >= self.floor))


augmentations.AUGMENTATIONS += (Brightness,)
optimizers.OPTIMIZERS["sign"] = SignSGD

import whit

recipe = whit.load_recipe(sys.argv[1])
assert whit.Recipe.model_validate(recipe.model_dump()) == recipe
result = whit.train(recipe, out=sys.argv[2], quiet=True)
print(result.verdict)
print(whit.report(sys.argv[2], markdown=True).read_text())
"""


def test_a_new_augmentation_and_a_new_optimizer_train_and_are_reported(
    easy_recipe: Path, tmp_path: Path
) -> None:
    text = easy_recipe.read_text().replace("lr = 0.1", 'name = "sign"\nlr = 0.003\nfloor = 0.001')
    easy_recipe.write_text(text.replace("[augment]", "[augment]\nbrightness = 0.25"))
    arguments = [sys.executable, "-c", SCRIPT, str(easy_recipe), str(tmp_path / "run")]
    done = subprocess.run(arguments, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("met\n")
    assert "degrees 2, translate 1, brightness 0.25" in done.stdout
    assert "sign, peak learning rate 0.003" in done.stdout
    saved = (tmp_path / "run" / "recipe.toml").read_text()
    assert "brightness = 0.25" in saved
    assert "floor = 0.001" in saved


def test_the_schema_has_the_keys_of_all_entries() -> None:
    keys = [key for kind in AUGMENTATIONS for key in kind.model_fields]
    assert list(AugmentSpec.model_fields) == [*keys, "end"]
    assert AugmentSpec().active() == []
    for name, rule in OPTIMIZERS.items():
        assert set(rule.model_fields) < set(OptimSpec.model_fields)
        assert OptimSpec(name=name).update_rule() == rule()
