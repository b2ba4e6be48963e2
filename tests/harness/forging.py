"""Results of finished runs changed with a manifest that fits, as a forger or a fixture needs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from whit.runs.manifest import with_manifest


def reseal(run: Path, result: dict[str, Any] | None = None) -> None:
    """Write the result, by default as it is, with the manifest of the files as they are now."""
    result = dict(json.loads((run / "result.json").read_text()) if result is None else result)
    for key in ("files", "digest", "seal"):
        result.pop(key, None)
    (run / "result.json").write_text(json.dumps(with_manifest(result, run)))
