"""Imports point one way: a package imports only what the table names, and modules form no cycle.

A new module needs no entry here; a new package, or a package that is to import another one, does.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src" / "whit"

# What a package may import beside itself, from the lowest floor to the highest.
MAY_IMPORT = {
    "errors": set[str](),
    "system": {"errors"},
    "analysis": {"system"},
    "recipes": {"errors", "system", "analysis"},
    "runs": {"errors", "system", "recipes"},
    "data": {"errors", "system", "recipes"},
    "models": {"errors", "system", "recipes", "data"},
    "training": {"errors", "system", "recipes", "data", "models", "analysis", "runs"},
}
MAY_IMPORT["verification"] = MAY_IMPORT["training"] | {"training"}
MAY_IMPORT["experiments"] = MAY_IMPORT["verification"] | {"verification"}
MAY_IMPORT["export"] = MAY_IMPORT["verification"] | {"verification"}
MAY_IMPORT["reports"] = MAY_IMPORT["experiments"] | {"experiments"}
MAY_IMPORT["web"] = {
    *("errors", "system", "recipes", "runs", "verification", "experiments", "export", "reports"),
}
MAY_IMPORT["cli"] = set(MAY_IMPORT)
MAY_IMPORT["api"] = set(MAY_IMPORT) - {"cli"}  # the public functions, which import inside
MAY_IMPORT["__init__"] = set(MAY_IMPORT)  # public names, each imported when it is first used
MAY_IMPORT["__main__"] = {"cli", "system"}
# Of some packages only a part is open to others, so that they stay without torch.
ONLY = {
    ("recipes", "analysis"): {"whit.analysis.kinds"},
    ("analysis", "system"): {
        *("whit.system.text_tables", "whit.system.display.html_tables"),
        "whit.system.user_lines",
    },
    ("web", "experiments"): {"whit.experiments.seed_group", "whit.experiments.statistics"},
}

# These import torch nowhere, or only inside functions.
TORCHLESS = ("errors", "system", "recipes", "runs", "cli", "web", "api", "__init__", "__main__")
WITH_TORCH = {"system/rng.py", "web/worker.py"}
TORCHLESS_MODULES = (
    *("experiments/statistics.py", "experiments/seed_group.py", "experiments/comparison.py"),
    "analysis/kinds.py",
)
# The search spaces in the package are read as a user's own, and import nothing.
FILES = sorted(p for p in PACKAGE.rglob("*.py") if p.parent.name != "spaces")


def relative(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def package_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(("whit", *(parts[:-1] if parts[-1] == "__init__" else parts)))


MODULES = {module_name(path): path for path in FILES}


def run_time_nodes(path: Path, *, top_level: bool = False) -> Iterator[ast.AST]:
    """All nodes of a module but those under TYPE_CHECKING."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    nodes = tree.body if top_level else ast.walk(tree)
    return (node for node in nodes if id(node) not in typing_only)


def imported_modules(path: Path, *, top_level: bool = False) -> set[str]:
    """Every module that a file imports at run time, wherever in the file it does."""
    found = set()
    for node in run_time_nodes(path, top_level=top_level):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            submodules = names & MODULES.keys()
            found |= submodules or {node.module}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_imports_point_down(path: Path) -> None:
    me = package_of(path)
    assert me in MAY_IMPORT, f"{me} is no package of the table"
    for name in imported_modules(path):
        if not name.startswith("whit."):
            continue
        other = name.split(".")[1]
        if other == me:
            continue
        assert other in MAY_IMPORT[me], f"{me} may not import {other}"
        open_part = ONLY.get((me, other))
        assert open_part is None or name in open_part, f"{me} may import {open_part} of {other}"


def test_modules_form_no_cycle() -> None:
    graph = {
        name: {other for other in imported_modules(path) if other in MODULES and other != name}
        for name, path in MODULES.items()
        if path.name != "__init__.py"  # it only hands out what its modules define
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"a cycle of imports: {' > '.join(error.args[1])}")


def test_torch_is_imported_where_it_is_needed() -> None:
    """Listing, help and reading runs start at once."""
    for path in FILES:
        name = relative(path)
        if name in WITH_TORCH:
            continue
        if package_of(path) in TORCHLESS or name in TORCHLESS_MODULES:
            imported = imported_modules(path, top_level=True)
            assert not {module for module in imported if module.split(".")[0] == "torch"}, name


def test_training_and_evaluation_open_no_files() -> None:
    for name in ("loop.py", "evaluation.py"):
        text = (PACKAGE / "training" / name).read_text(encoding="utf-8")
        assert "open(" not in text
        assert "Path" not in text


def test_folders_are_small_enough_to_read() -> None:
    counts = Counter(path.parent for path in FILES)
    assert {relative(folder): n for folder, n in counts.items() if n > 14} == {}
    packages = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").is_file()}
    assert len(packages) <= 13
    assert {path.name for path in PACKAGE.glob("*.py")} == {
        *("__init__.py", "__main__.py", "api.py", "errors.py"),
    }


@pytest.mark.parametrize(
    "path", [path for path in FILES if path.name == "__init__.py"], ids=relative
)
def test_packages_say_what_they_are_for(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert ast.get_docstring(tree), f"{relative(path)} has no docstring"
    names = {
        target.id
        for node in tree.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    assert "__all__" in names


# Names that several packages share on purpose: each is the usual word for its file.
SHARED_NAMES = {
    *("app", "build", "html", "layers", "listing", "loader", "mnist", "registry", "result"),
    *("recurrent", "source", "static", "storage", "worker"),
    # A command is called like what it calls.
    *("train", "study", "search", "export"),
}


def test_module_names_are_shared_only_on_purpose() -> None:
    names = Counter(path.stem for path in FILES if path.name != "__init__.py")
    names.update(path.name for path in {path.parent for path in FILES} if path != PACKAGE)
    assert {name for name, n in names.items() if n > 1} <= SHARED_NAMES


def test_no_import_is_renamed_on_the_way_in() -> None:
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("whit"):
                for alias in node.names:
                    assert alias.asname in (None, alias.name), f"{relative(path)}: {alias.asname}"
