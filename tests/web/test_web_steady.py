"""What is not HTTP, clients that are slow, and how the server starts and ends."""

from __future__ import annotations

import os
import random
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from asking import Server, read_answer

from harness.processes import children_of, have_ended
from waiting import LIMIT, wait_until
from whit.errors import InputError
from whit.runs.manifest import verify_manifest
from whit.runs.reader import read_run, weights_problem
from whit.web import worker
from whit.web.run_location import DEMO_RUNS
from whit.web.server import listen

Serve = Callable[..., Server]
NEVER_DROPPED = f"import whit.web.connection as c; c.TIMEOUT = {10 * LIMIT}"


def malformed(rng: random.Random, host: str) -> bytes:
    """A request that is wrong in one of many ways, or right but strange."""
    name = f"host: {host}\r\n".encode()
    get = b"GET /api/runs HTTP/1.1\r\n"
    some = rng.randbytes(rng.randrange(1, 200))
    chunked = b"transfer-encoding: chunked\r\n"
    return rng.choice(
        [
            some,
            some + b"\r\n\r\n",
            b"\r\n" * rng.randrange(1, 50),
            b"GET /\r\n\r\n",
            b"GET\r\n\r\n",
            b"GET / HTTP/9.9\r\n" + name + b"\r\n",
            b"GET / HTTP/1.1 extra\r\n" + name + b"\r\n",
            b"GET /" + some + b" HTTP/1.1\r\n" + name + b"\r\n",
            b"GET /%" + some.hex().encode()[:1] + b" HTTP/1.1\r\n" + name + b"\r\n",
            b"GET /%ff%fe%00%80?%ff=%zz HTTP/1.1\r\n" + name + b"\r\n",
            b"GET /api/runs?" + b"%80&" * 500 + b" HTTP/1.1\r\n" + name + b"\r\n",
            b"GET /" + b"a" * rng.randrange(20_000, 90_000) + b" HTTP/1.1\r\n" + name + b"\r\n",
            get + name + b"x: " + b"a" * rng.randrange(20_000, 200_000) + b"\r\n\r\n",
            get + name + b"x: 1\r\n" * rng.randrange(200, 9_000) + b"\r\n",
            get + name + b"x\x00y: 1\r\n\r\n",
            get + name + b"x: \x00" + some + b"\r\n\r\n",
            get + name + b" folded\r\n\tmore\r\n\r\n",
            get + b"host : " + host.encode() + b"\r\n\r\n",
            get + b"\r\n",
            get + name + name + b"\r\n",
            get + name + b"content-length: -1\r\n\r\n",
            get + name + b"content-length: 1e3\r\n\r\n",
            get + name + b"content-length: 5\r\ncontent-length: 6\r\n\r\nhello",
            get + name + b"content-length: 5\r\n" + chunked + b"\r\n0\r\n\r\n",
            get + name + b"content-length: 3\r\n\r\nhello more",
            get + name + chunked + b"\r\nzz\r\n\r\n",
            get + name + chunked + b"\r\nffffffffffffffffff\r\n" + some,
            get + name + chunked + b"\r\n5\r\nhelloworld\r\n0\r\n\r\n",
            get + name + chunked + b"\r\n5\r\nhel",
            get + name + b"transfer-encoding: gzip, chunked\r\n\r\n",
            get + name + b"upgrade: websocket\r\nconnection: upgrade\r\n\r\n",
            get + name + b"expect: 100-continue\r\ncontent-length: 99999\r\n\r\n",
            get + name + b"if-none-match: " + some.hex().encode() * 9 + b",,\x80\r\n\r\n",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            b"\x16\x03\x01" + some,
            b"OPTIONS * HTTP/1.1\r\n" + name + b"\r\n",
            get + name + b"\r\n" + some,
            (get + name + b"\r\n") * 20,
        ]
    )


@pytest.mark.parametrize("seed", range(4))
def test_malformed_requests(server: Server, seed: int) -> None:
    """250 each: none is a fault of the server, and it goes on answering."""
    rng = random.Random(seed)
    for _ in range(250):
        request = malformed(rng, server.host)
        with server.connect() as connection:
            with suppress(OSError):  # refused before it was all sent
                connection.sendall(request)
                connection.shutdown(socket.SHUT_WR)
            answer = read_answer(connection)
        assert answer.status < 500, request
        if answer.status >= 400:
            assert set(answer.json) == {"error"}, request
            assert b"Traceback" not in answer.body
    assert server.get("/api/runs").status == 200


def test_slow_clients_hold_up_nobody(shown: Path, serve: Serve) -> None:
    """They are not dropped here: who waited for them would get no answer."""
    server = serve(shown, before=NEVER_DROPPED)
    head = f"GET /api/runs HTTP/1.1\r\nhost: {server.host}\r\n".encode()
    clients = [server.connect() for _ in range(50)]
    try:
        for number, client in enumerate(clients):
            if number % 4 == 1:
                client.sendall(head[: number + 1])
            elif number % 4 == 2:
                client.sendall(head + b"content-length: 9\r\n\r\n1")
            elif number % 4 == 3:  # asks on and on, and never reads
                client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                client.sendall((head + b"\r\n") * 200)
        for _ in range(5):
            for client in clients[1::4]:
                client.sendall(b"x")
            assert server.get("/api/runs").status == 200
            assert server.get("/").status in (200, 404)
    finally:
        for client in clients:
            client.close()


def test_slow_clients_are_dropped(shown: Path, serve: Serve) -> None:
    server = serve(shown, before="import whit.web.connection as c; c.TIMEOUT = 0.3")
    head = f"GET /api/runs HTTP/1.1\r\nhost: {server.host}\r\n".encode()
    silent, trickling, with_body, unread = clients = [server.connect() for _ in range(4)]
    unread.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    with suppress(ConnectionError):  # on a busy machine some are dropped this early
        unread.sendall((head + b"\r\n") * 2000)  # several times what the system holds in between
    with suppress(ConnectionError):
        with_body.sendall(head + b"content-length: 9\r\n\r\n1")

    def is_over_for_trickling() -> bool:
        with suppress(ConnectionError):
            trickling.sendall(b"x")
        return is_over(trickling)

    with suppress(ConnectionError):
        trickling.sendall(head)
    wait_until(is_over_for_trickling)
    for client in (silent, with_body, unread):
        wait_until(lambda client=client: is_over(client))
    for client in clients:
        client.close()


def is_over(connection: socket.socket) -> bool:
    """Whether the other side has closed a connection, however much of it is unread."""
    waiting = select.poll()
    waiting.register(connection, select.POLLRDHUP)
    return bool(waiting.poll(0))


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["Ctrl-C", "SIGTERM"]
)
def test_it_ends_at_once_with_slow_clients_and_work_going_on(
    number: signal.Signals,
    code: int,
    shelf: Path,
    put: Callable[[Path], Path],
    serve: Serve,
) -> None:
    """Slow clients would be waited for as long as the process that answers, which is held."""
    put(shelf / "runs/one")
    server = serve(shelf, before=NEVER_DROPPED)
    id = server.runs()["runs/one"]["id"]
    clients = [server.connect() for _ in range(9)]
    for client in clients[::3]:
        client.sendall(b"GET ")
    for client in clients[1::3]:
        client.sendall(
            f"GET /api/runs/{id}/network HTTP/1.1\r\nhost: {server.host}\r\n\r\n".encode()
        )
    wait_until(lambda: children_of(server.process.pid, worker))
    (answering,) = children_of(server.process.pid, worker)
    os.kill(answering, signal.SIGSTOP)
    assert server.end(number) == (code, f"whit: stopped by {number.name}.\n")
    wait_until(lambda: have_ended([answering]))
    for client in clients:
        client.close()


def serve_and_end(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "whit", "serve", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=LIMIT,
    )


def test_a_port_that_is_taken(server: Server, tmp_path: Path) -> None:
    done = serve_and_end(tmp_path, "--port", str(server.port))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"whit: --port {server.port}: in use by another program, perhaps another `whit serve`. "
        "Choose another port, or 0 for a free one.\n"
    )


def test_a_host_that_is_not_here(monkeypatch: pytest.MonkeyPatch) -> None:
    def found(host: str, *_: object, **__: object) -> list[tuple[Any, ...]]:
        if host == "192.0.2.1":
            return [(socket.AF_INET, socket.SOCK_STREAM, 0, "", (host, 0))]
        raise socket.gaierror

    monkeypatch.setattr(socket, "getaddrinfo", found)
    with pytest.raises(
        InputError, match=r"^--host 192\.0\.2\.1: not an address of this machine\.$"
    ):
        listen("192.0.2.1", 0)
    with pytest.raises(InputError, match=r"^--host nowhere: not a name or"):
        listen("nowhere", 0)


def test_without_runs_those_of_the_package_are_served_until_there_are_some(
    tmp_path: Path, put: Callable[[Path], Path], serve: Serve
) -> None:
    server = serve(tmp_path)
    value = server.get("/api/runs").json
    assert (value["roots"], value["studies"]) == ([], [])
    assert sorted(row["name"] for row in value["runs"]) == ["sprint", "tiniest"]
    assert sorted(row["path"] for row in value["runs"]) == ["demo: sprint", "demo: tiniest"]
    for row in value["runs"]:
        assert (row["state"], row["verdict"]) == ("finished", "met")
        graph = server.get(f"/api/runs/{row['id']}/network").json
        assert len(graph["classes"]) == 10
    put(tmp_path / "runs/one")
    assert set(server.runs()) == {"runs/one"}


@pytest.mark.parametrize("name", ["sprint", "tiniest"])
def test_the_runs_of_the_package_are_complete_and_unaltered(name: str) -> None:
    run = read_run(DEMO_RUNS / name)
    assert run.recipe.name == name
    assert weights_problem(run) is None
    assert run.stored_result is not None
    assert list(verify_manifest(run.stored_result, run.path)) == []


def test_folders_of_ones_own(shown: Path, serve: Serve) -> None:
    server = serve(shown, "searches", "studies/easy-01234567", "runs/one", "runs")
    rows = server.runs()
    assert len(rows) == 1 + 3 + 1 + 5, sorted(rows)
    studies = server.get("/api/runs").json["studies"]
    assert [study["name"] for study in studies] == ["small/trials/0004", "easy-01234567"]
