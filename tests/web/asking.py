"""`whit serve` as a real process, and requests to it as bytes over a socket."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from waiting import LIMIT

_START = "import sys; {before}; from whit.cli.app import main; sys.exit(main())"


@dataclass(frozen=True)
class Answer:
    """Status 0 stands for a connection that was closed without one."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        def refuse(constant: str) -> None:
            raise AssertionError(f"{constant} is not JSON")

        assert self.headers["content-type"] == "application/json; charset=utf-8"
        return json.loads(self.body, parse_constant=refuse)


class Server:
    """A process of `whit serve` on a free port, in a folder of its own."""

    def __init__(self, folder: Path, *arguments: str, before: str = "pass"):
        """`before` is Python that runs in the process first."""
        self.process = subprocess.Popen(
            [
                sys.executable,
                "-c",
                _START.format(before=before),
                "serve",
                "--port",
                "0",
                *arguments,
            ],
            cwd=folder,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        self.said = self.process.stdout.readline()
        found = re.search(r"http://([^/ ]+):(\d+)", self.said)
        assert found, (self.said, self.process.communicate())
        self.port = int(found[2])
        self.host = f"127.0.0.1:{self.port}"

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=LIMIT)

    def send(self, request: bytes) -> Answer:
        """Send bytes, and read the one answer to them."""
        with self.connect() as connection:
            with suppress(ConnectionError):  # refused before it was all sent: there is an answer
                connection.sendall(request)
            return read_answer(connection)

    def get(self, path: str, **headers: str) -> Answer:
        return self.ask("GET", path, **headers)

    def ask(self, method: str, path: str, body: bytes = b"", **headers: str) -> Answer:
        """Ask as a browser does; `if_none_match="x"` becomes `if-none-match: x`."""
        lines = {"host": self.host, **{key.replace("_", "-"): v for key, v in headers.items()}}
        if body:
            lines["content-length"] = str(len(body))
        head = "".join(f"{key}: {value}\r\n" for key, value in lines.items())
        return self.send(f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode() + body)

    def runs(self) -> dict[str, dict[str, Any]]:
        """The rows of the list by path."""
        return {row["path"]: row for row in self.get("/api/runs").json["runs"]}

    def end(self, number: int = signal.SIGINT) -> tuple[int, str]:
        """Stop it; return its exit code and what it said of errors."""
        self.process.send_signal(number)
        _, said = self.process.communicate(timeout=LIMIT)
        return self.process.returncode, said

    def close(self) -> None:
        """End it, whatever it does, and the pipes to it."""
        self.process.kill()
        with self.process:
            pass


def read_answer(connection: socket.socket) -> Answer:
    """Read one answer; of an answer without a length, until its end."""
    content = b""
    try:
        while b"\r\n\r\n" not in content:
            piece = connection.recv(1 << 16)
            if not piece:
                return Answer(0, {}, content)
            content += piece
        head, _, body = content.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {
            key.lower(): value.strip() for key, _, value in (ln.partition(":") for ln in lines)
        }
        length = int(headers.get("content-length", 0))
        while len(body) < length:
            piece = connection.recv(1 << 16)
            if not piece:
                break  # as after HEAD
            body += piece
    except ConnectionError:
        return Answer(0, {}, content)
    return Answer(int(first.split()[1]), headers, body[:length])
