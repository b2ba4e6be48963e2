"""The latency of `whit serve` and `whit report`: the list of many runs, a drawing, a report.

    python benchmarks/page.py [--runs 1000]

Copies the runs of records/fewest-epochs into a temporary folder, ten per study, and opens them in
Chromium through a real server; then classifies test images in Chromium with the network of every
built-in recipe; then renders the reports of a run and of a study. Run it on an idle machine. Writes
benchmarks/PAGE.md.
"""

from __future__ import annotations

import argparse
import base64
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from statistics import median

import torch
from playwright.sync_api import Browser, sync_playwright

from whit.data.datasets import load_dataset
from whit.export.html.graph_json import graph_json
from whit.export.html.page import static_file
from whit.export.ir.capture import capture_graph
from whit.export.ir.fusion import fuse
from whit.models.build import build_initialized_model
from whit.recipes.recipe import builtin_recipes, load_recipe
from whit.reports import render_run_html, render_study_html
from whit.runs.environment import describe_environment
from whit.runs.reader import read_run

HERE = Path(__file__).parent
RUNS = sorted((HERE.parent / "records" / "fewest-epochs").glob("*/seed-*"))
# Timed inside the page, since polling for text from outside takes longer than displaying it.
WATCH = """
window.began = {};
new MutationObserver(() => {
  const rows = document.querySelectorAll("#runs .runs tbody tr").length;
  if (rows) window.began[rows] ??= performance.now();
}).observe(document, {subtree: true, childList: true});
"""
READ = """async ([code, given, pixels]) => {
  const whit = await import(`data:text/javascript;base64,${code}`);
  const network = new whit.Network(given);
  const bytes = Uint8Array.from(atob(pixels), (c) => c.charCodeAt(0));
  const times = [];
  for (let at = 0; at < bytes.length; at += 784) {
    const began = performance.now();
    whit.softmax(network.logits(bytes.subarray(at, at + 784)));
    times.push(performance.now() - began);
  }
  return times.slice(times.length / 2);
}"""


def time_request(address: str, etag: str = "") -> tuple[float, str]:
    """Send one request; return its duration in seconds and the ETag of the response."""
    request = urllib.request.Request(address, headers={"If-None-Match": etag} if etag else {})
    started = time.perf_counter()
    try:
        with urllib.request.urlopen(request) as response:
            response.read()
            etag = response.headers["etag"]
    except urllib.error.HTTPError as error:
        if error.code != 304:
            raise
    return time.perf_counter() - started, etag


def time_lists(count: int, browser: Browser) -> list[str]:
    """Time the start of a server, the first list in the browser, and later requests."""
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
            time_request(f"{found[0]}/")
            opened = time.perf_counter() - started
            page = browser.new_page()
            page.add_init_script(WATCH)
            page.goto(f"{found[0]}/#runs")
            page.locator("#runs .runs tbody tr").nth(count - 1).wait_for(state="attached")
            began = page.evaluate("began")  # number of rows: milliseconds since the navigation
            shown, complete = (began[key] / 1000 for key in (min(began, key=int), str(count)))
            page.close()
            etag = time_request(f"{found[0]}/api/runs")[1]
            later = [time_request(f"{found[0]}/api/runs", etag)[0] for _ in range(50)]
            server.terminate()
    return [
        f"| process start to page | {opened:.2f} s | |",
        f"| {count:,} runs opened in Chromium: first rows visible | {shown:.2f} s | < 1 s |",
        f"| the same: all rows present | {complete:.2f} s | |",
        f"| list requested again, nothing changed | {1000 * median(later):.0f} ms | |",
    ]


def time_drawings(browser: Browser) -> list[str]:
    """Time the classification of an image by each built-in network in Chromium, after warm-up."""
    page = browser.new_page()
    code = base64.b64encode(static_file("network.js").encode()).decode()
    images = base64.b64encode(load_dataset("mnist").test.images[:200].numpy().tobytes()).decode()
    rows = []
    for name in builtin_recipes():
        model = build_initialized_model(load_recipe(name), (1, 28, 28), 10)
        graph = fuse(capture_graph(model, (1, 28, 28), tuple("0123456789"), name))
        times = page.evaluate(READ, [code, graph_json(graph), images])
        rows.append(f"| a drawing classified by {name} | {median(times):.2f} ms | < 5 ms |")
    page.close()
    return rows


def time_reports() -> list[str]:
    """Time the rendering of the reports of a run and of a study."""
    rows = []
    calls = {
        "a run": lambda: render_run_html(read_run(RUNS[0])),
        "ten seeds": lambda: render_study_html(STUDY),
    }
    for what, call in calls.items():
        started = time.perf_counter()
        page = call()
        seconds = time.perf_counter() - started
        rows.append(f"| report of {what}, {len(page) / 1e3:,.0f} kB | {seconds:.1f} s | < 10 s |")
    return rows


STUDY = RUNS[0].parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=1000)
    count = parser.parse_args().runs
    with sync_playwright() as playwright:
        program = shutil.which("chromium") or shutil.which("chromium-browser")
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        rows = [*time_lists(count, browser), *time_drawings(browser)]
        browser.close()
    rows += time_reports()
    environment = describe_environment(torch.device("cpu"), 0, torch.get_num_threads())
    lines = [
        "# Web UI and report",
        "",
        "Command: `python benchmarks/page.py`. Medians; JavaScript inference in Chromium.",
        "",
        f"Machine: {environment['processor']}, {environment['cores']} cores, "
        f"torch {environment['torch']}.",
        "",
        "| what | measured | goal |",
        "|---|---|---|",
        *rows,
        "",
    ]
    (HERE / "PAGE.md").write_text("\n".join(lines))
    print("\n".join(lines))


if __name__ == "__main__":
    main()
