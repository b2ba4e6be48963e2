"""The audit of a model: what it stores, computes and sees, judged from what forward really does."""

from __future__ import annotations

from torch import nn

from whit.analysis.report import Report
from whit.analysis.summary import Audit
from whit.analysis.tracing.sandbox import copied, untouched
from whit.analysis.tracing.session import Examination


def audit_model(
    model: nn.Module,
    image_shape: tuple[int, int, int] = (1, 28, 28),
    num_classes: int | None = None,
    name: str = "",
) -> Audit:
    """Audit `model` on images of `image_shape` (C, H, W). Needs no data and changes nothing.

    Runs a copy on two random images: once as for inference, for structure and counts, and as in
    training, to see whether BatchNorm and Dropout really happen.
    """
    with untouched(model):
        twin, problem = copied(model)
        return Report(Examination(model, twin, image_shape)).audit(num_classes, name, problem)
