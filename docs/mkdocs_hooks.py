"""MkDocs hooks: files outside docs/ as pages, and links that work both on disk and in the site.

In the repository, docs/records.md links to ../records/sprint/README.md. The site holds that page as
records/sprint/README.md, so the link is rewritten. A link to a file that is no page, such as an
example, becomes plain text.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
# records/README.md is not among them: docs/records.md has the same table, and the same address.
EXTRA = (
    *("records/*/README.md", "records/frontier.svg", "records/*/*.svg"),
    *("benchmarks/*.md", "CHANGELOG.md"),
)
_LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\[\]]*\])*)\]\(([^)\s#:]+)(#[^)\s]*)?\)")


def _extra() -> dict[str, Path]:
    """Return the files that are added, by their path in the repository and in the site."""
    paths = sorted(path for pattern in EXTRA for path in ROOT.glob(pattern))
    return {path.relative_to(ROOT).as_posix(): path for path in paths}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    for uri, path in _extra().items():
        files.append(File.generated(config, uri, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    extra = _extra()
    uri = page.file.src_uri
    folder = posixpath.dirname(uri if uri in extra else f"docs/{uri}")

    def rewrite(link: re.Match[str]) -> str:
        mark, text, target, anchor = link[1], link[2], link[3], link[4] or ""
        path = posixpath.normpath(posixpath.join(folder, target))
        site = path.removeprefix("docs/") if path.startswith("docs/") else path
        if files.get_file_from_path(site) is None:
            return text if (ROOT / path).exists() else link[0]
        relative = posixpath.relpath(site, posixpath.dirname(uri) or ".")
        return f"{mark}[{text}]({relative}{anchor})"

    return _LINK.sub(rewrite, markdown)
