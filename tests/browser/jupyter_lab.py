"""A real JupyterLab: its server as a process, and one of its notebooks in a page of Chromium."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page

from browser.chromium import new_context
from waiting import wait_until

_OPTIONS = (
    *("--no-browser", "--allow-root", "--ServerApp.ip=127.0.0.1", "--ServerApp.port=0"),
    *("--IdentityProvider.token=", "--LabApp.expose_app_in_browser=True"),
    # It asks nobody in the network.
    *("--LabApp.news_url=", "--LabApp.extension_manager=readonly"),
    "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
)
_SETTINGS: dict[str, dict[str, Any]] = {
    # Every cell is in the page, also where it is not in sight.
    "notebook-extension/tracker": {"windowingMode": "none"},
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
}


@dataclass
class Lab:
    """The server, with settings of its own below `home` and notebooks in `folder`."""

    process: subprocess.Popen[bytes]
    output: Path
    address: str = ""

    @classmethod
    def start(cls, folder: Path, home: Path) -> Lab:
        for name, values in _SETTINGS.items():
            file = home / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
            file.parent.mkdir(parents=True)
            file.write_text(json.dumps(values))
        env = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "JUPYTER_CONFIG_DIR": str(home / "config"),
            "JUPYTER_DATA_DIR": str(home / "data"),
            "JUPYTER_RUNTIME_DIR": str(home / "runtime"),
            "JUPYTERLAB_SETTINGS_DIR": str(home / "settings"),
            "JUPYTERLAB_WORKSPACES_DIR": str(home / "workspaces"),
            "IPYTHONDIR": str(home / "ipython"),
        }
        output = home / "server.txt"
        with output.open("wb") as stream:
            process = subprocess.Popen(
                [sys.executable, "-m", "jupyterlab", *_OPTIONS],
                cwd=folder,
                env=env,
                stdout=stream,
                stderr=subprocess.STDOUT,
            )
        lab = cls(process, output)
        wait_until(lambda: list((home / "runtime").glob("jpserver-*.json")), lab)
        (file,) = (home / "runtime").glob("jpserver-*.json")
        wait_until(lambda: file.read_text().endswith("}"), lab)
        lab.address = json.loads(file.read_text())["url"]
        return lab

    @property
    def said(self) -> str:
        return self.output.read_text(errors="replace")

    def is_alive(self) -> bool:
        return self.process.poll() is None

    def close(self) -> None:
        self.process.terminate()
        self.process.wait()


@dataclass
class Notebook:
    """A notebook that is open in a page."""

    page: Page

    @classmethod
    def open(cls, browser: Browser, lab: Lab, path: Path) -> Notebook:
        page = new_context(browser, 1600, 1000).new_page()
        page.goto(f"{lab.address}lab/tree/{path.name}")
        page.wait_for_selector(".jp-Notebook")
        page.wait_for_function(
            "() => jupyterapp.shell.currentWidget?.sessionContext?.session?.kernel?.status =="
            " 'idle'"
        )
        return cls(page)

    def command(self, name: str, **arguments: Any) -> None:
        """Execute a command of JupyterLab; return when it is done."""
        self.page.evaluate(
            "([name, arguments]) => jupyterapp.commands.execute(name, arguments).then(() => null)",
            [name, arguments],
        )

    def start(self, name: str) -> None:
        """Begin to execute a command of JupyterLab."""
        self.page.evaluate("(name) => { jupyterapp.commands.execute(name); }", name)


def write_notebook(path: Path, cells: Sequence[str]) -> None:
    """Write a notebook of code cells."""
    code = [
        {"cell_type": "code", "id": f"cell-{i}", "source": source, "metadata": {}, "outputs": [],
         "execution_count": None}
        for i, source in enumerate(cells)
    ]  # fmt: skip
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    notebook = {"cells": code, "metadata": kernel, "nbformat": 4, "nbformat_minor": 5}
    path.write_text(json.dumps(notebook), encoding="utf-8")
