"""The server as a process: its socket, its messages, its shutdown."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
import sys
import threading
import webbrowser
from pathlib import Path

import uvicorn

from whit.errors import InputError
from whit.system.console import echo
from whit.web.app import Application, build_app
from whit.web.connection import Connection
from whit.web.run_index import RunIndex
from whit.web.security import AllowedHosts, SecurityMiddleware, is_loopback, is_wildcard
from whit.web.worker_client import WorkerClient


def serve(
    folders: list[Path] | None,
    host: str,
    port: int,
    *,
    opens: bool = False,
    trust_models: bool = False,
) -> None:
    """Serve the page until a signal ends it. `port` 0 takes any free one.

    With `opens` it is opened in a browser; with `trust_models` models that are a user's own files
    are executed. Raises InputError when a folder does not exist, or for an unusable port.
    """
    index = RunIndex(folders)
    listener = listen(host, port)
    port = listener.getsockname()[1]
    application = Application(index, WorkerClient(trust_models=trust_models))
    app = SecurityMiddleware(build_app(application), AllowedHosts(host, port))
    url = f"http://{_url_host(host)}:{port}"
    if not is_loopback(host):
        warning = f"anyone who can reach port {port} of this machine can see these runs."
        echo(f"whit: warning: {warning}", sys.stderr)
    config = uvicorn.Config(
        app,
        loop="asyncio",
        http=Connection,
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        log_level=logging.CRITICAL,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=1,
    )
    _Server(config, application, url, opens).run(sockets=[listener])


class _Server(uvicorn.Server):
    """uvicorn's server; it prints its URL, and its shutdown does not wait for clients."""

    def __init__(self, config: uvicorn.Config, application: Application, url: str, opens: bool):
        super().__init__(config)
        self.application = application
        self._first_refresh: asyncio.Task[object] | None = None
        self.url = url
        self.opens = opens

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        # Before a browser asks for the list; if it does meanwhile, it waits for this refresh.
        self._first_refresh = asyncio.create_task(self.application.list_runs())
        echo(f"Serving at {self.url} (press Ctrl-C to stop)", sys.stdout)
        if self.opens:
            # In a thread, since a browser may block.
            threading.Thread(target=webbrowser.open, args=(self.url,), daemon=True).start()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for connection in list(self.server_state.connections):
            connection.transport.abort()  # every request is read-only
        await asyncio.sleep(0)  # the connections are closed in the loop's next turn
        await self.application.client.close()
        await super().shutdown(sockets)


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket. Raises InputError for an unknown host or an unusable port."""
    try:
        (family, kind, protocol, _, address), *_ = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        listener = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError):
        raise InputError(f"--host {host}: not a name or address of this machine.") from None
    try:
        if os.name == "posix":  # on Windows it would let two servers share a port
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(1024)
    except OSError as error:
        listener.close()
        message = {
            errno.EADDRINUSE: f"--port {port}: in use by another program, perhaps another "
            "`whit serve`. Choose another port, or 0 for a free one.",
            errno.EACCES: f"--port {port}: no permission. Choose a port from 1024 on.",
            errno.EADDRNOTAVAIL: f"--host {host}: not an address of this machine.",
        }.get(error.errno or 0, f"--host {host} --port {port}: {error.strerror}.")
        raise InputError(message) from None
    return listener


def _url_host(host: str) -> str:
    if is_wildcard(host):
        return "127.0.0.1" if ":" not in host else "[::1]"
    return f"[{host}]" if ":" in host else host
