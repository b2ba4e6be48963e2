"""Every fenced block of README.md and the pages is run, generated, or listed with a reason.

docs/doc_blocks.py says how a block is marked. `python docs/generate.py` renews what is generated.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from doc_blocks import (
    ROOT,
    Block,
    BlockError,
    PageRun,
    check,
    differs,
    find_pages,
    is_slow,
    mask,
    read_blocks,
)
from generate import DOCS, REGIONS, with_region

PAGES = find_pages()
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
MAX_NOT_RUN = 21  # blocks that no test executes; each is checked in part below


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shared by the processes of a test run: pytest-xdist gives each a folder beside the others."""
    base = tmp_path_factory.getbasetemp()
    return (base.parent if base.name.startswith("popen-") else base) / "documentation-setup"


def run_page(page: Path, folder: Path, slow: bool, cache: Path | None = None) -> None:
    stale = [
        f"{block.where}: printed this time:\n{printed}"
        for block, printed in PageRun(folder, slow=slow, cache=cache).run(page)
        if differs(block, printed)
    ]
    assert not stale, "\n\n".join(["`python docs/generate.py` renews these:", *stale])


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_a_page_works(page: Path, tmp_path: Path, cache: Path) -> None:
    run_page(page, tmp_path, slow=False, cache=cache)


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if is_slow(page)], ids=str)
def test_a_page_works_as_printed(page: Path, tmp_path: Path) -> None:
    run_page(page, tmp_path, slow=True)


@pytest.mark.parametrize(("page", "name"), REGIONS)
def test_generated_regions_are_fresh(page: str, name: str) -> None:
    text = (DOCS / page).read_text(encoding="utf-8")
    assert text == with_region(text, name, REGIONS[page, name]()), "run `python docs/generate.py`"


def not_run() -> list[Block]:
    blocks = [block for page in PAGES for block in read_blocks(page)]
    return [block for block in blocks if "not run" in block.directives]


def test_blocks_that_are_not_run_are_few() -> None:
    found = not_run()
    assert len(found) <= MAX_NOT_RUN, [block.where for block in found]


@pytest.mark.parametrize("block", not_run(), ids=lambda block: block.where)
def test_blocks_that_are_not_run_name_what_exists(block: Block) -> None:
    """Targets of make, extras of the package, files of the project."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    rules = re.findall(r"(?m)^([a-z0-9 -]+):(?!=)", (ROOT / "Makefile").read_text())
    targets = {target for rule in rules for target in rule.split()}
    commands = [line.partition("#")[0].split() for line in block.text.splitlines()]
    for words in filter(None, commands):
        if words[0] == "make":
            assert set(words[1:]) <= targets, block.where
    for names in re.findall(r"\[([a-z0-9_,]+)\]'", block.text):
        assert set(names.split(",")) <= extras.keys(), block.where
    for name in re.findall(
        r"\b(?:tests|benchmarks|records)/[\w/.-]+\.py", block.directives["not run"]
    ):
        assert (ROOT / name).is_file(), block.where


def page_with(tmp_path: Path, text: str) -> Path:
    page = tmp_path / "page.md"
    page.write_text(text)
    return page


@pytest.mark.parametrize(
    "text",
    [
        "```sh\nwhit plan sprnt\n```",
        "```sh\nfalse\n```",
        "1. In a list:\n\n    ```sh\n    whit plan sprint --set train.epoch=1\n    ```",
        "```python\nimport whit\nwhit.load_recipe('sprnt')\n```",
        "```toml\n[train]\nepoch = 1\n```",
        "```console\n$ whit recipes\n```",
        "```\nwhit recipes\n```",
        "```text\nVerdict: met.\n```",
        "```bash\nwhit recipes\n```",
        "<!-- not run: -->\n```sh\nwhit recipes\n```",
        "<!-- slwo -->\n```sh\nwhit plan sprnt\n```",
        "~~~sh\nfalse\n~~~",
        "```sh\nfalse",
        "<!-- setup\nfalse\n-->",
        "<!-- not run: a comment that belongs to nothing -->\nText.\n\n```sh\nfalse\n```",
    ],
)
def test_a_broken_block_is_found(text: str, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    with pytest.raises(BlockError):
        PageRun(folder).run(page_with(tmp_path, text))


def test_an_old_output_is_found(tmp_path: Path) -> None:
    page = page_with(tmp_path, "```sh\necho 1 new\n```\n\n<!-- output -->\n```text\n1 old\n```\n")
    with pytest.raises(AssertionError, match="1 new"):
        run_page(page, tmp_path, slow=False)


def test_what_differs_from_run_to_run_is_masked() -> None:
    first = "On 1 thread into runs/a-0-20261127T001720Z\nloss 0.23, 1,234 images/s\n-----  ----"
    again = "On 2 threads into runs/a-0-20270101T111111Z\nloss 1e-3, 99 images/s\n---  ------"
    assert mask(first) == mask(again)
    assert mask("Verdict: met.") != mask("Verdict: missed.")


def test_every_fence_is_seen() -> None:
    """Counted another way: lines that begin or end a block."""
    for page in PAGES:
        blocks = [block for block in read_blocks(page) if block.language != "setup"]
        fences = re.findall(r"(?m)^\s*(?:```|~~~)", page.read_text(encoding="utf-8"))
        assert len(fences) == 2 * len(blocks), page


def test_blocks_are_of_known_kinds() -> None:
    for page in PAGES:
        for block in read_blocks(page):
            check(block)


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150


def test_links_of_the_readme_lead_to_files() -> None:
    """Those of the pages are checked by `make docs`."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", text):
        assert target.startswith("https://") or (ROOT / target).exists(), target
