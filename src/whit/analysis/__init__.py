"""What a model stores, computes and sees, judged from what its forward pass really does."""

from whit.analysis.audit import audit_model as audit_model
from whit.analysis.kinds import KINDS as KINDS
from whit.analysis.rows import Layer as Layer
from whit.analysis.summary import Audit as Audit
from whit.analysis.summary import ParamCounts as ParamCounts

__all__ = ["KINDS", "Audit", "Layer", "ParamCounts", "audit_model"]
