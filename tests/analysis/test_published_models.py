"""The five published systems against PUBLISHED.md.

Run: pytest tests/analysis/test_published_models.py
"""

import pytest
from zoo import PUBLISHED, PUBLISHED_ROWS, Original19122

from whit.analysis import audit_model

LINEAR = {"published-19130", "published-15938"}


@pytest.mark.parametrize("name", PUBLISHED)
def test_total_and_every_row(name: str) -> None:
    audit = audit_model(PUBLISHED[name](), num_classes=10, name=name)
    assert [layer.params for layer in audit.layers if layer.params] == PUBLISHED_ROWS[name]
    assert audit.params.total == audit.params.trainable == int(name.split("-")[1])
    assert audit.params.unused == audit.params.buffers == audit.params.frozen == 0
    assert audit.output_problem is None
    assert audit.output_shape == (10,)
    assert audit.notes == ()


@pytest.mark.parametrize("name", PUBLISHED)
def test_kinds(name: str) -> None:
    kinds = audit_model(PUBLISHED[name]()).kinds
    assert {"conv", "relu", "batchnorm", "dropout", "maxpool", "softmax"} <= kinds
    assert ("linear" in kinds) == (name in LINEAR)
    # the last pooling of 15938 takes the top left 2x2 of a 3x3 map
    assert ("gap" in kinds) == (name != "published-15938")
    assert ("avgpool" in kinds) == (name == "published-15938")


def test_receptive_fields_of_16848() -> None:
    layers = audit_model(PUBLISHED["published-16848"]()).layers
    fields = [layer.receptive_field for layer in layers if layer.kind in ("conv", "maxpool", "gap")]
    assert fields == [3, 5, 7, 8, 12, 16, 20, 24, 24, 32]
    jumps = [layer.jump for layer in layers if layer.kind in ("conv", "maxpool")]
    assert jumps == [1, 1, 1, 2, 2, 2, 2, 2, 2]


def test_maps_of_17098() -> None:
    layers = audit_model(PUBLISHED["published-17098"]()).layers
    sizes = [layer.output_shape[1] for layer in layers if layer.kind in ("conv", "maxpool", "gap")]
    assert sizes == [28, 14, 14, 7, 5, 3, 1]
    assert layers[4].kind == "dropout"
    assert layers[4].name == "4"


def test_macs_of_16848_by_hand() -> None:
    audit = audit_model(PUBLISHED["published-16848"]())
    by_hand = 144 * 26**2 + 2304 * (24**2 + 22**2 + 9**2 + 9**2 + 7**2) + 4608 * 25 + 320 * 25
    assert audit.macs == by_hand


def test_batchnorm_never_called_in_the_original_19122() -> None:
    audit = audit_model(Original19122(), num_classes=10)
    assert audit.params.total == 19_186
    assert audit.params.unused == 64
    last = audit.layers[-1]
    assert (last.name, last.kind, last.params) == ("bn_unused", "unused", 64)
    assert "64 parameters never reach the output: bn_unused.weight, bn_unused.bias" in audit.notes
