"""whit needs no network: every test fails if a connection is tried, and the guard is real."""

from __future__ import annotations

import errno
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

TRY = "import socket; socket.create_connection(('192.0.2.1', 80), timeout=1)"


def test_a_connection_is_an_error_here(tried: Path) -> None:
    with pytest.raises(BaseException, match="192") as caught:
        socket.create_connection(("192.0.2.1", 80), timeout=1)
    assert type(caught.value).__name__ == "ConnectionTried"
    with pytest.raises(BaseException, match=r"example\.org"):
        socket.getaddrinfo("example.org", 80)
    assert tried.read_text().count("\n") == 2
    tried.unlink()


def test_a_connection_is_an_error_in_every_process_that_a_test_starts(tried: Path) -> None:
    done = subprocess.run([sys.executable, "-c", TRY], capture_output=True, text=True, check=False)
    assert "ConnectionTried" in done.stderr
    assert "192.0.2.1" in tried.read_text()
    tried.unlink()


def test_swallowed_errors_are_written_down(tried: Path) -> None:
    swallowing = f"try:\n    {TRY}\nexcept BaseException:\n    pass"
    subprocess.run([sys.executable, "-c", swallowing], check=True)
    assert tried.exists()
    tried.unlink()


def test_this_machine_may_be_called() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        try:
            socket.create_connection(server.getsockname(), timeout=5).close()
        except OSError as error:  # a namespace whose loopback nobody could bring up
            if error.errno != errno.ENETUNREACH:
                raise
            pytest.skip("this system's loopback is down")


def _without_network() -> list[str]:
    """The command that runs another one where there is no network, if this system can."""
    command = ["unshare", "--net", *([] if os.getuid() == 0 else ["--map-root-user"])]
    if not shutil.which("unshare"):
        return []
    return command if subprocess.run([*command, "true"], check=False).returncode == 0 else []


def test_a_run_where_there_is_no_network(easy_recipe: Path, tmp_path: Path) -> None:
    command = _without_network()
    if not command:
        pytest.skip("no network namespace can be made here")
    line = ["train", str(easy_recipe), "--threads", "1", "--quiet", "--out", str(tmp_path / "run")]
    done = subprocess.run(
        [*command, sys.executable, "-m", "whit", *line], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
