"""whit: train image classifiers within a budget, and evaluate them honestly.

    recipe = whit.load_recipe("sprint")
    whit.plan(recipe)
    result = whit.train(recipe, seed=0)
    whit.audit(result)

torch is imported at the first call that needs it, and pydantic with the first recipe.
"""

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from whit.analysis import Audit
    from whit.api import (
        audit,
        compare,
        export,
        load_data,
        load_run,
        plan,
        report,
        resume,
        runs,
        search,
        study,
        train,
    )
    from whit.data.splits import Dataset
    from whit.errors import InputError, Interrupted, RunFailed, WhitError
    from whit.experiments.comparison import Comparison
    from whit.experiments.search.result import SearchResult
    from whit.experiments.study import Study
    from whit.export.exporter import ExportResult
    from whit.recipes.budget import BudgetInfeasible
    from whit.recipes.recipe import Recipe, load_recipe
    from whit.runs.result import RunResult
    from whit.training.plan import Plan
    from whit.verification.restore import LoadedRun
    from whit.verification.verify import AuditResult

__all__ = [
    "Audit",
    "AuditResult",
    "BudgetInfeasible",
    "Comparison",
    "Dataset",
    "ExportResult",
    "InputError",
    "Interrupted",
    "LoadedRun",
    "Plan",
    "Recipe",
    "RunFailed",
    "RunResult",
    "SearchResult",
    "Study",
    "WhitError",
    "audit",
    "compare",
    "export",
    "load_data",
    "load_recipe",
    "load_run",
    "plan",
    "report",
    "resume",
    "runs",
    "search",
    "study",
    "train",
]

# The module of each name; what is not here is a function of `whit.api`.
_MODULES = {
    "Audit": "whit.analysis",
    "AuditResult": "whit.verification.verify",
    "BudgetInfeasible": "whit.recipes.budget",
    "Comparison": "whit.experiments.comparison",
    "Dataset": "whit.data.splits",
    "ExportResult": "whit.export.exporter",
    "InputError": "whit.errors",
    "Interrupted": "whit.errors",
    "LoadedRun": "whit.verification.restore",
    "Plan": "whit.training.plan",
    "Recipe": "whit.recipes.recipe",
    "RunFailed": "whit.errors",
    "RunResult": "whit.runs.result",
    "SearchResult": "whit.experiments.search.result",
    "Study": "whit.experiments.study",
    "WhitError": "whit.errors",
    "load_recipe": "whit.recipes.recipe",
}


class _Package(ModuleType):
    """`whit` itself. The functions `runs` and `export` share their names with two packages.

    Importing a package sets it as an attribute of its parent; these two would hide the functions.
    """

    def __setattr__(self, name: str, value: object) -> None:
        if not (name in __all__ and isinstance(value, ModuleType)):
            super().__setattr__(name, value)

    def __dir__(self) -> list[str]:
        return sorted(__all__)

    def __getattr__(self, name: str) -> object:
        if name not in __all__:
            raise AttributeError(f"module 'whit' has no attribute {name!r}")
        value: object = getattr(importlib.import_module(_MODULES.get(name, "whit.api")), name)
        setattr(self, name, value)
        return value


sys.modules[__name__].__class__ = _Package
