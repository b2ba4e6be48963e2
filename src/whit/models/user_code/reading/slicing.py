"""Slice a file or notebook: the statements that some of its names depend on, and their order."""

from __future__ import annotations

import builtins
import re
import sys
from collections.abc import Callable, Iterable, Sequence, Set

from whit.models.user_code.reading.statements import NameUse, Statement

# Names that every module has, that Python provides inside a class, or whit in place of IPython.
IMPLICIT_NAMES = {
    *(*dir(builtins), "__name__", "__file__", "__doc__", "__class__", "__builtins__"),
    *("__package__", "__spec__", "__loader__", "__path__", "display", "get_ipython"),
}
_SEED_CALL = re.compile(r"\b\w*seed\w*\(")
_RANDOM_USE = re.compile(r"rand|shuffle|choice|normal|permutation|sample|bernoulli|uniform")

# Return the names that `from module import *` binds, None where they are not known.
StarNames = Callable[[str], Set[str] | None]


class DependencySlicer:
    """Finds the statements that names depend on, and an order in which they can run.

    A name used when its statement runs (a base class, a default, an assignment's right side)
    refers to the latest definition above. A deferred use, inside a function, refers to the latest
    definition above the statement that causes the call: the first that builds the class, or else
    the class itself in a notebook, and the end of a file. If there is none above, the nearest
    definition below is taken; in a notebook, which may have been run out of order, it is moved up.

    `missing` has the uses of names that nothing defines, with the statement.
    """

    def __init__(
        self, statements: Sequence[Statement], star_names: StarNames, *, is_notebook: bool
    ):
        self.statements = statements
        self.is_notebook = is_notebook
        self.required: dict[int, set[int]] = {}  # statement -> those that must have run before it
        self.deferred: dict[int, set[int]] = {}  # statement -> those that its functions depend on
        self.missing: list[tuple[NameUse, Statement]] = []
        self._star_names = star_names
        self._seen: set[tuple[int, int]] = set()
        self._providers: dict[str, list[int]] = {}
        self._imported = {name for s in statements if s.is_import for name in s.binds}
        self._defined = {name for s in statements for name in s.defines}
        self._shared = {n: other for s in statements for n, other in s.shares.items()}
        self._effects = self._find_effects()
        for index, statement in enumerate(statements):
            for provided in statement.binds.keys() | self._mutated_by(statement):
                self._providers.setdefault(provided, []).append(index)

    def add(self, name: str) -> bool:
        """Add what a name depends on; return whether a statement binds it.

        In a class's place, the last definition counts, or else the last statement that binds it.
        """
        root = self.find_root(name)
        if root is None:
            return False
        end = self._find_end(name, root)
        mutations = self._find_mutations(name, root)
        end = max([end, root + 1, *(i + 1 for i in mutations)])
        self._follow([(index, end) for index in [root, *mutations]])
        return True

    def add_star(self, name: str) -> bool:
        """Add the star import that binds a name, or all that may; return whether there is one."""
        known, unknown = self._find_star_imports(name)
        indexes = known[-1:] or unknown
        self._follow([(index, len(self.statements)) for index in indexes])
        return bool(indexes)

    def add_all(self) -> None:
        """Add every statement."""
        self.required = {index: set() for index in range(len(self.statements))}
        self.deferred = {index: set() for index in self.required}

    def find_root(self, name: str) -> int | None:
        defining = [i for i, s in enumerate(self.statements) if name in s.defines]
        binding = [i for i, s in enumerate(self.statements) if name in s.binds]
        certain = [i for i in binding if self.statements[i].binds[name]]
        found = defining or certain or binding
        return found[-1] if found else None

    def sort_statements(self) -> list[Statement]:
        """Return the statements top to bottom, except where one of a notebook requires a later."""
        self._add_seeds()
        pending = sorted(self.required)
        if not self.is_notebook:
            return [self.statements[index] for index in pending]
        ordered = []
        while pending:
            blocked = set(pending)
            free = (i for i in pending if self._prerequisites(i).isdisjoint(blocked - {i}))
            index = next(free, pending[0])  # a cycle: top to bottom, and Python reports it
            pending.remove(index)
            ordered.append(self.statements[index])
        return ordered

    def _find_effects(self) -> dict[str, set[str]]:
        """Return the module's names that each function changes when it is called."""
        effects: dict[str, set[str]] = {}
        calls: dict[str, set[str]] = {}
        for statement in self.statements:
            for name in statement.defines:
                effects[name] = statement.later_mutates | statement.declares_global
                calls[name] = {use.root for use in statement.uses if use.deferred}
        changed = True
        while changed:
            changed = False
            for name, called in calls.items():
                for other in called & effects.keys():
                    if not effects[other] <= effects[name]:
                        effects[name] |= effects[other]
                        changed = True
        return effects

    def _mutated_by(self, statement: Statement) -> set[str]:
        mutated = statement.mutates | (statement.method_calls - self._imported - self._defined)
        for function in statement.calls & self._effects.keys():
            mutated |= self._effects[function]
        for name in list(mutated):
            while name in self._shared and self._shared[name] not in mutated:
                name = self._shared[name]
                mutated.add(name)
        return mutated

    def _find_end(self, name: str, root: int) -> int:
        """Return the index of the statement that causes the functions of `name` to be called."""
        if name not in self._defined:
            return root + 1 if self.is_notebook else len(self.statements)
        leading = {name}  # functions that call it
        while True:
            more = {
                defined
                for s in self.statements
                for defined in s.defines
                if defined not in leading and leading & {use.root for use in s.uses}
            }
            if not more:
                break
            leading |= more
        for index in range(root + 1, len(self.statements)):
            statement = self.statements[index]
            if statement.calls & leading and not statement.defines:
                return index
        return root + 1 if self.is_notebook else len(self.statements)

    def _find_mutations(self, name: str, root: int) -> list[int]:
        """Return the mutations of the name below its definition, like `Net.forward = forward`."""
        following = range(root + 1, len(self.statements))
        rebound = (i for i in following if name in self.statements[i].binds)
        end = next(rebound, len(self.statements))
        return [i for i in self._providers.get(name, []) if root < i < end]

    def _follow(self, pending: list[tuple[int, int]]) -> None:
        """Add statements, each with the index at which it is called, and their dependencies."""
        while pending:
            index, called_at = pending.pop()
            if (index, called_at) in self._seen:
                continue
            self._seen.add((index, called_at))
            required = self.required.setdefault(index, set())
            deferred = self.deferred.setdefault(index, set())
            statement = self.statements[index]
            for use in [*statement.uses, *self._kept_values(statement, index)]:
                if use.deferred and use.root in statement.binds:
                    continue  # a function that calls itself, a class that names itself in super()
                before = called_at if use.deferred else index
                definitions = self._resolve(use, before, index)
                (deferred if use.deferred else required).update(definitions)
                pending += [(other, before) for other in definitions]
            if statement.is_import:
                paths = self._find_path_changes(statement, index)
                required.update(paths)
                pending += [(other, index) for other in paths]

    def _kept_values(self, statement: Statement, index: int) -> list[NameUse]:
        """Return the earlier values that it may keep, or changes through functions it calls."""
        used = {use.root for use in statement.uses if not use.deferred}
        names = (self._mutated_by(statement) - statement.binds.keys() | statement.may_bind) - used
        return [
            NameUse(name, statement.line, deferred=False, optional=True)
            for name in sorted(names)
            if any(i < index for i in self._providers.get(name, []))
        ]

    def _find_path_changes(self, statement: Statement, index: int) -> list[int]:
        """Return the changes of `sys.path` above an import of what is not installed yet."""
        module = statement.dotted or (statement.stars or [""])[0]
        if module.partition(".")[0] in (*sys.stdlib_module_names, "torch"):
            return []
        return [
            i for i in range(index) if re.search(r"\bsys\.path\.\w+\(", self.statements[i].text)
        ]

    def _resolve(self, use: NameUse, before: int, user: int) -> set[int]:
        """Return the statements that give a name its value before statement `before` runs."""
        name = use.root
        providers = [i for i in self._providers.get(name, []) if i != user]
        above = [i for i in providers if i < before]
        below = [i for i in providers if i >= before and name in self.statements[i].binds]
        certain = [i for i in above if self.statements[i].binds.get(name, True)]
        bound = [i for i in certain if name in self.statements[i].binds]
        if bound and self.statements[bound[-1]].is_import:
            imports = self._find_imports(use, [i for i in bound if self.statements[i].is_import])
            return imports | {i for i in certain if i > bound[-1] and self._sets(i, use)}
        if bound:
            return {certain[-1]}  # the binding, or the latest mutation of its value
        if name in IMPLICIT_NAMES:
            return set()
        if above:
            return {above[-1]}  # bound in a loop only, or by a function that is called
        known, unknown = self._find_star_imports(name)
        if known or below:
            return {known[-1]} if known else {below[0]}
        dynamic = self._find_dynamic(before)
        is_set_later = any(name in s.declares_global for s in self.statements)
        if use.optional:
            return set()
        if not (unknown or dynamic or is_set_later):
            self.missing.append((use, self.statements[user]))
        return {*unknown, *dynamic}

    def _find_imports(self, use: NameUse, imports: list[int]) -> set[int]:
        """Return the imports that a dotted name requires.

        `import torch` and `import torch.utils.tensorboard` both bind `torch`; the second is
        required only by a use of `torch.utils.tensorboard`.
        """
        latest = {self.statements[i].dotted: i for i in imports}
        matching = {i for dotted, i in latest.items() if f"{use.dotted}.".startswith(f"{dotted}.")}
        return matching or {imports[-1]}

    def _sets(self, index: int, use: NameUse) -> bool:
        """Return whether a statement sets an attribute of a module that a use reads.

        Settings such as `torch.backends.cudnn.benchmark = True` are not part of a model.
        """
        return any(
            f"{use.dotted}.".startswith(f"{name}.") or f"{name}.".startswith(f"{use.dotted}.")
            for name in self.statements[index].sets
        )

    def _find_star_imports(self, name: str) -> tuple[list[int], list[int]]:
        """Return the star imports that bind a name, and those of which the names are not known."""
        known, unknown = [], []
        for index, statement in enumerate(self.statements):
            for star in statement.stars:
                names = self._star_names(star)
                if names is None:
                    unknown.append(index)
                elif name in names:
                    known.append(index)
        return known, unknown

    def _find_dynamic(self, before: int) -> list[int]:
        """Return the statements that may bind any name, as `globals().update(config)` does."""
        functions = {name for s in self.statements if any(s.is_dynamic) for name in s.defines}
        return [
            index
            for index, s in enumerate(self.statements[:before])
            if (False in s.is_dynamic and not s.defines) or s.calls & functions
        ]

    def _add_seeds(self) -> None:
        """Add the seeds above random constants, so that they are the same each time."""
        random = [
            index
            for index in self.required
            if not self.statements[index].defines and not self.statements[index].is_import
            and any(_RANDOM_USE.search(use.dotted) for use in self.statements[index].uses)
        ]  # fmt: skip
        for index in range(max(random, default=0)):
            statement = self.statements[index]
            is_call = not statement.defines and not statement.is_import and not statement.binds
            if is_call and index not in self.required and _SEED_CALL.search(statement.text):
                self._follow([(index, index)])

    def _prerequisites(self, index: int) -> set[int]:
        """Return all that must have run before a statement can: what it uses and calls."""
        prerequisites: set[int] = set()
        pending = self.required[index]
        while pending:
            prerequisites |= pending
            depended = {j for i in pending for j in self.required[i] | self.deferred[i]}
            pending = depended - prerequisites
        return prerequisites


def loaded_star_names(module: str) -> Set[str] | None:
    """Return the names of a star import of a module that is imported already, else None."""
    loaded = sys.modules.get(module)
    if loaded is None:
        return None
    public: Iterable[str] | None = getattr(loaded, "__all__", None)
    return set(public) if public else {n for n in vars(loaded) if not n.startswith("_")}
