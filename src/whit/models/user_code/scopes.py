"""Names: what one piece of Python binds, changes and reads, found without running it."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

# Methods by which a list, set or dictionary is filled, statement after statement.
FILLING = {"add", "append", "clear", "extend", "insert", "pop", "remove", "setdefault", "update"}


@dataclass(frozen=True, slots=True)
class Read:
    """A name that a statement takes from outside itself, with the attributes asked of it."""

    dotted: str  # `torch.nn.Module`
    line: int  # in its cell
    later: bool  # inside a function: not when the statement runs, but when it is called

    @property
    def root(self) -> str:
        return self.dotted.partition(".")[0]


@dataclass(slots=True)
class _Scope:
    kind: str  # "function", "class", or "block" (comprehension, type parameters)
    names: set[str]


class Names(ast.NodeVisitor):
    """Follows Python's scoping rules through one statement.

    A function's names are local throughout its body; a class body's only from where they are
    bound, and never inside its methods; a comprehension's only inside it.
    """

    def __init__(self, lazy_annotations: bool):
        self.binds: dict[str, bool] = {}
        self.changes: set[str] = set()
        self.sets: set[str] = set()
        self.defines: list[str] = []
        self.classes: list[str] = []
        self.reads: list[Read] = []
        self.stars: list[str] = []
        self._lazy_annotations = lazy_annotations
        self._scopes: list[_Scope] = []
        self._loops = 0

    def _bind(self, name: str) -> None:
        for scope in reversed(self._scopes):
            if scope.kind == "class":
                scope.names.add(name)
            if scope.kind != "block":
                return  # a function's local names are known from its start
        self.binds[name] = self.binds.get(name, False) or not self._loops

    def _read(self, dotted: str, node: ast.expr) -> None:
        name = dotted.partition(".")[0]
        for depth, scope in enumerate(reversed(self._scopes)):
            if name in scope.names and (scope.kind != "class" or depth == 0):
                return
        later = any(scope.kind == "function" for scope in self._scopes)
        if later or name not in self.binds:
            self.reads.append(Read(dotted, node.lineno, later))

    def _change(self, target: ast.expr) -> None:
        """Note that the object behind `name.a[0].b` is altered, when done at the top level."""
        while isinstance(target, ast.Attribute | ast.Subscript):
            target = target.value
        at_top = all(scope.kind == "block" for scope in self._scopes)
        if isinstance(target, ast.Name) and at_top:
            self.changes.add(target.id)

    def _all(self, nodes: Iterable[ast.AST | None]) -> None:
        for node in nodes:
            if node is not None:
                self.visit(node)

    def _inside(self, kind: str, names: Iterable[str], nodes: Iterable[ast.AST | None]) -> None:
        self._scopes.append(_Scope(kind, set(names)))
        self._all(nodes)
        self._scopes.pop()

    # Names and what hangs on them

    def visit_Name(self, node: ast.Name) -> None:
        if isinstance(node.ctx, ast.Store):
            self._bind(node.id)
        elif isinstance(node.ctx, ast.Load):
            self._read(node.id, node)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        parts = [node.attr]
        value = node.value
        while isinstance(value, ast.Attribute):
            parts.append(value.attr)
            value = value.value
        if isinstance(value, ast.Name):
            self._read(".".join([value.id, *reversed(parts)]), value)
        else:
            self.visit(node.value)
        if isinstance(node.ctx, ast.Store):
            self._change(node)

    def visit_Subscript(self, node: ast.Subscript) -> None:
        self.generic_visit(node)
        if isinstance(node.ctx, ast.Store):
            self._change(node)

    def visit_Call(self, node: ast.Call) -> None:
        self.generic_visit(node)
        if isinstance(node.func, ast.Attribute) and node.func.attr in FILLING:
            self._change(node.func)

    # Bindings: the value is read before the name is bound

    def visit_Assign(self, node: ast.Assign) -> None:
        self._all([node.value, *node.targets])

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        in_function = bool(self._scopes) and self._scopes[-1].kind == "function"
        if not (self._lazy_annotations or in_function):
            self.visit(node.annotation)
        if node.value is not None:
            self._all([node.value, node.target])

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        self.visit(node.value)
        if isinstance(node.target, ast.Name):
            self._read(node.target.id, node.target)
            if self._scopes:
                self._bind(node.target.id)
        else:
            self.visit(node.target)
        self._change(node.target)

    def visit_NamedExpr(self, node: ast.NamedExpr) -> None:
        self._all([node.value, node.target])

    def visit_For(self, node: ast.For | ast.AsyncFor) -> None:
        self.visit(node.iter)
        self._loops += 1
        self._all([node.target, *node.body, *node.orelse])
        self._loops -= 1

    visit_AsyncFor = visit_For

    def visit_While(self, node: ast.While) -> None:
        self._loops += 1
        self.generic_visit(node)
        self._loops -= 1

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            self._bind(alias.asname or alias.name.partition(".")[0])

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        for alias in node.names:
            if alias.name == "*":
                self.stars.append("." * node.level + (node.module or ""))
            else:
                self._bind(alias.asname or alias.name)

    def visit_Global(self, node: ast.Global) -> None:
        self.sets.update(node.names)

    def _named(
        self, node: ast.ExceptHandler | ast.MatchAs | ast.MatchStar | ast.MatchMapping
    ) -> None:
        name = node.rest if isinstance(node, ast.MatchMapping) else node.name
        if name:
            self._bind(name)
        self.generic_visit(node)

    visit_ExceptHandler = _named
    visit_MatchAs = _named
    visit_MatchStar = _named
    visit_MatchMapping = _named

    # Scopes

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        self._all(node.decorator_list)
        if not self._scopes:
            self.defines.append(node.name)
        self._bind(node.name)
        arguments = node.args
        self._all([*arguments.defaults, *arguments.kw_defaults])
        type_names = _type_parameters(node)
        if not self._lazy_annotations:
            annotations = [a.annotation for a in _every_argument(arguments)]
            self._inside("block", type_names, [*annotations, node.returns])
        local = {a.arg for a in _every_argument(arguments)} | _bound_in(node.body)
        self._inside("function", local | type_names, node.body)

    visit_AsyncFunctionDef = visit_FunctionDef

    def visit_Lambda(self, node: ast.Lambda) -> None:
        self._all([*node.args.defaults, *node.args.kw_defaults])
        local = {a.arg for a in _every_argument(node.args)} | _bound_in([node.body])
        self._inside("function", local, [node.body])

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self._all(node.decorator_list)
        self._scopes.append(_Scope("block", _type_parameters(node)))
        self._all([*node.bases, *node.keywords])
        self._inside("class", (), node.body)
        self._scopes.pop()
        if not self._scopes:
            self.defines.append(node.name)
            self.classes.append(node.name)
        self._bind(node.name)

    def visit_TypeAlias(self, node: ast.AST) -> None:  # from Python 3.12; its value is lazy
        alias = getattr(node, "name", None)
        if isinstance(alias, ast.Name):
            self._bind(alias.id)

    def _comprehension(
        self, node: ast.ListComp | ast.SetComp | ast.GeneratorExp | ast.DictComp
    ) -> None:
        first, *others = node.generators
        self.visit(first.iter)
        targets = {
            name.id
            for generator in node.generators
            for name in ast.walk(generator.target)
            if isinstance(name, ast.Name)
        }
        values = [node.key, node.value] if isinstance(node, ast.DictComp) else [node.elt]
        inner = [*first.ifs, *(part for g in others for part in (g.iter, *g.ifs)), *values]
        self._inside("block", targets, inner)

    visit_ListComp = _comprehension
    visit_SetComp = _comprehension
    visit_DictComp = _comprehension
    visit_GeneratorExp = _comprehension


def _every_argument(arguments: ast.arguments) -> list[ast.arg]:
    starred = [a for a in (arguments.vararg, arguments.kwarg) if a is not None]
    return [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, *starred]


def _type_parameters(node: ast.AST) -> set[str]:
    """Return `T` of `class Net[T]` and `def f[T]`, from Python 3.12 on."""
    return {parameter.name for parameter in getattr(node, "type_params", [])}


def _bound_in(body: Sequence[ast.AST]) -> set[str]:
    """Return the names that a function's body makes local, less those it declares global."""
    names = _Bound()
    for node in body:
        names.visit(node)
    return names.local - names.declared_global


class _Bound(ast.NodeVisitor):
    """Collects the names bound in one function body, not those of the scopes inside it."""

    def __init__(self) -> None:
        self.local: set[str] = set()
        self.declared_global: set[str] = set()

    def visit_Name(self, node: ast.Name) -> None:
        if not isinstance(node.ctx, ast.Load):
            self.local.add(node.id)

    def visit_Global(self, node: ast.Global) -> None:
        self.declared_global.update(node.names)

    def visit_alias(self, node: ast.alias) -> None:
        self.local.add(node.asname or node.name.partition(".")[0])

    def _named(self, node: ast.AST) -> None:
        name = getattr(node, "name", None) or getattr(node, "rest", None)
        if isinstance(name, str):
            self.local.add(name)
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            self.generic_visit(node)

    visit_FunctionDef = _named
    visit_AsyncFunctionDef = _named
    visit_ClassDef = _named
    visit_ExceptHandler = _named
    visit_MatchAs = _named
    visit_MatchStar = _named
    visit_MatchMapping = _named

    def visit_Lambda(self, node: ast.Lambda) -> None:
        pass

    def _only_walrus(self, node: ast.AST) -> None:
        for inner in ast.walk(node):
            if isinstance(inner, ast.NamedExpr):
                self.local.add(inner.target.id)

    visit_ListComp = _only_walrus
    visit_SetComp = _only_walrus
    visit_DictComp = _only_walrus
    visit_GeneratorExp = _only_walrus
