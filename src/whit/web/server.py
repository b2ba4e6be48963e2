"""The server as a process: its port, what it says, and how it ends."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
import sys
import threading
from pathlib import Path

import uvicorn

from whit.console import say
from whit.errors import InputError
from whit.web.app import Application, application
from whit.web.connection import Connection
from whit.web.run_index import Shelf
from whit.web.security import Guard, OwnHosts, is_loopback, is_wildcard
from whit.web.worker_client import Answering


def serve(
    folders: list[Path] | None,
    host: str,
    port: int,
    *,
    opens: bool = False,
    own_models: bool = False,
) -> None:
    """Serve the page until a signal ends it. `port` 0 takes any free one.

    Raises InputError when a folder is not there, or the port cannot be had.
    """
    shelf = Shelf(folders)
    listening = listen(host, port)
    port = listening.getsockname()[1]
    answering = Answering(own_models=own_models)
    answers = Application(shelf, answering)
    app = Guard(application(answers), OwnHosts(host, port))
    address = f"http://{_address(host)}:{port}"
    if not is_loopback(host):
        said = f"whit: warning: anybody who reaches port {port} of this machine sees these runs."
        say(said, sys.stderr)
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
    _Server(config, answers, address, opens).run(sockets=[listening])


class _Server(uvicorn.Server):
    """uvicorn's, which says where it is, and lets nobody hold up its end."""

    def __init__(self, config: uvicorn.Config, answers: Application, address: str, opens: bool):
        super().__init__(config)
        self.answers = answers
        self._first_look: asyncio.Task[object] | None = None
        self.address = address
        self.opens = opens

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        # While a person turns to the browser; who asks meanwhile waits for the same look.
        self._first_look = asyncio.create_task(self.answers.listed())
        say(f"The page is at {self.address} (Ctrl-C ends it).", sys.stdout)
        if self.opens:
            # A browser may take its time, and some print.
            threading.Thread(target=_open, args=(self.address,), daemon=True).start()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for connection in list(self.server_state.connections):
            connection.transport.abort()  # nothing here is ever half done
        await asyncio.sleep(0)  # they are gone at the loop's next turn
        await self.answers.answering.close()
        await super().shutdown(sockets)


def _open(address: str) -> None:
    import webbrowser

    webbrowser.open(address)


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens. Raises InputError in plain words."""
    try:
        (family, kind, protocol, _, place), *_ = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        listening = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError):
        raise InputError(f"--host {host}: not a name or an address of this machine.") from None
    try:
        if os.name == "posix":  # elsewhere it would let two servers have one port
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(place)
        listening.listen(1024)
    except OSError as error:
        listening.close()
        said = {
            errno.EADDRINUSE: f"--port {port}: taken by another program, perhaps by another "
            "`whit serve`. Give another one, or 0 for any that is free.",
            errno.EACCES: f"--port {port}: no permission to listen there. Give one from 1024 on.",
            errno.EADDRNOTAVAIL: f"--host {host}: not an address of this machine.",
        }.get(error.errno or 0, f"--host {host} --port {port}: {error.strerror}.")
        raise InputError(said) from None
    return listening


def _address(host: str) -> str:
    if is_wildcard(host):
        return "127.0.0.1" if ":" not in host else "[::1]"
    return f"[{host}]" if ":" in host else host
