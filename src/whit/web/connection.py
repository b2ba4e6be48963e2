"""uvicorn's connection, with a timeout for slow clients.

uvicorn closes an idle connection after five seconds, but has no timeout for a request that comes
byte by byte, or for a client that does not read its response. Here each connection is checked
every ten seconds: one that waits for its client, and has made no progress since, is dropped. So is
one beyond the first few hundred, long before the system runs out of descriptors.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import struct

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

TIMEOUT = 10.0  # seconds
MAX_CONNECTIONS = 400  # at a time


class Connection(H11Protocol):
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._responses = 0
        self._last_progress: tuple[int, int] | None = None
        self._check_timer = self.loop.call_later(TIMEOUT, self._check_progress)
        if len(self.connections) > MAX_CONNECTIONS:
            transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._check_timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        try:
            super().data_received(data)
        except h11.LocalProtocolError:  # bytes after the last request that can be answered
            self.transport.abort()

    def eof_received(self) -> bool | None:  # type: ignore[override]
        """Respond to a complete request of a client that closes its side, then close."""
        if self.cycle is None or self.cycle.response_complete or self.cycle.more_body:
            return None
        self.cycle.keep_alive = False
        return True

    def on_response_complete(self) -> None:
        self._responses += 1
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:
        """Respond to what is not HTTP, unless a response has been started."""
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            body = json.dumps({"error": "not an HTTP/1.1 request."}).encode()
            headers = [
                ("content-type", "application/json; charset=utf-8"),
                ("x-content-type-options", "nosniff"),
                ("content-length", str(len(body))),
                ("connection", "close"),
            ]
            start = h11.Response(status_code=400, headers=headers, reason=b"Bad Request")
            for event in (start, h11.Data(data=body), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def _drop(self) -> None:
        # Discard unsent data, else the system would retry for minutes.
        linger = struct.pack("HH" if os.name == "nt" else "ii", 1, 0)
        connection = self.transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.transport.abort()

    def _check_progress(self) -> None:
        unread = self.transport.get_write_buffer_size()
        is_idle = self.cycle is None or self.cycle.response_complete
        progress = self._responses, unread
        if (is_idle or self.cycle.more_body or unread) and progress == self._last_progress:
            self._drop()
            return
        self._last_progress = progress
        self._check_timer = self.loop.call_later(TIMEOUT, self._check_progress)
