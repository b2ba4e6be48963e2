"""The server's side of the process for slow requests: one at a time, and a cache of its answers.

The process is started by the first request, so that the page opens at once, and is killed when an
answer takes too long or the server ends. Light requests never wait for it.
"""

from __future__ import annotations

import asyncio
import json
from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from whit.system.json_worker import JsonWorker
from whit.web.run_location import RunLocation

_ARGUMENTS = ("-m", "whit.web.worker")
_TIMEOUT = 180.0  # seconds for one answer; 10,000 images on a slow, busy machine take 30
_MAX_CACHED = 64 << 20  # bytes of answers
_MAX_REPLY = 256 << 20  # bytes of one, far above any real one; a user's model cannot send more


class HTTPRefusal(Exception):
    """A request without an answer; `status` is HTTP's, the text a message for the user."""

    def __init__(self, status: int, message: str):
        self.status = status
        super().__init__(message)


@dataclass(frozen=True)
class CachedResponse:
    """The body of a response and its ETag, a digest of the body."""

    content: bytes
    etag: str

    @classmethod
    def from_bytes(cls, content: bytes) -> CachedResponse:
        return cls(content, f'"{sha256(content).hexdigest()[:24]}"')


class WorkerClient:
    """The process for slow requests, and the cache of its answers."""

    def __init__(self, *, trust_models: bool = False):
        """With `trust_models` it executes the code of models that are a user's own files."""
        self.trust_models = trust_models
        self._worker: JsonWorker | None = None
        self._is_closed = False
        self._lock = asyncio.Lock()  # one request at a time
        self._cache: OrderedDict[tuple[object, ...], CachedResponse] = OrderedDict()

    async def request(self, what: str, location: RunLocation, *, cache: bool) -> CachedResponse:
        """Return the network, errors or report of a run. Raises HTTPRefusal.

        Without `cache` it is computed each time: the code of a user's own model may change.
        """
        key = (what, location.path, location.signature())
        if key in self._cache:
            self._cache.move_to_end(key)
            return self._cache[key]
        async with self._lock:
            if key in self._cache:  # another request has waited for the same answer
                return self._cache[key]
            if self._is_closed:
                raise HTTPRefusal(503, "the server is shutting down.")
            reply = await asyncio.to_thread(self._exchange, what, location.path)
            if "error" in reply:
                raise HTTPRefusal(reply["status"], reply["error"])
            response = CachedResponse.from_bytes(reply["body"].encode())
            if cache:
                self._cache[key] = response
                while sum(len(cached.content) for cached in self._cache.values()) > _MAX_CACHED:
                    self._cache.popitem(last=False)
            return response

    async def close(self) -> None:
        """Kill the process for good. Takes half a second at most."""
        self._is_closed = True
        if self._worker is not None:
            self._worker.kill()
        with suppress(TimeoutError):
            async with asyncio.timeout(0.5), self._lock:  # the request under way has failed
                if self._worker is not None:
                    self._worker.stop(0)

    def _exchange(self, what: str, path: str) -> dict[str, Any]:
        if self._worker is not None and self._worker.has_ended():
            self._worker.stop(0)
            self._worker = None
        if self._worker is None:
            self._worker = JsonWorker(_ARGUMENTS)
            if self._is_closed:  # meanwhile
                self._worker.kill()
        line = json.dumps({"what": what, "path": path, "trust_model_files": self.trust_models})
        try:
            reply: dict[str, Any] = self._worker.request(line, _TIMEOUT, _MAX_REPLY)
            return reply
        except EOFError:
            failure = "ended before it answered"
        except TimeoutError:
            failure = f"took more than {_TIMEOUT:.0f} s and was killed"
        except ValueError:
            failure = f"returned more than {_MAX_REPLY >> 20} MB and was killed"
        self._worker = None
        return {"status": 500, "error": f"the process that computes the {what} {failure}."}
