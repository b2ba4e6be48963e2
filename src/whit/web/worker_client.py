"""Asking the process that makes slow answers: one question at a time, answers kept while they hold.

The process is started by the first question, so that the page opens at once, and is killed when
one takes too long or the server ends. Light requests never wait for it.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from whit.web.run_location import Place

_PATIENCE = 180.0  # seconds for one answer; 10,000 images on a slow, busy machine take 30
_MOST_KEPT = 64 << 20  # bytes of answers
_MOST_REPLY = 256 << 20  # bytes of one; far above any, and no more is taken from a user's model


class Refused(Exception):
    """There is no such answer; `status` is HTTP's, the message plain words."""

    def __init__(self, status: int, message: str):
        self.status = status
        super().__init__(message)


@dataclass(frozen=True)
class Body:
    """An answer as bytes, and the tag that changes with them."""

    content: bytes
    tag: str

    @classmethod
    def of(cls, content: bytes) -> Body:
        return cls(content, f'"{sha256(content).hexdigest()[:24]}"')


class Answering:
    """The process, and what it has answered."""

    def __init__(self, *, own_models: bool = False):
        self.own_models = own_models
        self._process: asyncio.subprocess.Process | None = None
        self._is_closed = False
        self._one_at_a_time = asyncio.Lock()
        self._kept: OrderedDict[tuple[object, ...], Body] = OrderedDict()

    async def ask(self, what: str, place: Place, *, keep: bool) -> Body:
        """Return the network, errors or report of a run. Raises Refused.

        Without `keep` it is made anew each time: the code of a user's own model may change.
        """
        key = (what, place.path, place.stamp_with_weights())
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        async with self._one_at_a_time:
            if key in self._kept:  # somebody else has waited for the same
                return self._kept[key]
            if self._is_closed:
                raise Refused(503, "the server ends.")
            reply = await self._asked({"what": what, "path": place.path})
            if "error" in reply:
                raise Refused(reply["status"], reply["error"])
            body = Body.of(reply["body"].encode())
            if keep:
                self._keep(key, body)
            return body

    def _keep(self, key: tuple[object, ...], body: Body) -> None:
        self._kept[key] = body
        while sum(len(kept.content) for kept in self._kept.values()) > _MOST_KEPT:
            self._kept.popitem(last=False)

    async def close(self) -> None:
        """End the process, whatever it is doing, for good. Takes half a second at most."""
        self._is_closed = True
        self._kill()
        with suppress(TimeoutError):
            async with asyncio.timeout(0.5), self._one_at_a_time:  # who asks now sees it end
                if self._process is not None:
                    await _ended(self._process)

    def _kill(self) -> None:
        # Once: a second signal to a process that has ended takes its exit code from asyncio.
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.kill()

    async def _asked(self, question: dict[str, str]) -> dict[str, Any]:
        process = self._process
        if process is None or process.returncode is not None:
            process = self._process = await _start()
        assert process.stdin is not None
        assert process.stdout is not None
        line = json.dumps({**question, "own_models": self.own_models})
        with suppress(ConnectionError):  # it has died; its standard output says so too
            process.stdin.write(line.encode() + b"\n")
            await process.stdin.drain()
        try:
            reply = await asyncio.wait_for(process.stdout.readline(), _PATIENCE)
            if reply.endswith(b"\n"):
                found: dict[str, Any] = json.loads(reply)
                return found
            said = "ended before it was made"
        except TimeoutError:
            self._kill()
            said = f"took more than {_PATIENCE:.0f} s and was ended"
        except ValueError:
            self._kill()
            said = f"made more than {_MOST_REPLY >> 20} MB and was ended"
        await _ended(process)
        self._process = None
        return {"status": 500, "error": f"the process that makes the {question['what']} {said}."}


async def _ended(process: asyncio.subprocess.Process) -> None:
    """Wait for the end of a process that ends. asyncio sees it when all that it said is read."""
    assert process.stdout is not None
    while await process.stdout.read(1 << 20):
        pass
    await process.wait()


async def _start() -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "whit.web.worker",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=_MOST_REPLY,
        process_group=0,  # Ctrl-C in a terminal reaches the server alone
    )
