"""Slice a notebook: the statements that one class depends on, in an order in which they run."""

from __future__ import annotations

import builtins
import sys

from whit.errors import SourceError, did_you_mean
from whit.models.user_code.notebook import Notebook
from whit.models.user_code.scopes import NameUse, Statement, unknown_name_error

# Names that every module has, or that Python provides inside a class.
IMPLICIT_NAMES = {*dir(builtins), "__name__", "__file__", "__doc__", "__class__", "__builtins__"}


def slice_notebook(notebook: Notebook, name: str) -> tuple[str, tuple[tuple[int, int], ...]]:
    """Return the statements that a class depends on as one text, and the (cell, line) of each line.

    Raises SourceError: no such class, or names that no cell defines.
    """
    needed = DependencySlicer(notebook, name).sort_statements()
    lines = [f"# From {notebook.path.name}: what {name} needs.", ""]
    origins = [(0, 0), (0, 0)]
    cell = 0
    # `from __future__` must be the first statement, and changes how all others are compiled.
    futures = [s for s in notebook.statements if s.dotted.startswith("__future__.")]
    for statement in [*futures, *(s for s in needed if s not in futures)]:
        if statement.cell != cell:
            cell = statement.cell
            lines += ["", f"# cell {cell}"] if cell else [""]
            origins += [(cell, 0)] * (len(lines) - len(origins))
        for offset, line in enumerate(statement.text.split("\n")):
            lines.append(line)
            origins.append((cell, min(statement.line + offset, statement.last_line)))
    return "\n".join([*lines, ""]), (*origins, origins[-1])


class DependencySlicer:
    """Finds the statements that a class depends on, and an order in which they can run.

    A name used when its statement runs (a base class, a default, an assignment's right side)
    refers to the latest definition above. A deferred use, inside a function, refers to the latest
    definition above the statement that causes the call. If there is none above, the notebook was
    run out of order: the nearest definition below is taken, and moved up.
    """

    def __init__(self, notebook: Notebook, name: str):
        self.path = notebook.path
        self.name = name
        self.statements = notebook.statements
        self.unparsable = notebook.unparsable
        self.required: dict[int, set[int]] = {}  # statement -> those that must have run before it
        self.deferred: dict[int, set[int]] = {}  # statement -> those that its functions depend on
        self.problems: list[str] = []
        self._providers: dict[str, list[int]] = {}
        for index, statement in enumerate(self.statements):
            for provided in statement.provides:
                self._providers.setdefault(provided, []).append(index)
        root = self._find_root()
        mutations = self._find_mutations(root)
        end = max([root, *mutations]) + 1  # the class is called after all that completes it
        self._follow([(index, end) for index in [root, *mutations]])
        if self.problems:
            raise SourceError(list(dict.fromkeys(self.problems)))

    def sort_statements(self) -> list[Statement]:
        """Return the statements top to bottom, except where one requires a later one."""
        pending = sorted(self.required)
        ordered = []
        while pending:
            blocked = set(pending)
            free = (i for i in pending if self._prerequisites(i).isdisjoint(blocked - {i}))
            index = next(free, pending[0])  # a cycle: top to bottom, and Python reports it
            pending.remove(index)
            ordered.append(self.statements[index])
        return ordered

    def _prerequisites(self, index: int) -> set[int]:
        """Return all that must have run before a statement can: what it uses and calls."""
        prerequisites: set[int] = set()
        pending = self.required[index]
        while pending:
            prerequisites |= pending
            depended = {j for i in pending for j in self.required[i] | self.deferred[i]}
            pending = depended - prerequisites
        return prerequisites

    def _find_root(self) -> int:
        """Return the last definition of the class, or else the last statement that binds it."""
        defining = [i for i, s in enumerate(self.statements) if self.name in s.defines]
        binding = [i for i, s in enumerate(self.statements) if self.name in s.binds]
        root = (defining or binding or [-1])[-1]
        cell = self.statements[root].cell if root >= 0 else 0
        for unparsable in self.unparsable:
            if unparsable.number > cell and unparsable.defines(self.name):
                raise SourceError(unparsable.describe(self.path))
        if root < 0:
            # A star import may provide it, but then it is not a class of the notebook.
            cells = [s for s in self.statements if s.cell]
            raise unknown_name_error(self.path, self.name, cells)
        return root

    def _find_mutations(self, root: int) -> list[int]:
        """Return the mutations of the class below its definition, like `Net.forward = forward`."""
        following = range(root + 1, len(self.statements))
        rebound = (i for i in following if self.name in self.statements[i].binds)
        end = next(rebound, len(self.statements))
        return [i for i in following if i < end and self.name in self.statements[i].mutates]

    def _follow(self, pending: list[tuple[int, int]]) -> None:
        """Add statements, each with the index at which it is called, and their dependencies."""
        seen = set()
        while pending:
            index, called_at = pending.pop()
            if (index, called_at) in seen:
                continue
            seen.add((index, called_at))
            required = self.required.setdefault(index, set())
            deferred = self.deferred.setdefault(index, set())
            for use in self.statements[index].uses:
                if use.deferred and use.root in self.statements[index].binds:
                    continue  # a function that calls itself, a class that names itself in super()
                before = called_at if use.deferred else index
                definitions = self._resolve(use, before, index)
                (deferred if use.deferred else required).update(definitions)
                pending += [(other, before) for other in definitions]

    def _resolve(self, use: NameUse, before: int, user: int) -> set[int]:
        """Return the statements that give a name its value before statement `before` runs."""
        name = use.root
        providers = [i for i in self._providers.get(name, []) if i != user]
        above = [i for i in providers if i < before]
        below = [i for i in providers if i >= before and name in self.statements[i].binds]
        certain = [i for i in above if self.statements[i].binds.get(name, True)]
        bound = [i for i in certain if name in self.statements[i].binds]
        if bound and self.statements[bound[-1]].is_import:
            # Settings such as `torch.backends.cudnn.benchmark = True` are not part of a model.
            return self._find_imports(use, [i for i in bound if self.statements[i].is_import])
        if bound:
            return {certain[-1]}  # the binding, or the latest mutation of its value
        if name in IMPLICIT_NAMES:
            return set()
        if above:
            return {above[-1]}  # bound in a loop only
        known, unknown = self._find_star_imports(name)
        if known or below:
            return {known[-1]} if known else {below[0]}
        if not unknown and not any(name in s.declares_global for s in self.statements):
            self._add_problem(use, user)
        return set(unknown)

    def _find_imports(self, use: NameUse, imports: list[int]) -> set[int]:
        """Return the imports that a dotted name requires.

        `import torch` and `import torch.utils.tensorboard` both bind `torch`; the second is
        required only by a use of `torch.utils.tensorboard`.
        """
        latest = {self.statements[i].dotted: i for i in imports}
        matching = {i for dotted, i in latest.items() if f"{use.dotted}.".startswith(f"{dotted}.")}
        return matching or {imports[-1]}

    def _find_star_imports(self, name: str) -> tuple[list[int], list[int]]:
        """Return the star imports that bind a name, and those of modules not imported yet."""
        stars = [(index, star) for index, s in enumerate(self.statements) for star in s.stars]
        unknown = [index for index, star in stars if star not in sys.modules]
        known = [i for i, star in stars if star in sys.modules and _exports(star, name)]
        return known, unknown

    def _add_problem(self, use: NameUse, user: int) -> None:
        statement = self.statements[user]
        names = {name for s in self.statements for name in s.binds}
        problem = (
            f"{self.path}, cell {statement.cell}, line {use.line}: {self.name} needs "
            f"{use.root!r}, which no cell defines.{did_you_mean(use.root, names)}"
        )
        candidates = [cell for cell in self.unparsable if cell.may_bind(use.root)]
        hints = [
            f" A cell that may define it is not valid Python: {c.describe(self.path)}"
            for c in candidates
        ]
        self.problems.append("".join([problem, *hints]))


def _exports(module: str, name: str) -> bool:
    """Return whether a star import of a module that is already imported binds `name`."""
    public = getattr(sys.modules[module], "__all__", None)
    return hasattr(sys.modules[module], name) if public is None else name in public
