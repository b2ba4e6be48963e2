"""What a model stores, computes and sees, judged from what its forward pass really does."""

from whit.audit.audit import audit_model as audit_model
from whit.audit.kinds import KINDS as KINDS
from whit.audit.layers import Layer as Layer
from whit.audit.value import Audit as Audit
from whit.audit.value import ParamCounts as ParamCounts

__all__ = ["KINDS", "Audit", "Layer", "ParamCounts", "audit_model"]
