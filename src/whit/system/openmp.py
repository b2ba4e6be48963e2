"""How long OpenMP's threads spin at a barrier before they sleep."""

from __future__ import annotations

import os
import sys

# A barrier of a training step is passed within 0.1 ms when every thread has a core. GNU's OpenMP
# spins about thirty times as long by default; where other programs run, the spinning takes the
# cores away from the threads that the barrier waits for.
_SPIN_COUNT = "10000"
# Any of these was set by somebody who knows the machine.
_USER_SETTINGS = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")


def limit_spinning() -> None:
    """Let OpenMP's threads spin for a short time only. Must run before torch is imported.

    OpenMP reads the environment when its library is loaded, so later calls have no effect, and
    child processes inherit the setting. Results do not depend on it.
    """
    if "torch" not in sys.modules and not any(name in os.environ for name in _USER_SETTINGS):
        os.environ["GOMP_SPINCOUNT"] = _SPIN_COUNT
