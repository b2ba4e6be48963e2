"""The garbage collector is off while torch is imported, and on again whatever happens."""

from __future__ import annotations

import gc
import subprocess
import sys

import pytest

from whit.system.processor.collector import pause_gc

_PROGRAM = """\
import atexit, gc
from whit.system.processor.collector import skip_final_collection

class Node:
    def __del__(self):
        print("collected")

def make_cycle():
    node = Node()
    node.itself = node

gc.disable()
atexit.register(print, "handler")
if {skip}:
    skip_final_collection()
make_cycle()
"""


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


@pytest.mark.parametrize(("skip", "said"), [(True, "handler"), (False, "handler collected")])
def test_at_the_end_handlers_run_and_nothing_is_collected(skip: bool, said: str) -> None:
    command = [sys.executable, "-c", _PROGRAM.format(skip=skip)]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert output.split() == said.split()


@pytest.mark.parametrize("package", ["torch", "decimal"])
def test_only_the_objects_of_torch_are_excluded_from_collections(package: str) -> None:
    program = (
        "import gc\nfrom whit.system.processor.collector import pause_gc\n"
        f"with pause_gc():\n    import {package}\nprint(gc.isenabled(), gc.get_freeze_count() > 0)"
    )
    output = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert output.stdout.split() == ["True", str(package == "torch")]
