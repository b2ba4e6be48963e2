"""Show that two versions of whit give the same results: for changes of structure alone.

    python benchmarks/compare_versions.py snapshot FOLDER [--source CHECKOUT]
    python benchmarks/compare_versions.py compare FOLDER FOLDER
    python benchmarks/compare_versions.py speed CHECKOUT [--pairs N]

A snapshot runs the command line of one checkout and keeps what it gives:

- `plan --json` and `audit --json` of every built-in recipe, among them the published totals;
- a run of `sprint` and a run of one epoch of every built-in recipe: weights and logs;
- recorded runs as `runs`, `audit`, `compare` and `report` show them, and one of them exported to
  ONNX, C and HTML, in float32 and int8;
- the golden files of the tests.

`compare` lists every difference and exits with 1 when there is one. Not compared are times, the
digest of whit's own code, and the digests of files that contain either. Keys that a newer
`result.json` adds are listed, and are no difference. Training uses one thread, because the number
of threads changes the bytes. A snapshot takes about ten minutes on an idle machine.

`speed` trains one epoch of `sprint` with the other checkout and with this one, in turn, and prints
the ratio of training times (this one / the other) of every pair. It needs an idle machine.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).parents[1]
EXPORTED = "sprint-0"
RECORDS = {
    EXPORTED: "sprint/*/seed-0",
    "sprint-1": "sprint/*/seed-1",
    "tiniest-0": "tiniest/*/seed-0",
    "sharpest-0": "sharpest/*/seed-0",
    "smallest-99-0": "smallest-99/*/seed-0",
    "published-17098-1000": "published/published-17098-*/seed-1000",
    "uplift-16848-0": "uplift/uplift-16848-*/seed-0",
}
FORMATS = {
    "onnx": ("--format", "onnx"),
    "onnx-int8": ("--format", "onnx", "--int8"),
    "c": ("--format", "c"),
    "c-int8": ("--format", "c", "--int8"),
    "html": ("--format", "html"),
}
# Keys of JSON whose values depend on the clock, the machine's load or whit's own code.
VOLATILE = {"seconds", "sha256", "files", "digest", "code", "commit", "created", "folder"}
CODE_DIGEST = re.compile(r"\b[0-9a-f]{64}\b|\b[0-9a-f]{12}\b")


class Snapshot:
    """Runs the whit of one checkout in a folder, and keeps results under its names there."""

    def __init__(self, folder: Path, source: Path):
        self.folder = folder
        self.source = source
        self.environment = {
            **os.environ,
            "PYTHONPATH": str(source / "src"),
            "OMP_NUM_THREADS": "1",
            "COLUMNS": "100",
        }

    def whit(self, *arguments: str) -> str:
        """Return what a command prints on standard output, with its exit code below it."""
        done = subprocess.run(
            [sys.executable, "-m", "whit", *arguments],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
        )
        print(f"whit {' '.join(arguments)}: {done.returncode}", flush=True)
        refusal = done.stderr if done.returncode > 1 else ""
        return f"{done.stdout}{refusal}\nexit code {done.returncode}\n"

    def keep(self, name: str, content: str) -> None:
        file = self.folder / "results" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content, encoding="utf-8")

    def take(self) -> None:
        listed = self.whit("recipes", "--json").rpartition("\nexit")[0]
        recipes = [row["name"] for row in json.loads(listed)]
        self.keep("recipes.json", listed)
        for recipe in recipes:
            self.keep(f"plan/{recipe}.json", self.whit("plan", recipe, "--json"))
            self.keep(f"plan/{recipe}.txt", self.whit("plan", recipe))
            self.keep(f"audit/{recipe}.json", self.whit("audit", recipe, "--json"))
        self.take_records()
        self.take_exports()
        self.keep_digests("golden", self.source / "tests" / "golden")
        self.train("sprint", "sprint")
        for recipe in recipes:
            self.train(f"{recipe}-one-epoch", recipe, "--set", "train.epochs=1")

    def take_records(self) -> None:
        """Copy recorded runs to the same relative paths, whatever the checkout is called."""
        for name, pattern in RECORDS.items():
            (run,) = (ROOT / "records").glob(pattern)
            shutil.copytree(run, self.folder / "runs" / name)
            self.keep(f"records/{name}.audit.json", self.whit("audit", f"runs/{name}", "--json"))
            self.keep(f"records/{name}.audit.txt", self.whit("audit", f"runs/{name}"))
        self.keep("records/runs.json", self.whit("runs", "runs", "--json"))
        self.keep("records/runs.txt", self.whit("runs", "runs"))
        pair = (f"runs/{EXPORTED}", "runs/tiniest-0")
        self.keep("records/compare.json", self.whit("compare", *pair, "--json"))
        self.keep("records/compare.txt", self.whit("compare", *pair))
        for name in RECORDS:
            self.whit("report", f"runs/{name}", "--out", f"results/records/{name}.html")
        markdown = ("--markdown", "--out", f"results/records/{EXPORTED}.md")
        self.whit("report", f"runs/{EXPORTED}", *markdown)

    def take_exports(self) -> None:
        for name, arguments in FORMATS.items():
            out = self.folder / "exported" / name
            out.parent.mkdir(exist_ok=True)
            self.whit("export", f"runs/{EXPORTED}", *arguments, "--out", str(out))
            self.keep_digests(f"exported/{name}", out)

    def train(self, name: str, recipe: str, *arguments: str) -> None:
        """Keep what a training decides; its messages hold times, and are left out."""
        run = self.folder / "trained" / name
        self.whit("train", recipe, "--threads", "1", "--out", str(run), *arguments)
        for file in ("recipe.toml", "log.jsonl", "result.json"):
            if (run / file).exists():
                self.keep(f"trained/{name}/{file}", (run / file).read_text(encoding="utf-8"))

    def keep_digests(self, name: str, path: Path) -> None:
        """Keep the SHA-256 of a file, or of all files of a folder by their names."""
        files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
        lines = [
            f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.relative_to(path).as_posix()}"
            for file in files
        ]
        self.keep(f"{name}.digests", "\n".join([*lines, ""]))


def comparable(file: Path) -> Any:
    """Return a kept result without what depends on the clock or on whit's own code."""
    if file.suffix == ".png":
        return hashlib.sha256(file.read_bytes()).hexdigest()
    text = file.read_text(encoding="utf-8")
    if file.suffix == ".jsonl":
        return [without_volatile(json.loads(line)) for line in text.splitlines()]
    if file.suffix == ".json":
        value, printed, code = text.rpartition("\nexit code ")
        if not printed:
            return without_volatile(json.loads(text))
        return (without_volatile(json.loads(value)), code) if code in ("0\n", "1\n") else text
    return text if file.suffix == ".digests" else CODE_DIGEST.sub("<digest>", text)


def without_volatile(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: without_volatile(v) for k, v in value.items() if k not in VOLATILE}
    return [without_volatile(item) for item in value] if isinstance(value, list) else value


def differences(before: Any, after: Any, path: str, added: list[str]) -> Iterator[str]:
    """Yield where two JSON values differ; keys that only `after` has go to `added`."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key in before.keys() | after.keys():
            if key not in before:
                added.append(f"{path.rpartition('/')[2]}: {key}")
            elif key not in after:
                yield f"{path}: {key} is missing"
            else:
                yield from differences(before[key], after[key], f"{path}.{key}", added)
    elif isinstance(before, list | tuple) and isinstance(after, list | tuple):
        if len(before) != len(after):
            yield f"{path}: {len(before)} items, {len(after)} items"
        for i, (first, second) in enumerate(zip(before, after, strict=False)):
            yield from differences(first, second, f"{path}[{i}]", added)
    elif isinstance(before, str) and isinstance(after, str) and before != after:
        lines = zip(before.splitlines(), after.splitlines(), strict=False)
        first = next(((a, b) for a, b in lines if a != b), ("", "(one is longer)"))
        yield f"{path}:\n    {first[0][:200]}\n    {first[1][:200]}"
    elif before != after:
        yield f"{path}: {before!r}, {after!r}"


def compare(before: Path, after: Path) -> int:
    """Print every difference between two snapshots; return how many there are."""
    results = [folder / "results" for folder in (before, after)]
    names = [
        {f.relative_to(folder).as_posix() for f in folder.rglob("*") if f.is_file()}
        for folder in results
    ]
    found = [f"{name}: only in one" for name in sorted(names[0] ^ names[1])]
    added: list[str] = []
    for name in sorted(names[0] & names[1]):
        before_value, after_value = (comparable(folder / name) for folder in results)
        found += differences(before_value, after_value, name, added)
    for line in found:
        print(line)
    if added:
        print(f"Keys that were added: {', '.join(sorted(set(added)))}")
    print(f"{len(names[0] & names[1])} results compared, {len(found)} differences")
    return len(found)


def speed(other: Path, pairs: int) -> None:
    """Print the training seconds of one epoch of `sprint`, other and this in turn, and ratios."""
    ratios = []
    for pair in range(-1, pairs):  # the first pair warms the file caches and is not counted
        times = [train_seconds(source) for source in (other, ROOT)]
        if pair >= 0:
            ratios.append(times[1] / times[0])
            print(f"{times[0]:.3f} s, {times[1]:.3f} s, ratio {ratios[-1]:.3f}", flush=True)
    print(f"median ratio {median(ratios):.3f}, {min(ratios):.3f} to {max(ratios):.3f}")


def train_seconds(source: Path) -> float:
    """Return the training seconds that a run of one epoch of `sprint` reports."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "whit", "train", "sprint", "--set", "train.epochs=1"]
        done = subprocess.run(
            [*command, "--json", "--quiet", "--out", f"{folder}/run"],
            env={**os.environ, "PYTHONPATH": str(source / "src")},
            capture_output=True,
            text=True,
        )
        seconds: float = json.loads(done.stdout)["seconds"]["train"]
        return seconds


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    snapshot = commands.add_parser("snapshot")
    snapshot.add_argument("folder", type=Path)
    snapshot.add_argument("--source", type=Path, default=ROOT, help="a checkout of whit")
    both = commands.add_parser("compare")
    both.add_argument("before", type=Path)
    both.add_argument("after", type=Path)
    timed = commands.add_parser("speed")
    timed.add_argument("other", type=Path, help="a checkout of whit")
    timed.add_argument("--pairs", type=int, default=9)
    given = parser.parse_args()
    if given.command == "speed":
        speed(given.other.resolve(), given.pairs)
        return
    if given.command == "compare":
        sys.exit(bool(compare(given.before, given.after)))
    given.folder.mkdir(parents=True)
    Snapshot(given.folder.resolve(), given.source.resolve()).take()


if __name__ == "__main__":
    main()
