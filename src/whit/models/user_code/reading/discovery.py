"""Find the models in a user's file by reading it: which class or function `file.py` alone means.

A model is a class derived from torch.nn.Module, or a function that builds one and returns it. The
layers and base classes of another model of the same file are none, nor is a loss, whose `forward`
takes more than the images. Nothing is executed.
"""

from __future__ import annotations

import ast
import copy
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from textwrap import dedent

from torch import nn

from whit.errors import SourceError
from whit.models.user_code.reading.notebook import Notebook
from whit.models.user_code.reading.python_file import PythonFile
from whit.models.user_code.reading.source import parse_quietly

_MAX_LISTED = 12
# Methods that return the module itself.
_RETURN_SELF = {"to", "cuda", "cpu", "train", "eval", "float", "double", "half", "bfloat16", "type",
                "apply", "requires_grad_", "to_empty"}  # fmt: skip


def find_models(path: Path) -> list[str]:
    """Return the names of the models that a file or notebook defines, in their order.

    Raises SourceError where it cannot be read or parsed.
    """
    try:
        if path.suffix.lower() == ".ipynb":
            statements = [s for s in Notebook.read(path).statements if s.cell and not s.main_line]
            bodies = [parse_quietly(dedent(statement.text)).body for statement in statements]
        else:
            bodies = [PythonFile.read(path).tree.body]
        return _Definitions.read(node for body in bodies for node in body).models()
    except RecursionError as error:
        raise SourceError(f"{path}: its code is nested too deeply.") from error


def find_only_model(path: Path) -> str:
    """Return the name of the model of a file that has one. Raises SourceError for none, or more."""
    names = find_models(path)
    if len(names) == 1:
        return names[0]
    if not names:
        raise SourceError(_explain_no_model(path))
    listed = [f"{path}:{name}" for name in names[:_MAX_LISTED]]
    more = f" and {len(names) - _MAX_LISTED} more" if len(names) > _MAX_LISTED else ""
    raise SourceError(f"{path} defines {len(names)} models: name one of {', '.join(listed)}{more}.")


def _explain_no_model(path: Path) -> list[str]:
    """Return why a file defines no model: the cells that cannot be parsed come first."""
    unparsable = []
    if path.suffix.lower() == ".ipynb":
        notebook = Notebook.read(path)
        nodes = [node for s in notebook.statements for node in parse_quietly(dedent(s.text)).body]
        unparsable = [cell.describe(path) for cell in notebook.unparsable]
    else:
        nodes = PythonFile.read(path).tree.body
        if _is_notebook_json(nodes):
            return [f"{path} contains a notebook, not Python code: give it the suffix .ipynb."]
    if instance := _Definitions.read(nodes).find_instance(nodes):
        hint = (
            f"{instance!r} is a model that is built already: write a function that builds and "
            f"returns it, such as `def build(): return nn.Sequential(...)`."
        )
    else:
        hint = f"Another name can be given as {path}:NAME."
    return [
        *unparsable,
        f"{path} defines no model: neither a class derived from torch.nn.Module nor a function "
        f"that builds and returns one. {hint}",
    ]


def _is_notebook_json(nodes: Sequence[ast.stmt]) -> bool:
    """Whether the statements are the JSON of a notebook, which Python can often parse."""
    expressions = [node.value for node in nodes if isinstance(node, ast.Expr)]
    keys = [
        key.value
        for value in expressions
        if isinstance(value, ast.Dict)
        for key in value.keys
        if isinstance(key, ast.Constant)
    ]
    return len(nodes) == 1 and "nbformat" in keys


@dataclass(slots=True)
class _Definitions:
    """The classes and functions at the top of a file, by name; the last of a name counts."""

    classes: dict[str, ast.ClassDef] = field(default_factory=dict)
    functions: dict[str, ast.FunctionDef] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)  # imported name -> `torch.nn`

    @classmethod
    def read(cls, nodes: Iterable[ast.stmt]) -> _Definitions:
        found = cls()
        for node in nodes:
            found._add(node)
        return found

    def _add(self, node: ast.stmt) -> None:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            earlier = self.classes.pop(node.name, None)
            if earlier and isinstance(node, ast.ClassDef):
                node = self._rename_own_base(node, earlier)
            self.functions.pop(node.name, None)
            if isinstance(node, ast.ClassDef):
                self.classes[node.name] = node
            else:
                self.functions[node.name] = node
        elif isinstance(node, ast.Import):
            for alias in node.names:
                self.origins[alias.asname or alias.name.partition(".")[0]] = (
                    alias.name if alias.asname else alias.name.partition(".")[0]
                )
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                self.origins[alias.asname or alias.name] = f"{node.module or ''}.{alias.name}"
        elif isinstance(node, ast.If | ast.Try | ast.With) and not _is_main_guard(node):
            parts = ("body", "orelse", "handlers", "finalbody")
            for child in (child for part in parts for child in getattr(node, part, [])):
                for statement in child.body if isinstance(child, ast.ExceptHandler) else [child]:
                    self._add(statement)

    def _rename_own_base(self, node: ast.ClassDef, earlier: ast.ClassDef) -> ast.ClassDef:
        """Keep `earlier` under a name that no file can use if `class Net(Net)` derives from it."""
        if node.name not in map(_dotted, node.bases):
            return node
        name = f"{node.name} {len(self.classes)}"
        self.classes[name] = earlier
        bases = [ast.Name(name) if _dotted(base) == node.name else base for base in node.bases]
        renamed = copy.copy(node)
        renamed.bases = list[ast.expr](bases)
        return renamed

    def models(self) -> list[str]:
        modules = {name for name in self.classes if self._is_module(name, set())}
        builders: dict[str, ast.Call | None] = {}  # with the call that builds the model
        for name, function in self.functions.items():
            if function.returns and self._is_free(name) and self._is_base(function.returns):
                builders[name] = None
        for _ in range(len(self.functions)):  # a function may build what another one returns
            before = dict(builders)
            for name, function in self.functions.items():
                names = builders.keys() | self._local_modules(function)
                built = _returned_model(function, partial(self._builds, names=names))
                if built is not None:
                    builders[name] = built
            if builders == before:
                break
        candidates = {name for name in modules if self._takes_images(name)} | builders.keys()
        candidates = candidates or modules
        named = {**self.classes, **self.functions}
        parts = set()
        for name in modules | builders.keys():
            names = {n.id for n in ast.walk(named[name]) if isinstance(n, ast.Name)}
            used = (names & candidates) - {name}
            if name in builders:
                call = builders[name]
                own = _dotted(call.func) if call else ""
                is_default = call is not None and not call.args and not call.keywords
                if own in used and is_default and self._is_free(own):
                    parts.add(name)  # the class itself says as much
                    used.discard(own)
                elif own in modules and self._is_free(own):
                    used.discard(own)  # another size of a class that is a model by itself
            parts |= used
        remaining = candidates - parts or candidates
        # A function with required arguments is more likely a part than a model.
        free = {n for n in remaining if n not in self.functions or self._is_free(n)}
        return sorted(free or remaining, key=lambda name: list(named).index(name))

    def find_instance(self, nodes: Iterable[ast.stmt]) -> str | None:
        """Return the last name that is given a model at the top of the file, or None."""
        found = None
        for node in nodes:
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call):
                target = _dotted(node.targets[0])
                if target.isidentifier() and self._builds(node.value, ()):
                    found = target
        return found

    def _is_module(self, name: str, seen: set[str]) -> bool:
        """Whether a class is derived from torch.nn.Module, as far as its text shows."""
        if name in seen:
            return False
        node = self.classes[name]
        if any(self._is_base(base, seen | {name}) for base in node.bases):
            return True
        # A base of another file: what has a forward method is a module.
        roots = [_dotted(base).partition(".")[0] for base in node.bases]
        unknown = any(root in self.origins for root in roots)
        is_function = any(_dotted(base).endswith("Function") for base in node.bases)
        return unknown and not is_function and self._method(name, "forward") is not None

    def _is_base(self, node: ast.expr, seen: set[str] | frozenset[str] = frozenset()) -> bool:
        """Whether an expression names a class of modules."""
        dotted = _dotted(node)
        if dotted in self.classes:
            return self._is_module(dotted, set(seen))
        origin = self._origin(dotted)
        last = origin.rpartition(".")[2]
        is_module = last.endswith("Module") and not last.endswith("DataModule")
        return is_module or _is_torch_module(origin)

    def _origin(self, dotted: str) -> str:
        """Return `torch.nn.Module` for what is imported under another name."""
        root, _, rest = dotted.partition(".")
        return f"{self.origins.get(root, root)}.{rest}".rstrip(".")

    def _local_modules(self, function: ast.FunctionDef) -> set[str]:
        """Return the classes of modules that are defined inside a function."""
        classes = [node for node in _walk_body(function.body) if isinstance(node, ast.ClassDef)]
        return {c.name for c in classes if any(self._is_base(base) for base in c.bases)}

    def _method(self, name: str, method: str) -> ast.FunctionDef | None:
        """Return a method of a class or of its bases in this file."""
        seen, pending = set(), [name]
        while pending:
            current = pending.pop(0)
            node = self.classes.get(current)
            if node is None or current in seen:
                continue
            seen.add(current)
            for child in node.body:
                if isinstance(child, ast.FunctionDef) and child.name == method:
                    return child
            pending += [_dotted(base) for base in node.bases]
        return None

    def _takes_images(self, name: str) -> bool:
        forward = self._method(name, "forward")
        return forward is None or _num_required(forward) - 1 <= 1

    def _is_free(self, name: str) -> bool:
        """Whether a class or function can be called without arguments."""
        if name in self.functions:
            return _num_required(self.functions[name]) == 0
        init = self._method(name, "__init__")
        return init is None or _num_required(init) - 1 <= 0

    def _builds(self, call: ast.Call, names: Collection[str]) -> bool:
        """Whether a call builds a module: of a class, or of `names`."""
        dotted = _dotted(call.func)
        if dotted in self.classes:
            return self._is_module(dotted, set())
        return dotted in names or _is_torch_module(self._origin(dotted))


def _returned_model(
    function: ast.FunctionDef, builds: Callable[[ast.Call], bool]
) -> ast.Call | None:
    """Return the call that builds what a function returns, where `builds` says it is a model."""
    values: dict[str, ast.Call] = {}

    def model_of(node: ast.expr | None) -> ast.Call | None:
        if isinstance(node, ast.Name):
            return values.get(node.id)
        if not isinstance(node, ast.Call):
            return None
        is_method = isinstance(node.func, ast.Attribute) and node.func.attr in _RETURN_SELF
        inner = model_of(node.func.value) if is_method else None  # type: ignore[attr-defined]
        return inner or (node if builds(node) else None)

    returned = None
    for node in _walk_body(function.body):
        if isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            model = model_of(node.value)
            for target in targets:
                if isinstance(target, ast.Name):
                    values.pop(target.id, None)
                    if model:
                        values[target.id] = model
        elif isinstance(node, ast.Return):
            returned = model_of(node.value) or returned
    return returned


def _walk_body(body: Sequence[ast.stmt]) -> Iterator[ast.stmt]:
    """Yield the statements of a function in their order, without those of functions inside it."""
    for node in body:
        yield node
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            for part in ("body", "orelse", "finalbody"):
                yield from _walk_body(getattr(node, part, []))
            for handler in getattr(node, "handlers", []):
                yield from _walk_body(handler.body)


def _num_required(function: ast.FunctionDef) -> int:
    """Return how many arguments have no default, `self` included."""
    arguments = function.args
    positional = [*arguments.posonlyargs, *arguments.args]
    missing = sum(default is None for default in arguments.kw_defaults)
    return len(positional) - len(arguments.defaults) + missing


def _dotted(node: ast.expr) -> str:
    """Return `torch.nn.Module` of a name or attribute, of `Base[T]` too; else an empty string."""
    if isinstance(node, ast.Subscript):
        return _dotted(node.value)
    if isinstance(node, ast.Attribute):
        owner = _dotted(node.value)
        return f"{owner}.{node.attr}" if owner else ""
    return node.id if isinstance(node, ast.Name) else ""


def _is_torch_module(dotted: str) -> bool:
    """Whether it is a class of torch.nn, such as `torch.nn.Sequential` or `nn.Sequential`."""
    match = re.fullmatch(r"(?:torch\.nn\.|nn\.)?(?:modules\.\w+\.)?(\w+)", dotted)
    kind = getattr(nn, match[1], None) if match else None
    return isinstance(kind, type) and issubclass(kind, nn.Module)


def _is_main_guard(node: ast.stmt) -> bool:
    """Whether it is `if __name__ == "__main__":`."""
    return isinstance(node, ast.If) and "__name__" in ast.unparse(node.test)
