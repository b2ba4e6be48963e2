"""Write what the documentation shows but nobody types: help texts, tables, outputs of commands.

    python docs/generate.py                 everything but outputs of slow blocks
    python docs/generate.py --slow [PAGE]   outputs as printed, of all pages or of these

`tests/docs` compares every page with a fresh generation.
"""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from doc_blocks import (
    ROOT,
    PageRun,
    call_whit,
    differs,
    find_pages,
    is_slow,
    replace_outputs,
)

DOCS = ROOT / "docs"
BEGIN, END = "<!-- begin: docs/generate.py {} -->", "<!-- end: docs/generate.py {} -->"


def commands() -> str:
    """Return the help text of every command, as Markdown."""
    from typer.main import get_command

    from whit.cli.app import app

    parts = [_help([])]
    for name in get_command(app).commands:  # type: ignore[attr-defined]
        parts.append(f"## whit {name}\n\n{_help([name])}")
    return "\n\n".join(parts)


def _help(words: list[str]) -> str:
    with tempfile.TemporaryDirectory() as folder:
        code, text = call_whit(["whit", *words, "--help"], Path(folder))
    assert code == 0, text
    line = " ".join(["whit", *words, "--help"])
    return f"<!-- output of: {line} -->\n```text\n{text.rstrip()}\n```"


def records() -> str:
    """Return the table of claims."""
    sys.path.insert(0, str(ROOT / "records"))
    from pages import table

    return table("../records/")


def recipe_keys() -> str:
    """Return the reference of all recipe keys, from the schema."""
    from whit.models.key_tables import recipe_key_tables
    from whit.recipes.key_reference import key_reference_markdown

    return key_reference_markdown(recipe_key_tables()).rstrip()


def space_keys() -> str:
    """Return the reference of the keys of search spaces, from their schema."""
    from whit.experiments.search.space_schema import space_key_markdown

    return space_key_markdown().rstrip()


# Values that functions return, and that are not public names themselves.
VALUES = (
    "whit.analysis.summary.ParamCounts",
    "whit.runs.result.Evaluation",
    "whit.recipes.budget.Violation",
    "whit.experiments.statistics.SampleStats",
    "whit.experiments.statistics.SignificanceTest",
)


def python_api() -> str:
    """Return a directive of mkdocstrings for each public name: functions, classes, errors."""
    import whit

    functions, classes, errors = [], [], []
    for name in whit.__all__:
        value = getattr(whit, name)
        # Where it is defined: a function may share its public name with a package.
        path = f"{value.__module__}.{value.__qualname__}"
        if not isinstance(value, type):
            functions.append(path)
        else:
            (errors if issubclass(value, Exception) else classes).append(path)
    parts = ["## Functions", *map(_directive, functions)]
    parts += ["## Classes", *map(_directive, [*classes, *VALUES])]
    parts += ["## Exceptions", *map(_directive, errors)]
    return "\n\n".join(parts)


def _directive(name: str) -> str:
    return f"::: {name}"


# Page and name of each generated region.
REGIONS: dict[tuple[str, str], Callable[[], str]] = {
    ("reference/commands.md", "commands"): commands,
    ("reference/recipe-keys.md", "recipe_keys"): recipe_keys,
    ("reference/search-spaces.md", "space_keys"): space_keys,
    ("reference/python-api.md", "python_api"): python_api,
    ("records.md", "records"): records,
}


def with_region(text: str, name: str, content: str) -> str:
    """Return a page with the content of a region replaced. Raises ValueError where it has none."""
    begin, end = BEGIN.format(name), END.format(name)
    pattern = re.compile(f"{re.escape(begin)}\n.*?{re.escape(end)}", re.DOTALL)
    if not pattern.search(text):
        raise ValueError(f"no region {name}")
    return pattern.sub(lambda _: f"{begin}\n\n{content}\n\n{end}", text)


def main(arguments: list[str]) -> None:
    slow = "--slow" in arguments
    chosen = [Path(name).resolve() for name in arguments if name != "--slow"]
    for (page, name), make in REGIONS.items():
        path = DOCS / page
        path.write_text(with_region(path.read_text(), name, make()), encoding="utf-8")
    for path in chosen or find_pages():
        with tempfile.TemporaryDirectory() as folder:
            outputs = PageRun(Path(folder), slow=slow).run(path)
            if replace_outputs(path, outputs, slow):
                print(path.relative_to(ROOT))
        stale = [block for block, printed in outputs if not slow and differs(block, printed)]
        if any("numbers vary" in block.directives for block in stale) and is_slow(path):
            print(f"{path.relative_to(ROOT)}: outdated, renew it with --slow")


if __name__ == "__main__":
    main(sys.argv[1:])
