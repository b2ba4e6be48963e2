"""What a class in a notebook needs: the statements to run for it, and no others."""

from __future__ import annotations

import builtins
import sys

from whit.errors import SourceError, did_you_mean
from whit.models.user_code.notebook import Notebook
from whit.models.user_code.scopes import Read
from whit.models.user_code.statement import Statement, unknown_name

# Names that every module has, or that Python provides inside a class.
ALWAYS_THERE = {*dir(builtins), "__name__", "__file__", "__doc__", "__class__", "__builtins__"}


def needed_code(notebook: Notebook, name: str) -> tuple[str, tuple[tuple[int, int], ...]]:
    """Return the statements that a class needs as one text, and the (cell, line) of each line."""
    needed = _Needs(notebook, name).in_order()
    lines = [f"# From {notebook.path.name}: what {name} needs.", ""]
    origins = [(0, 0), (0, 0)]
    cell = 0
    # `from __future__` must be the first statement, and changes how all others are read.
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


class _Needs:
    """Which statements a class needs, and in which order they can run.

    A name read when its statement runs (a base class, a default, an assignment's right side)
    means the latest definition above. A name read later, inside a function, means the latest
    definition above the statement on whose behalf the function is called. Where there is none
    above, the notebook was run out of order: the nearest below is taken, and moved up.
    """

    def __init__(self, notebook: Notebook, name: str):
        self.path = notebook.path
        self.name = name
        self.statements = notebook.statements
        self.broken = notebook.broken
        self.now: dict[int, set[int]] = {}  # statement -> those that must have run before it
        self.later: dict[int, set[int]] = {}  # statement -> those that its functions need
        self.problems: list[str] = []
        self._givers: dict[str, list[int]] = {}
        for index, statement in enumerate(self.statements):
            for given in statement.gives:
                self._givers.setdefault(given, []).append(index)
        self._stars = [i for i, statement in enumerate(self.statements) if statement.stars]
        root = self._root()
        changes = self._changes_after(root)
        end = max([root, *changes]) + 1  # the class is called after all that makes it
        self._follow([(index, end) for index in [root, *changes]])
        if self.problems:
            raise SourceError(list(dict.fromkeys(self.problems)))

    def in_order(self) -> list[Statement]:
        """Return the needed statements top to bottom, except where one needs a later one."""
        waiting = sorted(self.now)
        if all(j < i for i in waiting for j in self.now[i] | self.later[i]):
            return [self.statements[i] for i in waiting]  # as nearly always
        ordered = []
        while waiting:
            blocked = set(waiting)
            free = (i for i in waiting if self._before(i).isdisjoint(blocked - {i}))
            index = next(free, waiting[0])  # in a circle: top to bottom, and Python will say
            waiting.remove(index)
            ordered.append(self.statements[index])
        return ordered

    def _before(self, index: int) -> set[int]:
        """Return all that must have run before a statement can: what it reads and calls."""
        found: set[int] = set()
        waiting = set(self.now[index])
        while waiting:
            found |= waiting
            waiting = {j for i in waiting for j in self.now[i] | self.later[i]} - found
        return found

    def _root(self) -> int:
        """Return the last definition of the class, or else the last statement that binds it."""
        defining = [i for i, s in enumerate(self.statements) if self.name in s.defines]
        binding = [i for i, s in enumerate(self.statements) if self.name in s.binds]
        root = (defining or binding or [-1])[-1]
        cell = self.statements[root].cell if root >= 0 else 0
        for broken in self.broken:
            if broken.number > cell and broken.defines(self.name):
                raise SourceError(broken.problem(self.path))
        if root < 0:
            # A star import may bring it, but a class from elsewhere is none of the notebook's.
            raise unknown_name(self.path, self.name, [s for s in self.statements if s.cell])
        return root

    def _changes_after(self, root: int) -> list[int]:
        """Return what is done to the class below its definition, like `Net.forward = forward`."""
        found = []
        for index in range(root + 1, len(self.statements)):
            if self.name in self.statements[index].binds:
                break
            if self.name in self.statements[index].changes:
                found.append(index)
        return found

    def _follow(self, waiting: list[tuple[int, int]]) -> None:
        """Need statements, each called at a place in the notebook, and all that those need."""
        seen = set()
        while waiting:
            index, called_at = waiting.pop()
            if (index, called_at) in seen:
                continue
            seen.add((index, called_at))
            now = self.now.setdefault(index, set())
            later = self.later.setdefault(index, set())
            for read in self.statements[index].reads:
                if read.later and read.root in self.statements[index].binds:
                    continue  # a function that calls itself, a class that names itself in super()
                before = called_at if read.later else index
                found = self._resolve(read, before, index)
                (later if read.later else now).update(found)
                waiting += [(other, before) for other in found]

    def _resolve(self, read: Read, before: int, reader: int) -> set[int]:
        """Return the statements that give a name its value, before a place in the notebook."""
        name = read.root
        givers = [i for i in self._givers.get(name, []) if i != reader]
        above = [i for i in givers if i < before]
        below = [i for i in givers if i >= before and name in self.statements[i].binds]
        sure = [i for i in above if self.statements[i].binds.get(name, True)]
        bound = [i for i in sure if name in self.statements[i].binds]
        if bound and self.statements[bound[-1]].is_import:
            # Settings such as `torch.backends.cudnn.benchmark = True` are no part of a model.
            return self._imports(read, [i for i in bound if self.statements[i].is_import])
        if bound:
            return {sure[-1]}  # the binding, or the latest change to what it bound
        if name in ALWAYS_THERE:
            return set()
        if above:
            return {above[-1]}  # bound in a loop only
        known, unknown = self._star_imports(name)
        if known or below:
            return {known[-1]} if known else {below[0]}
        if not unknown and not any(name in statement.sets for statement in self.statements):
            self._refuse(read, reader)
        return set(unknown)

    def _imports(self, read: Read, imports: list[int]) -> set[int]:
        """Return the imports that a dotted name needs.

        `import torch` and `import torch.utils.tensorboard` both bind `torch`; the second is
        needed only by those who say `torch.utils.tensorboard`.
        """
        latest = {self.statements[i].dotted: i for i in imports}
        asked = {i for dotted, i in latest.items() if f"{read.dotted}.".startswith(f"{dotted}.")}
        return asked or {imports[-1]}

    def _star_imports(self, name: str) -> tuple[list[int], list[int]]:
        """Return the star imports that bring a name, and those of which that is not known yet."""
        known, unknown = [], []
        for index in self._stars:
            for module in self.statements[index].stars:
                if module not in sys.modules:
                    unknown.append(index)
                elif _star_has(module, name):
                    known.append(index)
        return known, unknown

    def _refuse(self, read: Read, reader: int) -> None:
        statement = self.statements[reader]
        names = {name for s in self.statements for name in s.binds}
        problem = (
            f"{self.path}, cell {statement.cell}, line {read.line}: {self.name} needs "
            f"{read.root!r}, and no cell defines it.{did_you_mean(read.root, names)}"
        )
        for cell in self.broken:
            if cell.may_bind(read.root):
                problem += f" A cell that may is not Python: {cell.problem(self.path)}"
        self.problems.append(problem)


def _star_has(module: str, name: str) -> bool:
    """Return whether a module that is already imported gives `name` to a star import."""
    loaded = sys.modules[module]
    public = getattr(loaded, "__all__", None)
    return hasattr(loaded, name) if public is None else name in public
