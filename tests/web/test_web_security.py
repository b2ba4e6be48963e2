"""Who is answered at all: hosts, origins, methods, bodies, addresses; and the safe headers."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from asking import Server

from whit.web.security import MAX_BODY, PAGE_POLICY, AllowedHosts, is_loopback, is_wildcard

SAFE = {
    "content-security-policy": PAGE_POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-cache",
}


def test_every_answer_has_the_safe_headers(server: Server) -> None:
    id = next(iter(server.runs().values()))["id"]
    etag = server.get("/api/runs").headers["etag"]
    for answer in (
        server.get("/"),
        server.get("/page/page.css"),
        server.get("/api/runs"),
        server.get("/api/runs", if_none_match=etag),
        server.get(f"/api/runs/{id}"),
        server.get("/nothing"),
        server.get("/api/runs", host="evil.example"),
        server.ask("POST", "/"),
        server.ask("POST", "/", body=bytes(MAX_BODY + 1)),
    ):
        assert {key: answer.headers.get(key) for key in SAFE} == SAFE
        assert "access-control-allow-origin" not in answer.headers
        assert "server" not in answer.headers
    policy = dict(part.split(" ", 1) for part in PAGE_POLICY.split("; "))
    assert policy["default-src"] == "'none'"
    assert not re.search(r"unsafe|https?:|\*", PAGE_POLICY)


def test_own_hosts(server: Server) -> None:
    port = server.port
    for host in (f"localhost:{port}", f"127.0.0.1:{port}", f"[::1]:{port}", f"LOCALHOST:{port}"):
        assert server.get("/api/runs", host=host).status == 200, host
    for host in (
        "evil.example",
        f"evil.example:{port}",
        f"127.0.0.1:{port + 1}",
        f"localhost.evil.example:{port}",
        f"localhost.:{port}",
        f"127.0.0.1.:{port}",
        f"2130706433:{port}",
        f"[::2]:{port}",
        f"{socket.gethostname()}:{port}",
        f"8.8.8.8:{port}",
        f"user@127.0.0.1:{port}",
        f"127.0.0.1:{port}, evil.example",
        "",
    ):
        answer = server.get("/api/runs", host=host)
        assert answer.status == 403, host
        assert "is not allowed; open" in answer.json["error"]
    assert server.send(b"GET / HTTP/1.0\r\n\r\n").status == 403
    twice = f"GET / HTTP/1.1\r\nhost: {server.host}\r\nhost: evil.example\r\n\r\n"
    assert server.send(twice.encode()).status in (400, 403)


def test_hosts_of_a_server_that_listens_everywhere() -> None:
    everywhere = AllowedHosts("0.0.0.0", 8028)
    name = socket.gethostname().lower()
    for host in ("192.168.1.5:8028", "localhost:8028", f"{name}:8028", f"{name}.local:8028"):
        assert everywhere.allow(host, "192.168.1.5"), host
    for host in ("192.168.1.6:8028", "evil.example:8028", "8.8.8.8:8028", "192.168.1.5:80"):
        assert not everywhere.allow(host, "192.168.1.5"), host
    assert everywhere.allow("10.0.0.7:8028", "::ffff:10.0.0.7")
    assert AllowedHosts("::", 1).allow("[fe80::1]:1", "fe80::1%eth0")
    named = AllowedHosts("box.example", 8028)
    assert named.allow("Box.Example:8028", "10.0.0.7")
    assert not named.allow("other.example:8028", "10.0.0.7")
    assert [is_wildcard(host) for host in ("", "0.0.0.0", "::", "127.0.0.1", "x")] == [
        *(True, True, True, False, False)
    ]
    assert [is_loopback(host) for host in ("127.0.0.1", "::1", "localhost", "0.0.0.0", "x")] == [
        *(True, True, True, False, False)
    ]


def test_a_server_that_listens_everywhere_warns(
    tmp_path: Path, serve: Callable[..., Server]
) -> None:
    server = serve(tmp_path, "--host", "0.0.0.0")
    assert server.get("/api/runs").status == 200
    assert server.get("/api/runs", host=f"evil.example:{server.port}").status == 403
    _, said = server.end()
    assert said.startswith("whit: warning: anyone who can reach port ")


def test_origins(server: Server) -> None:
    assert server.get("/api/runs", origin=f"http://{server.host}").status == 200
    for origin in (
        "null",
        "http://evil.example",
        f"https://{server.host}",
        f"http://localhost:{server.port}",  # another origin than the host that is asked
        f"http://127.0.0.1:{server.port + 1}",
        f"http://{server.host}.evil.example",
        "",
    ):
        answer = server.get("/api/runs", origin=origin)
        assert answer.status == 403, origin
        assert "cross-origin request from" in answer.json["error"]


def test_methods(server: Server) -> None:
    for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "BREW", "get"):
        for path in ("/", "/api/runs", "/nothing"):
            answer = server.ask(method, path)
            assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD"), method
            assert set(answer.json) == {"error"}


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_bodies(server: Server, method: str) -> None:
    allowed = 200 if method == "GET" else 405
    assert server.ask(method, "/api/runs", body=bytes(MAX_BODY)).status == allowed
    assert server.ask(method, "/api/runs", body=bytes(MAX_BODY + 1)).status == 413
    assert server.ask(method, "/api/runs", body=bytes(900_000)).status == 413
    # Only declared: answered before any of it comes.
    for length in ("65537", "10000000000", "9" * 15):
        head = f"{method} / HTTP/1.1\r\nhost: {server.host}\r\ncontent-length: {length}\r\n\r\n"
        with server.connect() as connection:
            connection.sendall(head.encode())
            assert connection.recv(100).startswith(b"HTTP/1.1 413 ")
    head = f"{method} /api/runs HTTP/1.1\r\nhost: {server.host}\r\ntransfer-encoding: chunked\r\n"
    chunk = b"1000\r\n" + bytes(0x1000) + b"\r\n"
    for count, status in ((16, allowed), (17, 413), (200, 413)):
        answer = server.send(head.encode() + b"\r\n" + chunk * count + b"0\r\n\r\n")
        assert answer.status == status, count
        assert answer.status != 413 or "64 KiB" in answer.json["error"]


def addresses() -> list[str]:
    """Ways to name a file outside, as they are tried on servers."""
    ups = ("../", "..%2f", "%2e%2e/", "%2e%2e%2f", "%252e%252e%252f", "..\\", "..%5c", "%2e%2e%5c",
           "..%c0%af", "%c0%ae%c0%ae/", "..%e0%80%af", "%uff0e%uff0e/", "....//", "..;/",
           "..%00/", ".%2e/", "..%255c", "%2e%2e%255c")  # fmt: skip
    found = [f"/page/{up * 6}etc/passwd" for up in ups]
    found += [f"/{up * 6}etc/passwd" for up in ups[:8]]
    found += [f"/api/runs/{up * 6}etc/passwd" for up in ups[:8]]
    found += [
        "/page//etc/passwd",
        "/page/%2fetc%2fpasswd",
        "/page/C:\\windows\\win.ini",
        "/page/page.css%00.html",
        "/page/page.css%0a",
        "/page/index.html/",
        "/page/",
        "/page/__init__.py",
        "/page/app.py",
        "/runs/../../etc/passwd/report",
        "/runs/runs%2fone/report",
        "/api/runs/runs/one",
        "//etc/passwd",
        "/./etc/passwd",
        "http://evil.example/etc/passwd",
        "file:///etc/passwd",
    ]
    return found


def test_no_address_names_a_file(server: Server) -> None:
    assert len(addresses()) > 30
    for address in addresses():
        answer = server.get(address)
        assert answer.status in (400, 404), (address, answer)
        assert b"root:" not in answer.body
        assert set(answer.json) == {"error"}
    for id in ("0" * 16, "0" * 15, "g" * 16, "0" * 16 + "%00", "0" * 5000):
        assert server.get(f"/api/runs/{id}").status == 404
        assert server.get(f"/api/runs/{id}/network").status == 404
