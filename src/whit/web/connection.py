"""One connection of a browser: uvicorn's, with an end to waiting for a client that is slow.

uvicorn closes an idle connection after five seconds, but waits for ever for a request that comes
byte by byte, or for a client that does not read its answer. Here each connection is looked at
every ten seconds: one that waits for its client, and has come no further since, is dropped. So is
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

PATIENCE = 10.0  # seconds
MOST = 400  # connections at a time


class Connection(H11Protocol):
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._answers = 0
        self._stood_at: tuple[int, int] | None = None
        self._watch = self.loop.call_later(PATIENCE, self._look)
        if len(self.connections) > MOST:
            transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._watch.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        try:
            super().data_received(data)
        except h11.LocalProtocolError:  # bytes after the end of what can be answered
            self.transport.abort()

    def eof_received(self) -> bool | None:  # type: ignore[override]
        """Answer a whole request of a client that says it will send no more, then close."""
        if self.cycle is None or self.cycle.response_complete or self.cycle.more_body:
            return None
        self.cycle.keep_alive = False
        return True

    def on_response_complete(self) -> None:
        self._answers += 1
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:
        """Answer what is not HTTP, unless an answer is on its way already."""
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            body = json.dumps({"error": "not a request in HTTP/1.1."}).encode()
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
        # Else the system would go on for minutes to offer what nobody reads.
        now = struct.pack("HH" if os.name == "nt" else "ii", 1, 0)
        self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, now)
        self.transport.abort()

    def _look(self) -> None:
        unread = self.transport.get_write_buffer_size()
        is_idle = self.cycle is None or self.cycle.response_complete
        stands_at = self._answers, unread
        if (is_idle or self.cycle.more_body or unread) and stands_at == self._stood_at:
            self._drop()
            return
        self._stood_at = stands_at
        self._watch = self.loop.call_later(PATIENCE, self._look)
