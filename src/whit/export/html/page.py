"""The drawing page of one network: a single self-contained HTML file."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html import escape
from importlib import resources
from string import Template
from typing import Any

# The modules in an order in which each finds what it imports.
_MODULES = (
    *("network.js", "digits.js", "pad.js", "panel.js", "picture.js", "sheet.js", "alone.js"),
)
_IMPORT = re.compile(r'^import \{[^}]*\} from "\./[a-z]+\.js";\n', re.MULTILINE)
_EXPORT = re.compile(r"^export (?=(?:async )?(?:function|class|const) )", re.MULTILINE)


def drawing_page(network: dict[str, Any], description: str) -> str:
    """Return the page for a network from `graph_json`; `description` is one line about the run.

    Its content security policy allows only its own style and script, and no requests.
    """
    script = "".join(_strip_imports(static_file(name)) for name in _MODULES)
    style = static_file("draw.css")
    return Template(static_file("draw.html")).substitute(
        title=escape(network["name"]),
        description=escape(description),
        # In a script element, only "</script" and "<!--" would be misread.
        network=json.dumps(network, separators=(",", ":")).replace("<", "\\u003c"),
        script=script,
        script_sha256=_digest(script),
        style=style,
        style_sha256=_digest(style),
    )


def static_file(name: str) -> str:
    """Return the text of a file in `static/`."""
    folder = resources.files("whit") / "export" / "html" / "static"
    return (folder / name).read_text(encoding="utf-8")


def _strip_imports(module: str) -> str:
    """Return a module without its imports and exports, to be concatenated into one script."""
    return _EXPORT.sub("", _IMPORT.sub("", module))


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
