"""Imports point one way: a module imports lower layers only, never a sibling or a higher one."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src" / "whit"

LAYERS = [
    {
        "errors",
        "evidence",
        "analysis",
        "budget",
        "schedule",
        "streams",
        "toml_text",
        "text_table",
        "field_types",
        "augmentations",
        "optimizers",
        "recipe",
        "runs",
        "record",
        "durable",
        "strange_file",
        "ownership",
        "sameness",
        "seal",
        "stopping",
        "run_folder",
        "run_record",
        "seeds",
        "space",
        "space_file",
        "needed",
        "code_state",
        "job",
        "json_worker",
        "teacher",
    },
    {"data", "models", "optim", "rounding", "weights", "environment", "chance", "checkpoint"},
    {"state"},
    {"planning"},
    {"distillation", "callback"},
    {"objective"},
    {"training", "evaluation", "judging", "preparing"},
    {"keeping"},
    {"run", "trained"},
    {"judge", "listing", "comparison", "progress", "console", "doing"},
    {"worker", "workers"},
    {"cluster_task"},
    {"cluster"},
    {"studying", "trials", "ledger"},
    {"findings"},
    {"search", "study_progress", "frontier_plot"},
    {"search_progress"},
    {"reports", "export"},
    {"web"},
    {"cli", "__init__", "__main__"},
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
# Values may use each other in this order; everywhere else siblings do not know each other.
VALUES = [
    "errors",
    "text_table",
    "analysis",
    "toml_text",
    "streams",
    "schedule",
    "budget",
    "field_types",
    "augmentations",
    "optimizers",
    "recipe",
    "runs",
    "record",
    "durable",
    "strange_file",
    "ownership",
    "sameness",
    "seal",
    "stopping",
    "run_folder",
    "run_record",
    "evidence",
    "seeds",
    "space",
    "space_file",
    "needed",
    "code_state",
    "job",
    "json_worker",
    "teacher",
]


def part_of(path: Path) -> str:
    """The unit of a layer that a file belongs to: its folder, or itself."""
    relative = path.relative_to(PACKAGE)
    return relative.parts[0] if len(relative.parts) > 1 else relative.stem


def imported_parts(path: Path) -> set[str]:
    """Units of whit that a file imports at run time, wherever in the file it does."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    found = set()
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.ImportFrom) and node.module:
            if node.module == "whit":
                found |= {alias.name for alias in node.names}
            elif node.module.startswith("whit."):
                found.add(node.module.split(".")[1])
        elif isinstance(node, ast.Import):
            found |= {a.name.split(".")[1] for a in node.names if a.name.startswith("whit.")}
    return found


# Search spaces are read as a user's own, and import nothing.
FILES = sorted(path for path in PACKAGE.rglob("*.py") if path.parent.name != "spaces")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down(path: Path) -> None:
    me = part_of(path)
    assert me in LEVEL, f"{me} has no layer: add it to LAYERS"
    for other in imported_parts(path) - {me}:
        if LEVEL[me] == LEVEL[other] == 0:
            assert VALUES.index(other) < VALUES.index(me), f"{me} imports {other}"
        elif me != "__main__":
            assert LEVEL[other] < LEVEL[me], f"{me} imports {other}"


def test_values_and_listings_know_no_torch() -> None:
    torchless = (LAYERS[0] - {"analysis"}) | {"listing", "comparison", "console", "cli", "__init__"}
    for path in FILES:
        if part_of(path) not in torchless:
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        names = {
            name
            for node in tree.body  # the top level: inside functions cli and __init__ may
            for name in (
                [alias.name for alias in node.names]
                if isinstance(node, ast.Import)
                else [node.module or ""]
                if isinstance(node, ast.ImportFrom)
                else []
            )
        }
        assert not {n for n in names if n.split(".")[0] == "torch"}, path


def test_training_and_evaluation_open_no_files() -> None:
    for name in ("training.py", "evaluation.py"):
        text = (PACKAGE / name).read_text(encoding="utf-8")
        assert "open(" not in text
        assert "Path" not in text
