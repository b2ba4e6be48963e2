"""The process that makes slow answers: it may die, hang or say too much, and is started again."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from waiting import LIMIT
from whit.web import answering
from whit.web.answering import Answering, Body, Refused
from whit.web.shelf import Place

GOOD = "for line in sys.stdin: print(json.dumps({'body': line}), flush=True)"
HANGS = f"time.sleep({10 * LIMIT})"
Answers = Callable[[str], Answering]


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Answers:
    """Make one whose process runs a line of Python in place of the real one."""

    def made(code: str) -> Answering:
        async def start() -> asyncio.subprocess.Process:
            return await asyncio.create_subprocess_exec(
                *(sys.executable, "-c", f"import json, sys, time\n{code}"),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                limit=10_000,
            )

        monkeypatch.setattr(answering, "_start", start)
        return Answering()

    return made


def place(tmp_path: Path, name: str = "run") -> Place:
    return Place("0" * 16, str(tmp_path / name), str(tmp_path), None)


@pytest.mark.parametrize(
    ("code", "patience", "said"),
    [
        ("pass", LIMIT, "ended before it was made"),
        ("print('half', end='')", LIMIT, "ended before it was made"),
        (HANGS, 1.0, "took more than 1 s"),
        (f"print('x' * 100_000, flush=True); {HANGS}", LIMIT, "made more than"),
    ],
)
def test_a_process_that_fails_is_one_message(
    code: str,
    patience: float,
    said: str,
    answers: Answers,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(answering, "_PATIENCE", patience)

    async def ask() -> Body:
        asked = answers(code)
        with pytest.raises(Refused, match=said) as caught:
            await asked.ask("network", place(tmp_path), keep=True)
        assert caught.value.status == 500
        answers(GOOD)  # the next one is a new process
        monkeypatch.setattr(answering, "_PATIENCE", LIMIT)
        body = await asked.ask("network", place(tmp_path), keep=True)
        await asked.close()
        return body

    asked = json.loads(asyncio.run(ask()).content)
    assert asked["what"] == "network"


def test_answers_are_kept_while_the_files_are_the_same(answers: Answers, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "result.json").write_text("{}")

    async def ask() -> list[Body]:
        asked = answers("n = 0\n" + GOOD.replace("line}", "line + str(time.time())}"))
        found = [await asked.ask("network", place(tmp_path), keep=True) for _ in range(2)]
        both = [asked.ask("errors", place(tmp_path), keep=True) for _ in range(2)]
        found += await asyncio.gather(*both)
        (tmp_path / "run" / "result.json").write_text("{ }")
        found.append(await asked.ask("network", place(tmp_path), keep=True))
        found += [await asked.ask("network", place(tmp_path, "own"), keep=False) for _ in range(2)]
        await asked.close()
        return found

    tags = [body.tag for body in asyncio.run(ask())]
    assert tags[0] == tags[1]
    assert tags[2] == tags[3], "two that ask at the same time wait for one answer"
    assert len(set(tags)) == 5


def test_kept_answers_take_so_much_memory_and_no_more(
    answers: Answers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answering, "_MOST_KEPT", 1000)

    async def ask() -> Any:
        asked = answers(GOOD)
        for number in range(50):
            await asked.ask("network", place(tmp_path, str(number)), keep=True)
        await asked.close()
        return asked._kept

    kept = asyncio.run(ask())
    assert 0 < sum(len(body.content) for body in kept.values()) <= 1000
    assert kept[next(reversed(kept))].content


def test_nothing_is_begun_after_the_end(
    answers: Answers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answering, "_PATIENCE", 10 * LIMIT)
    has_read = tmp_path / "has-read"

    async def ask() -> None:
        asked = answers(f"sys.stdin.readline(); open({str(has_read)!r}, 'w').close(); {HANGS}")
        waiting = [
            asyncio.create_task(asked.ask("network", place(tmp_path, name), keep=True))
            for name in "abc"
        ]
        async with asyncio.timeout(LIMIT):
            while not has_read.exists():
                await asyncio.sleep(0.01)
            await asked.close()
            found = await asyncio.gather(*waiting, return_exceptions=True)
        assert [error.status for error in found if isinstance(error, Refused)] == [500, 503, 503]

    asyncio.run(ask())
