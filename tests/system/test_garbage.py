"""The garbage collector rests while torch is imported, and only then."""

import gc
import sys
from collections.abc import Iterator

import pytest

from whit.system.processor.garbage import import_torch


@pytest.fixture
def without_torch(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    yield
    gc.unfreeze()
    gc.enable()


@pytest.mark.usefixtures("without_torch")
def test_no_collection_while_torch_is_imported() -> None:
    with import_torch():
        assert not gc.isenabled()
    assert gc.isenabled()
    assert gc.get_freeze_count() > 0


@pytest.mark.usefixtures("without_torch")
def test_a_disabled_collector_stays_disabled() -> None:
    gc.disable()
    with import_torch():
        pass
    assert not gc.isenabled()


def test_nothing_is_excluded_from_collections_once_torch_is_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "torch", sys)
    before = gc.get_freeze_count()
    with import_torch():
        assert gc.isenabled()
    assert gc.get_freeze_count() == before
