"""The learning rate over a run, as a value: progress in [0, 1] to a multiple of the peak rate.

Progress is images seen / images planned, never a step number, so a schedule stays right when
the batch size, the data set or the number of epochs changes.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PiecewiseLinear:
    """Straight lines between (progress[i], scale[i]); constant outside the given points."""

    progress: tuple[float, ...]
    scale: tuple[float, ...]

    def __call__(self, progress: float) -> float:
        if progress <= self.progress[0]:
            return self.scale[0]
        for i in range(1, len(self.progress)):
            left, right = self.progress[i - 1], self.progress[i]
            if progress < right:
                fraction = (progress - left) / (right - left)
                return self.scale[i - 1] + fraction * (self.scale[i] - self.scale[i - 1])
        return self.scale[-1]
