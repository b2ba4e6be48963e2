"""What a model stores, computes and sees, judged from what its forward pass really does."""

from whit.auditing.audit import audit_model as audit_model
from whit.auditing.kinds import KINDS as KINDS
from whit.auditing.layers import Layer as Layer
from whit.auditing.value import Audit as Audit
from whit.auditing.value import ParamCounts as ParamCounts

__all__ = ["KINDS", "Audit", "Layer", "ParamCounts", "audit_model"]
