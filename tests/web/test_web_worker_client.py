"""The process for slow answers: it may die, hang or send too much, and is started again."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from waiting import LIMIT
from whit.web import worker_client
from whit.web.run_location import RunLocation
from whit.web.worker_client import CachedResponse, HTTPRefusal, WorkerClient

ECHO = "for line in sys.stdin: print(json.dumps({'body': line}), flush=True)"
HANGS = f"time.sleep({10 * LIMIT})"
MakeClient = Callable[[str], WorkerClient]


@pytest.fixture
def make_client(monkeypatch: pytest.MonkeyPatch) -> MakeClient:
    """Make a client whose process runs a line of Python in place of the real one."""

    def make(code: str) -> WorkerClient:
        arguments = ("-c", f"import json, sys, time\n{code}")
        monkeypatch.setattr(worker_client, "_ARGUMENTS", arguments)
        monkeypatch.setattr(worker_client, "_MAX_REPLY", 10_000)
        return WorkerClient()

    return make


def location(tmp_path: Path, name: str = "run") -> RunLocation:
    return RunLocation("0" * 16, str(tmp_path / name), str(tmp_path), None)


@pytest.mark.parametrize(
    ("code", "timeout", "message"),
    [
        ("pass", LIMIT, "ended before it answered"),
        ("print('half', end='')", LIMIT, "ended before it answered"),
        (HANGS, 1.0, "took more than 1 s"),
        (f"print('x' * 100_000, flush=True); {HANGS}", LIMIT, "returned more than"),
    ],
)
def test_a_process_that_fails_is_one_message(
    code: str,
    timeout: float,
    message: str,
    make_client: MakeClient,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(worker_client, "_TIMEOUT", timeout)

    async def request() -> CachedResponse:
        client = make_client(code)
        with pytest.raises(HTTPRefusal, match=message) as caught:
            await client.request("network", location(tmp_path), cache=True)
        assert caught.value.status == 500
        make_client(ECHO)  # the next one is a new process
        monkeypatch.setattr(worker_client, "_TIMEOUT", LIMIT)
        body = await client.request("network", location(tmp_path), cache=True)
        await client.close()
        return body

    assert json.loads(asyncio.run(request()).content)["what"] == "network"


def test_a_process_that_was_killed_between_requests_is_started_again(
    make_client: MakeClient, tmp_path: Path
) -> None:
    async def request() -> None:
        client = make_client(ECHO)
        await client.request("network", location(tmp_path), cache=False)
        assert client._worker is not None
        client._worker.kill()
        while not client._worker.has_ended():
            await asyncio.sleep(0.01)
        await client.request("network", location(tmp_path), cache=False)
        await client.close()

    asyncio.run(request())


def test_answers_are_cached_while_the_files_are_the_same(
    make_client: MakeClient, tmp_path: Path
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "result.json").write_text("{}")

    async def request() -> list[CachedResponse]:
        client = make_client("n = 0\n" + ECHO.replace("line}", "line + str(time.time())}"))
        run, user_run = location(tmp_path), location(tmp_path, "own")
        responses = [await client.request("network", run, cache=True) for _ in range(2)]
        both = [client.request("errors", run, cache=True) for _ in range(2)]
        responses += await asyncio.gather(*both)
        (tmp_path / "run" / "result.json").write_text("{ }")
        responses.append(await client.request("network", run, cache=True))
        responses += [await client.request("network", user_run, cache=False) for _ in range(2)]
        await client.close()
        return responses

    etags = [response.etag for response in asyncio.run(request())]
    assert etags[0] == etags[1]
    assert etags[2] == etags[3], "two concurrent requests wait for one answer"
    assert len(set(etags)) == 5


def test_the_cache_is_bounded(
    make_client: MakeClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_client, "_MAX_CACHED", 1000)

    async def request() -> Any:
        client = make_client(ECHO)
        for number in range(50):
            await client.request("network", location(tmp_path, str(number)), cache=True)
        await client.close()
        return client._cache

    cache = asyncio.run(request())
    assert 0 < sum(len(response.content) for response in cache.values()) <= 1000
    assert cache[next(reversed(cache))].content


def test_nothing_is_started_after_the_end(
    make_client: MakeClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_client, "_TIMEOUT", 10 * LIMIT)
    has_read = tmp_path / "has-read"

    async def request() -> None:
        code = f"sys.stdin.readline(); open({str(has_read)!r}, 'w').close(); {HANGS}"
        client = make_client(code)
        waiting = [
            asyncio.create_task(client.request("network", location(tmp_path, name), cache=True))
            for name in "abc"
        ]
        async with asyncio.timeout(LIMIT):
            while not has_read.exists():
                await asyncio.sleep(0.01)
            await client.close()
            errors = await asyncio.gather(*waiting, return_exceptions=True)
        assert [e.status for e in errors if isinstance(e, HTTPRefusal)] == [500, 503, 503]

    asyncio.run(request())
