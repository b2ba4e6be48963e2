"""What every request passes before anything looks at its address, and every answer on its way out.

Another website that a person has open at the same time may make their browser ask this server. It
then names another host (DNS rebinding: its own name, made to lead here), or its own origin; both
are refused. Which hosts are this server's own:

- localhost, 127.0.0.1 and [::1];
- what was given as --host;
- the address that the connection reached, which is this machine's own by definition; and, where
  all addresses were asked for (0.0.0.0 or ::), this machine's name.

Each with the port that is listened on, or none. A name that a router or a proxy gave to this
machine is not known here: name it with --host.
"""

from __future__ import annotations

import ipaddress
import json
import socket
import sys
import traceback
from dataclasses import dataclass
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

MOST_BODY = 64 << 10  # bytes; no request of the page has any
_MOST_LINGER = 1 << 20  # bytes that are taken in and dropped, so that the answer is heard
PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
    "connect-src 'self'; worker-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
_HEADERS = {
    "content-security-policy": PAGE_POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-cache",
}


@dataclass(frozen=True)
class OwnHosts:
    """The names under which this server may be asked; `port` is the one that is listened on."""

    host: str
    port: int

    def names(self, reached: str | None) -> set[str]:
        """Return the allowed hosts without port, for a connection that reached an address."""
        found = {"localhost", "127.0.0.1", "[::1]", _in_brackets(self.host)}
        if reached:
            found.add(_in_brackets(reached))
        if is_wildcard(self.host):
            name = socket.gethostname().lower()
            found |= {name, f"{name}.local"}
        return found

    def allow(self, given: str, reached: str | None) -> bool:
        name, colon, port = given.lower().rpartition(":")
        if not colon or port.endswith("]"):
            name, port = given.lower(), str(self.port)
        return port == str(self.port) and name in self.names(reached)


class Guard:
    """The outermost layer: refuses by host, origin, body and method; adds the safe headers.

    An error that nobody foresaw is shown in the terminal, and is a plain 500 outside.
    """

    def __init__(self, app: ASGIApp, hosts: OwnHosts):
        self.app = app
        self.hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer = _Answer(send)
        try:
            refused = self._refused(scope) or await _refused_by_body(scope, receive)
            if refused:
                await answer.refuse(*refused, receive)
            elif scope["method"] not in ("GET", "HEAD"):
                said = f"{_shown(scope['method'])} is not allowed: this page only shows."
                await answer.refuse(405, said, receive)
            else:
                await self.app(scope, _nothing_more, answer.send)
        except _Gone:
            return
        except Exception:
            print(f"{traceback.format_exc()}whit: a request failed as above.", file=sys.stderr)
            if not answer.has_begun:
                said = "whit failed; its terminal shows how. Please report it."
                await answer.refuse(500, said, receive)

    def _refused(self, scope: Scope) -> tuple[int, str] | None:
        given = _values(scope, b"host")
        reached = (scope.get("server") or (None,))[0]
        allowed = f"http://{_in_brackets(self.hosts.host)}:{self.hosts.port}"
        if len(given) != 1 or not self.hosts.allow(given[0], reached):
            said = f"this server does not answer as {_shown(', '.join(given))}; open {allowed}"
            return 403, f"{said} or name this host with --host."
        origins = _values(scope, b"origin")
        if any(origin.lower() != f"http://{given[0].lower()}" for origin in origins):
            return 403, f"asked by the page of another origin, {_shown(', '.join(origins))}."
        return None


class _Gone(Exception):
    """The client went away before its request was whole."""


class _Answer:
    """Sends one answer, with the safe headers wherever it has none of its own."""

    def __init__(self, send: Send):
        self._send = send
        self.has_begun = False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.has_begun = True
            there = {name.lower() for name, _ in message["headers"]}
            more = [(name.encode(), value.encode()) for name, value in _HEADERS.items()]
            headers = [*message["headers"], *((n, v) for n, v in more if n not in there)]
            message = {**message, "headers": headers}
        await self._send(message)

    async def refuse(self, status: int, said: str, receive: Receive) -> None:
        body = json.dumps({"error": said}).encode()
        headers = [
            (b"content-type", b"application/json; charset=utf-8"),
            (b"content-length", str(len(body)).encode()),
        ]
        if status == 405:
            headers.append((b"allow", b"GET, HEAD"))
        if status != 413:
            await self.send({"type": "http.response.start", "status": status, "headers": headers})
            await self.send({"type": "http.response.body", "body": body})
            return
        headers.append((b"connection", b"close"))
        await self.send({"type": "http.response.start", "status": status, "headers": headers})
        await self.send({"type": "http.response.body", "body": body, "more_body": True})
        # Closed on what is still being sent, the connection would be reset, and the answer lost.
        dropped = 0
        while dropped < _MOST_LINGER:
            message = await receive()
            dropped += len(message.get("body", b""))
            if message["type"] == "http.disconnect" or not message.get("more_body"):
                break
        await self.send({"type": "http.response.body", "body": b""})


async def _refused_by_body(scope: Scope, receive: Receive) -> tuple[int, str] | None:
    """Take the body in, to its limit, and drop it: nothing here reads one."""
    said = f"a body of more than {MOST_BODY >> 10} KiB is not read."
    for length in _values(scope, b"content-length"):
        if not length.isdigit() or len(length) > 12 or int(length) > MOST_BODY:
            return 413, said
    taken = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise _Gone
        taken += len(message.get("body", b""))
        if taken > MOST_BODY:
            return 413, said
        if not message.get("more_body"):
            return None


async def _nothing_more() -> dict[str, Any]:
    return {"type": "http.request", "body": b"", "more_body": False}


def is_wildcard(host: str) -> bool:
    """Whether a host means every address of this machine."""
    try:
        return host == "" or ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a host."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _in_brackets(host: str) -> str:
    """Return a host as it stands in an address: IPv6 in brackets, IPv4 as IPv4."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host.lower()
    if isinstance(address, ipaddress.IPv6Address):
        return str(address.ipv4_mapped) if address.ipv4_mapped else f"[{address}]"
    return str(address)


def _values(scope: Scope, name: bytes) -> list[str]:
    return [value.decode("latin-1") for key, value in scope["headers"] if key == name]


def _shown(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}..."
