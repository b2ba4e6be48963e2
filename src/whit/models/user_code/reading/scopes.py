"""Static name analysis: what a top-level statement of Python binds, mutates and uses."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from whit.models.user_code.reading.statements import NameUse, Statement

Comprehension = ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp
# Methods that mutate a list, set or dictionary.
MUTATORS = {"add", "append", "clear", "extend", "insert", "pop", "remove", "setdefault", "update"}
# Methods that do not change what a network is built from: of modules, tensors and data frames,
# of loggers and figures. Any other method that is called as a statement may change its object.
NON_MUTATORS = {
    *("backward", "bfloat16", "compile", "cpu", "cuda", "double", "eval", "fit", "float", "half"),
    *("load_state_dict", "mps", "parameters", "requires_grad_", "step", "summary", "to", "train"),
    *("xpu", "zero_grad", "add_graph", "add_image", "add_scalar", "close", "describe", "draw"),
    *("finish", "flush", "head", "imshow", "info", "log", "plot", "print_help", "save", "savefig"),
    *("show", "tail", "watch", "write", "debug", "warning", "error", "forward", "test", "validate"),
}
# Functions that read or write names by their text.
DYNAMIC = {"globals", "locals", "vars", "exec"}


def analyze_statement(
    node: ast.stmt,
    text: str = "",
    cell: int = 0,
    lazy_annotations: bool = False,
    first_line: int | None = None,
    main_line: int = 0,
) -> Statement:
    """Return a top-level node as a Statement."""
    dotted = ""
    if isinstance(node, ast.Import | ast.ImportFrom):
        # `import a.b as c` binds c to a.b itself: its uses start with `c.`, never with `a.b.`.
        from_future = getattr(node, "module", None) == "__future__"
        dotted = "__future__." if from_future else node.names[0].asname or node.names[0].name
    line = node.lineno if first_line is None else first_line
    is_import = bool(dotted)
    last_line = node.end_lineno or node.lineno
    statement = Statement(text, cell, line, last_line, is_import, dotted, main_line)
    ScopeAnalyzer(statement, lazy_annotations or sys.version_info >= (3, 14)).visit(node)
    statement.may_bind.update(statement.binds.keys() - _definite_names([node]))
    return statement


def _definite_names(body: Sequence[ast.stmt]) -> set[str]:
    """Return the names that statements bind on every path through them."""
    names: set[str] = set()
    for node in body:
        if isinstance(node, ast.If):
            names |= _definite_names(node.body) & _definite_names(node.orelse)
        elif isinstance(node, ast.Try | ast.TryStar):
            paths = [_definite_names([*node.body, *node.orelse])]
            handlers = [h for h in node.handlers if not isinstance(h.body[-1], ast.Raise)]
            paths += [_definite_names(handler.body) for handler in handlers]
            names |= set.intersection(*paths) | _definite_names(node.finalbody)
        elif isinstance(node, ast.With):
            suppresses = any("suppress" in ast.unparse(item) for item in node.items)
            names |= set() if suppresses else _definite_names(node.body)
        elif not isinstance(node, ast.For | ast.AsyncFor | ast.While | ast.Match):
            analyzed = Statement("", 0, 0, 0, is_import=False, dotted="")
            ScopeAnalyzer(analyzed, lazy_annotations=True).visit(node)
            names |= analyzed.binds.keys()
    return names


@dataclass(slots=True)
class _Scope:
    kind: str  # "function", "class", or "block" (comprehension, type parameters)
    names: set[str]


class ScopeAnalyzer(ast.NodeVisitor):
    """Records the names that a statement deals with, by Python's scoping rules.

    A function's names are local throughout its body; those of a class body only from where they
    are bound, and never inside its methods; those of a comprehension only inside it.
    """

    def __init__(self, statement: Statement, lazy_annotations: bool):
        self.statement = statement
        self._lazy_annotations = lazy_annotations
        self._scopes: list[_Scope] = []
        self._loop_depth = 0

    def _bind(self, name: str) -> None:
        for scope in reversed(self._scopes):
            if scope.kind == "class":
                scope.names.add(name)
            if scope.kind != "block":
                return  # a function's local names are known from its start
        binds = self.statement.binds
        binds[name] = binds.get(name, False) or not self._loop_depth

    def _use(self, dotted: str, node: ast.expr) -> None:
        name = dotted.partition(".")[0]
        for depth, scope in enumerate(reversed(self._scopes)):
            if name in scope.names and (scope.kind != "class" or depth == 0):
                return
        deferred = any(scope.kind == "function" for scope in self._scopes)
        if deferred or name not in self.statement.binds:
            self.statement.uses.append(NameUse(dotted, node.lineno, deferred))

    @property
    def _at_top(self) -> bool:
        return all(scope.kind == "block" for scope in self._scopes)

    @property
    def _in_function(self) -> bool:
        return any(scope.kind == "function" for scope in self._scopes)

    def _mutate(self, target: ast.expr) -> None:
        """Record that `name` in `name.a[0].b` or `vars(name)["b"]` is mutated.

        In a function it happens when that is called.
        """
        name = _find_root(target)
        if name is None:
            return
        if self._at_top:
            self.statement.mutates.add(name)
            while isinstance(target, ast.Subscript):
                target = target.value
            self.statement.sets.add(ast.unparse(target))
        elif self._in_function and not any(name in scope.names for scope in self._scopes):
            self.statement.later_mutates.add(name)

    def _visit_all(self, nodes: Iterable[ast.AST | None]) -> None:
        for node in nodes:
            if node is not None:
                self.visit(node)

    def _visit_in(self, kind: str, names: Iterable[str], nodes: Iterable[ast.AST | None]) -> None:
        self._scopes.append(_Scope(kind, set(names)))
        self._visit_all(nodes)
        self._scopes.pop()

    # Names, attributes and items

    def visit_Name(self, node: ast.Name) -> None:
        if isinstance(node.ctx, ast.Store):
            self._bind(node.id)
        elif isinstance(node.ctx, ast.Load):
            self._use(node.id, node)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        parts = [node.attr]
        value = node.value
        while isinstance(value, ast.Attribute):
            parts.append(value.attr)
            value = value.value
        if isinstance(value, ast.Name):
            self._use(".".join([value.id, *reversed(parts)]), value)
        else:
            self.visit(node.value)
        if isinstance(node.ctx, ast.Store):
            self._mutate(node)

    def visit_Subscript(self, node: ast.Subscript) -> None:
        self.generic_visit(node)
        if isinstance(node.ctx, ast.Store):
            self._mutate(node)

    def visit_Call(self, node: ast.Call) -> None:
        self.generic_visit(node)
        function = node.func
        if isinstance(function, ast.Attribute) and function.attr in MUTATORS:
            self._mutate(function.value)
        if not isinstance(function, ast.Name):
            return
        if function.id in {"setattr", "delattr"} and node.args:
            self._mutate(node.args[0])
        if not self._in_function:
            self.statement.calls.add(function.id)
        if function.id in DYNAMIC and not (function.id == "vars" and node.args):
            self.statement.is_dynamic.append(self._in_function)

    def visit_Expr(self, node: ast.Expr) -> None:
        self.generic_visit(node)
        call = node.value
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and self._at_top:
            name = _find_root(call.func)
            if name is not None and call.func.attr not in NON_MUTATORS:
                self.statement.method_calls.add(name)

    def _visit_decorators(self, decorators: Iterable[ast.expr]) -> None:
        """A decorator is called: it may register what it decorates."""
        for decorator in decorators:
            self.visit(decorator)
            called = decorator.func if isinstance(decorator, ast.Call) else decorator
            name = _find_root(called)
            if name is None or not self._at_top:
                continue
            is_method = isinstance(called, ast.Attribute)
            (self.statement.method_calls if is_method else self.statement.calls).add(name)

    # Bindings: the value is read before the name is bound

    def visit_Assign(self, node: ast.Assign) -> None:
        self._visit_all([node.value, *node.targets])
        # `group = parser.add_argument_group()`: what is added to group is added to parser.
        call, target = node.value, node.targets[0]
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute):
            name = _find_root(call.func)
            if name and call.func.attr.startswith("add_") and isinstance(target, ast.Name):
                self.statement.shares[target.id] = name
                self._mutate(call.func)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        in_function = bool(self._scopes) and self._scopes[-1].kind == "function"
        if not in_function and self._lazy_annotations:
            # A dataclass looks up `typing` in the module to find a ClassVar.
            names = [n for n in ast.walk(node.annotation) if isinstance(n, ast.Name)]
            uses = [NameUse(name.id, name.lineno, deferred=True, optional=True) for name in names]
            self.statement.uses.extend(uses)
        elif not in_function:
            self.visit(node.annotation)
        if node.value is not None:
            self._visit_all([node.value, node.target])

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        self.visit(node.value)
        if isinstance(node.target, ast.Name):
            self._use(node.target.id, node.target)
            if self._scopes:
                self._bind(node.target.id)
        else:
            self.visit(node.target)
        self._mutate(node.target)

    def visit_NamedExpr(self, node: ast.NamedExpr) -> None:
        self._visit_all([node.value, node.target])

    def visit_For(self, node: ast.For | ast.AsyncFor) -> None:
        self.visit(node.iter)
        self._loop_depth += 1
        self._visit_all([node.target, *node.body, *node.orelse])
        self._loop_depth -= 1

    visit_AsyncFor = visit_For

    def visit_While(self, node: ast.While) -> None:
        self._loop_depth += 1
        self.generic_visit(node)
        self._loop_depth -= 1

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            self._bind(alias.asname or alias.name.partition(".")[0])

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        for alias in node.names:
            if alias.name == "*":
                self.statement.stars.append("." * node.level + (node.module or ""))
            else:
                self._bind(alias.asname or alias.name)

    def visit_Global(self, node: ast.Global) -> None:
        self.statement.declares_global.update(node.names)

    def _visit_named(self, node: ast.AST) -> None:
        if name := _get_name(node):
            self._bind(name)
        self.generic_visit(node)

    visit_ExceptHandler = _visit_named
    visit_MatchAs = _visit_named
    visit_MatchStar = _visit_named
    visit_MatchMapping = _visit_named

    # Scopes

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        self._visit_decorators(node.decorator_list)
        if not self._scopes:
            self.statement.defines.append(node.name)
        self._bind(node.name)
        arguments = node.args
        self._visit_all([*arguments.defaults, *arguments.kw_defaults])
        type_names = _type_parameters(node)
        if not self._lazy_annotations:
            annotations = [a.annotation for a in _all_arguments(arguments)]
            self._visit_in("block", type_names, [*annotations, node.returns])
        local = {a.arg for a in _all_arguments(arguments)} | _find_locals(node.body)
        self._visit_in("function", local | type_names, node.body)

    visit_AsyncFunctionDef = visit_FunctionDef

    def visit_Lambda(self, node: ast.Lambda) -> None:
        self._visit_all([*node.args.defaults, *node.args.kw_defaults])
        local = {a.arg for a in _all_arguments(node.args)} | _find_locals([node.body])
        self._visit_in("function", local, [node.body])

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self._visit_decorators(node.decorator_list)
        self._scopes.append(_Scope("block", _type_parameters(node)))
        self._visit_all([*node.bases, *node.keywords])
        self._visit_in("class", (), node.body)
        self._scopes.pop()
        if not self._scopes:
            self.statement.defines.append(node.name)
            self.statement.classes.append(node.name)
        self._bind(node.name)

    def visit_TypeAlias(self, node: Any) -> None:  # from Python 3.12; its value is lazy
        self._bind(node.name.id)

    def _visit_comprehension(self, node: Comprehension) -> None:
        first, *others = node.generators
        self.visit(first.iter)
        targets = [target for g in node.generators for target in ast.walk(g.target)]
        names = {target.id for target in targets if isinstance(target, ast.Name)}
        values = [node.key, node.value] if isinstance(node, ast.DictComp) else [node.elt]
        inner = [*first.ifs, *(part for g in others for part in (g.iter, *g.ifs)), *values]
        self._visit_in("block", names, inner)

    visit_ListComp = _visit_comprehension
    visit_SetComp = _visit_comprehension
    visit_DictComp = _visit_comprehension
    visit_GeneratorExp = _visit_comprehension


def _find_root(node: ast.expr) -> str | None:
    """Return `name` of `name.a[0].b` and of `vars(name)["b"]`; None for other expressions."""
    while not isinstance(node, ast.Name):
        if isinstance(node, ast.Attribute | ast.Subscript):
            node = node.value
        elif isinstance(node, ast.Call) and node.args and ast.unparse(node.func) == "vars":
            node = node.args[0]
        else:
            return None
    return node.id


def _all_arguments(arguments: ast.arguments) -> list[ast.arg]:
    return [child for child in ast.iter_child_nodes(arguments) if isinstance(child, ast.arg)]


def _type_parameters(node: ast.AST) -> set[str]:
    """Return `T` of `class Net[T]` and `def f[T]`, from Python 3.12 on."""
    return {parameter.name for parameter in getattr(node, "type_params", [])}


def _get_name(node: ast.AST) -> str | None:
    """Return the name that a definition, an exception handler or a pattern binds."""
    name = getattr(node, "name", None) or getattr(node, "rest", None)
    return name if isinstance(name, str) else None


def _find_locals(body: Sequence[ast.AST]) -> set[str]:
    """Return the local names of a function's body, without those it declares global.

    Functions, classes, lambdas and comprehensions inside it have scopes of their own; only a
    comprehension's `:=` binds a name outside it.
    """
    local: set[str] = set()
    declared_global: set[str] = set()
    pending = list(body)
    while pending:
        node = pending.pop()
        if isinstance(node, Comprehension):
            local |= {n.target.id for n in ast.walk(node) if isinstance(n, ast.NamedExpr)}
            continue
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            local.add(node.id)
        elif isinstance(node, ast.Global):
            declared_global.update(node.names)
        elif isinstance(node, ast.alias):
            local.add(node.asname or node.name.partition(".")[0])
        elif name := _get_name(node):
            local.add(name)
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda):
            pending += ast.iter_child_nodes(node)
    return local - declared_global
