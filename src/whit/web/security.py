"""The checks on every request before it is routed, and the security headers of every response.

Another website that a user has open at the same time may make their browser send requests here.
They then have another host (DNS rebinding: its own name, resolved to this machine), or its own
origin; both are refused. The allowed hosts are:

- localhost, 127.0.0.1 and [::1];
- the value of --host;
- the local address of the connection; and, when the server listens on all addresses (0.0.0.0 or
  ::), this machine's name.

Each with the server's port, or without one. A name that a router or a proxy gives to this machine
is unknown here: pass it as --host.
"""

from __future__ import annotations

import ipaddress
import socket
import sys
import traceback
from dataclasses import dataclass
from typing import Any

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from whit.web.error_page import INTERNAL_ERROR, encode_error

MAX_BODY = 64 << 10  # bytes; the page's own requests have none
_MAX_DRAIN = 1 << 20  # bytes that are read and discarded, so that the client gets the response
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
class AllowedHosts:
    """The hosts that requests may name; `host` and `port` are those that the server listens on."""

    host: str
    port: int

    def names(self, local_address: str | None) -> set[str]:
        """Return the allowed hosts without port, for a connection to a local address."""
        names = {"localhost", "127.0.0.1", "[::1]", _format_host(self.host)}
        if local_address:
            names.add(_format_host(local_address))
        if is_wildcard(self.host):
            name = socket.gethostname().lower()
            names |= {name, f"{name}.local"}
        return names

    def allow(self, header: str, local_address: str | None) -> bool:
        """Whether a Host header is allowed."""
        name, colon, port = header.lower().rpartition(":")
        if not colon or port.endswith("]"):
            name, port = header.lower(), str(self.port)
        return port == str(self.port) and name in self.names(local_address)


class SecurityMiddleware:
    """The outermost layer: refuses by host, origin, body and method; adds the security headers.

    An unexpected error is printed to the terminal, and is a plain 500 for the client.
    """

    def __init__(self, app: ASGIApp, hosts: AllowedHosts):
        self.app = app
        self.hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        response = _Response(send, Headers(scope=scope).get("accept", ""))
        try:
            refusal = self._check_headers(scope) or await _drain_body(scope, receive)
            if refusal:
                await response.refuse(*refusal, receive)
            elif scope["method"] not in ("GET", "HEAD"):
                message = f"{_truncate(scope['method'])} is not allowed: this server is read-only."
                await response.refuse(405, message, receive)
            else:
                await self.app(scope, _empty_body, response.send)
        except _Disconnected:
            return
        except Exception:
            print(f"{traceback.format_exc()}whit: this request failed.", file=sys.stderr)
            if not response.is_started:
                message = INTERNAL_ERROR
                await response.refuse(500, message, receive)

    def _check_headers(self, scope: Scope) -> tuple[int, str] | None:
        """Return the status and message of a refusal by host or origin."""
        headers = Headers(scope=scope)
        hosts = headers.getlist("host")
        local_address = (scope.get("server") or (None,))[0]
        url = f"http://{_format_host(self.hosts.host)}:{self.hosts.port}"
        if len(hosts) != 1 or not self.hosts.allow(hosts[0], local_address):
            message = f"host {_truncate(', '.join(hosts))} is not allowed; open {url}"
            return 403, f"{message}, or start `whit serve --host NAME` with this host."
        origins = headers.getlist("origin")
        if any(origin.lower() != f"http://{hosts[0].lower()}" for origin in origins):
            return 403, f"cross-origin request from {_truncate(', '.join(origins))} refused."
        return None


class _Disconnected(Exception):
    """The client disconnected before its request was complete."""


class _Response:
    """Sends one response, with the security headers that it does not set itself."""

    def __init__(self, send: Send, accept: str):
        self._send = send
        self._accept = accept
        self.is_started = False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.is_started = True
            present = {name.lower() for name, _ in message["headers"]}
            defaults = [(name.encode(), value.encode()) for name, value in _HEADERS.items()]
            headers = [*message["headers"], *((n, v) for n, v in defaults if n not in present)]
            message = {**message, "headers": headers}
        await self._send(message)

    async def refuse(self, status: int, text: str, receive: Receive) -> None:
        body, content_type = encode_error(status, text, self._accept)
        headers = [
            (b"content-type", content_type.encode()),
            (b"content-length", str(len(body)).encode()),
        ]
        is_unread = status == 413
        if status == 405:
            headers.append((b"allow", b"GET, HEAD"))
        elif is_unread:
            headers.append((b"connection", b"close"))
        await self.send({"type": "http.response.start", "status": status, "headers": headers})
        await self.send({"type": "http.response.body", "body": body, "more_body": is_unread})
        if not is_unread:
            return
        # Closing while the client still sends would reset the connection and lose the response.
        drained = 0
        while drained < _MAX_DRAIN:
            message = await receive()
            drained += len(message.get("body", b""))
            if message["type"] == "http.disconnect" or not message.get("more_body"):
                break
        await self.send({"type": "http.response.body", "body": b""})


async def _drain_body(scope: Scope, receive: Receive) -> tuple[int, str] | None:
    """Read and discard the body, since no endpoint uses one; refuse one that is too large."""
    refusal = 413, f"request body larger than {MAX_BODY >> 10} KiB."
    for length in Headers(scope=scope).getlist("content-length"):
        if not length.isdigit() or len(length) > 12 or int(length) > MAX_BODY:
            return refusal
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise _Disconnected
        size += len(message.get("body", b""))
        if size > MAX_BODY:
            return refusal
        if not message.get("more_body"):
            return None


async def _empty_body() -> dict[str, Any]:
    return {"type": "http.request", "body": b"", "more_body": False}


def is_wildcard(host: str) -> bool:
    """Whether a host stands for all addresses of this machine."""
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


def _format_host(host: str) -> str:
    """Return a host as it is in a URL: IPv6 in brackets, IPv4-mapped IPv6 as IPv4."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host.lower()
    if isinstance(address, ipaddress.IPv6Address):
        return str(address.ipv4_mapped) if address.ipv4_mapped else f"[{address}]"
    return str(address)


def _truncate(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}..."
