"""How long the list of `whit serve` takes with many runs: the first time, and while polled.

    python benchmarks/page.py [--runs 1000]

Copies the runs of records/fewest-epochs into a temporary folder, ten to a study, and asks a real
server. Prints seconds from the start of the process to its first answer, of the first list, and
the median and the largest of fifty lists with nothing changed.
"""

from __future__ import annotations

import argparse
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

RUNS = sorted((Path(__file__).parents[1] / "records" / "fewest-epochs").glob("*/seed-*"))


def seconds_for(address: str, etag: str = "") -> tuple[float, str]:
    """Ask once; return the seconds that it took, and the tag of what came."""
    request = urllib.request.Request(address, headers={"If-None-Match": etag} if etag else {})
    started = time.perf_counter()
    try:
        with urllib.request.urlopen(request) as answer:
            answer.read()
            etag = answer.headers["etag"]
    except urllib.error.HTTPError as error:
        if error.code != 304:
            raise
    return time.perf_counter() - started, etag


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=1000)
    count = parser.parse_args().runs
    with tempfile.TemporaryDirectory() as folder:
        for number in range(count):
            to = Path(folder, "studies", f"copy-{number // 10:08x}", f"seed-{number % 10}")
            shutil.copytree(RUNS[number % len(RUNS)], to)
        started = time.perf_counter()
        command = [sys.executable, "-m", "whit", "serve", "--port", "0"]
        with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True) as server:
            assert server.stdout is not None
            found = re.search(r"http://\S+", server.stdout.readline())
            assert found
            seconds_for(f"{found[0]}/")
            opened = time.perf_counter() - started
            first, etag = seconds_for(f"{found[0]}/api/runs")
            later = [seconds_for(f"{found[0]}/api/runs", etag)[0] for _ in range(50)]
            server.terminate()
    print(f"{count} runs: page {opened:.2f} s, first list {first:.2f} s, later")
    print(
        f"{1000 * statistics.median(later):.0f} ms (median), {1000 * max(later):.0f} ms (largest)"
    )


if __name__ == "__main__":
    main()
