"""What a network stores, computes and sees, from one traced forward pass."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from whit.analysis.audit import audit_model
    from whit.analysis.independence.probe import find_batch_dependence
    from whit.analysis.kinds import KINDS, LAYER_KINDS
    from whit.analysis.rows import Layer
    from whit.analysis.summary import Audit, ParamCounts
    from whit.analysis.tracing.sandbox import preserve_model

__all__ = [
    "KINDS",
    "LAYER_KINDS",
    "Audit",
    "Layer",
    "ParamCounts",
    "audit_model",
    "find_batch_dependence",
    "preserve_model",
]

_MODULES = {
    "KINDS": "kinds",
    "LAYER_KINDS": "kinds",
    "Layer": "rows",
    "audit_model": "audit",
    "find_batch_dependence": "independence.probe",
    "preserve_model": "tracing.sandbox",
}


def __getattr__(name: str) -> Any:
    """Import a public name at its first use: the kinds of layers need no torch."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"whit.analysis.{_MODULES.get(name, 'summary')}"), name)
