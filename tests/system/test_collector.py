"""The garbage collector is off while packages are imported, and on again whatever happens."""

from __future__ import annotations

import gc
import sys

import pytest

from whit.system.processor.collector import pause_gc


def test_it_is_off_inside_and_on_afterwards() -> None:
    with pause_gc():
        assert not gc.isenabled()
        with pause_gc():
            pass
        assert not gc.isenabled()
    assert gc.isenabled()
    with pytest.raises(ImportError), pause_gc():
        raise ImportError
    assert gc.isenabled()


def test_what_was_imported_is_not_searched_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = gc.get_freeze_count()
    monkeypatch.delitem(sys.modules, "some_package", raising=False)
    with pause_gc():
        pass
    assert gc.get_freeze_count() == before  # nothing was imported
    try:
        with pause_gc():
            monkeypatch.setitem(sys.modules, "some_package", sys)
        assert gc.get_freeze_count() > before
    finally:
        gc.unfreeze()
