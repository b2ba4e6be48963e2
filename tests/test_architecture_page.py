"""docs/ARCHITECTURE.md shows the packages as they are, and names only files that exist.

`WHIT_OVERWRITE=1 pytest tests/test_architecture_page.py` writes the tree anew.
"""

from __future__ import annotations

import ast
import os
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "whit"
PAGE = ROOT / "docs" / "ARCHITECTURE.md"
_WIDTH = 24  # columns of a name


def purpose(path: Path) -> str:
    """The first line of a module's docstring."""
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return text.splitlines()[0].rstrip(".") if text else ""


def tree(folder: Path, indent: str = "  ") -> list[str]:
    """Every package and module below a folder with its purpose, packages last."""
    lines = [
        f"{indent}{path.name:<{_WIDTH}}{purpose(path)}".rstrip()
        for path in sorted(folder.glob("*.py"))
        if path.name != "__init__.py"
    ]
    for path in sorted(path for path in folder.iterdir() if path.is_dir()):
        initial = path / "__init__.py"
        if initial.is_file():
            lines.append(f"{indent}{path.name + '/':<{_WIDTH}}{purpose(initial)}".rstrip())
            lines += tree(path, f"{indent}  ")
        elif path.name != "__pycache__":
            suffixes = sorted({file.suffix for file in path.rglob("*") if file.is_file()})
            lines.append(f"{indent}{path.name + '/':<{_WIDTH}}{', '.join(suffixes)} files")
    return lines


def test_the_page_shows_the_tree() -> None:
    text = PAGE.read_text(encoding="utf-8")
    shown = re.search(r"(?<=```\nsrc/whit/\n).*?(?=```)", text, re.DOTALL)
    assert shown
    expected = "\n".join([*tree(PACKAGE), ""])
    if os.environ.get("WHIT_OVERWRITE"):
        PAGE.write_text(text[: shown.start()] + expected + text[shown.end() :], encoding="utf-8")
    else:
        assert shown.group() == expected


def test_the_page_names_files_that_exist() -> None:
    names = re.findall(r"`([a-z_0-9/.*]+/[a-z_0-9/.*]*)`", PAGE.read_text(encoding="utf-8"))
    assert len(names) > 20
    for name in names:
        found = [path for base in (PACKAGE, ROOT) for path in base.glob(name.rstrip("/"))]
        assert found, name
