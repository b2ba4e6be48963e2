"""The responses of the server: runs and studies, curves, networks, errors, reports."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from asking import Server

from harness.forging import reseal
from whit.web import app
from whit.web.run_index import RunIndex

Put = Callable[[Path], Path]
Serve = Callable[..., Server]
ROW = {"id", "path", "name", "seed", "state", "message", "params", "epochs", "correct", "total",
       "verdict", "study", "split", "seconds", "changed", "differs", "data",
       "user_model", "has_weights"}  # fmt: skip
STUDY = {"id", "path", "name", "runs", "data", "split", "finished", "judged", "met", "mean", "sd",
         "min", "max", "params", "epochs"}  # fmt: skip


def test_the_list(server: Server) -> None:
    value = server.get("/api/runs").json
    assert set(value) == {*("whit", "roots", "is_complete", "trust_model_files", "runs", "studies")}
    assert value["roots"] == ["runs", "studies", "records", "searches"]
    assert all(set(row) == ROW for row in value["runs"])
    assert all(set(row) == STUDY for row in value["studies"])
    states = {row["path"]: row["state"] for row in value["runs"]}
    assert states == {
        "runs/one": "finished",
        "runs/stopped": "stopped",
        "runs/damaged": "damaged",
        "runs/edited": "edited",
        "runs/no-weights": "finished",
        "runs/own-model": "finished",
        "studies/easy-01234567/seed-0": "finished",
        "studies/easy-01234567/seed-1": "finished",
        "studies/easy-01234567/seed-2": "finished",
        "records/easy/easy-01234567/seed-0": "finished",
        "searches/small/trials/0004/seed-0": "finished",
    }
    assert [row["path"] for row in value["runs"] if row["user_model"]] == ["runs/own-model"]
    without = {row["path"] for row in value["runs"] if not row["has_weights"]}
    assert without == {"runs/stopped", "runs/damaged", "runs/edited", "runs/no-weights"}
    assert all(re.fullmatch("[0-9a-f]{16}", row["id"]) for row in value["runs"])


def test_rows_and_studies_say_what_the_files_say(server: Server, shown: Path) -> None:
    rows = server.runs()
    result = json.loads((shown / "runs/one/result.json").read_text())
    row = rows["runs/one"]
    assert (row["correct"], row["total"]) == (result["test"]["correct"], 100)
    assert (row["params"], row["epochs"], row["verdict"]) == (result["params"], 2, "met")
    assert row["seconds"] == result["seconds"]["total"]
    assert abs(row["changed"] - (shown / "runs/one/result.json").stat().st_mtime) < 60
    assert "result.json" in rows["runs/damaged"]["message"]
    edited = rows["runs/edited"]
    assert "altered after the run: result.json" in edited["message"]
    assert [edited[key] for key in ("correct", "verdict", "params", "seconds")] == [None] * 4
    details = server.get(f"/api/runs/{edited['id']}").json
    assert (details["state"], details["result"], details["log"]) == ("edited", None, [])
    assert server.get(f"/api/runs/{edited['id']}/network").status == 409
    assert rows["runs/own-model"]["differs"] == "model=mine.py:Net"
    studies = {study["name"]: study for study in server.get("/api/runs").json["studies"]}
    assert list(studies) == ["easy-01234567", "easy/easy-01234567", "small/trials/0004"]
    study = studies["easy-01234567"]
    assert study["runs"] == [rows[f"studies/easy-01234567/seed-{seed}"]["id"] for seed in range(3)]
    assert (study["finished"], study["judged"], study["met"]) == (3, 3, 3)
    assert study["mean"] == study["min"] == row["correct"]
    assert study["sd"] == 0
    assert {rows[f"studies/easy-01234567/seed-{n}"]["study"] for n in range(3)} == {study["id"]}


def test_one_run(server: Server, shown: Path) -> None:
    rows = server.runs()
    value = server.get(f"/api/runs/{rows['runs/one']['id']}").json
    assert set(value) == {
        *("id", "path", "name", "description", "seed", "state", "study", "split", "user_model"),
        *("changed", "recipe", "model", "data", "epochs_planned", "budget", "log", "result"),
        *("lock_holder", "environment", "network_problem"),
    }
    assert value["recipe"] == (shown / "runs/one/recipe.toml").read_text()
    log = [json.loads(line) for line in (shown / "runs/one/log.jsonl").read_text().splitlines()]
    assert value["log"] == log
    assert value["result"]["verdict"] == "met"
    assert "misclassified" not in value["result"]["test"]
    assert (value["lock_holder"], value["network_problem"]) == (None, None)
    stopped = server.get(f"/api/runs/{rows['runs/stopped']['id']}").json
    assert (stopped["state"], stopped["result"]) == ("stopped", None)
    assert stopped["network_problem"] == "the run did not finish"
    assert len(stopped["log"]) == 2


def test_the_network_and_the_errors(server: Server, shown: Path) -> None:
    id = server.runs()["runs/one"]["id"]
    answer = server.get(f"/api/runs/{id}/network")
    assert answer.status == 200, answer.body
    assert answer.json["image_shape"] == [1, 28, 28]
    answer = server.get(f"/api/runs/{id}/errors")
    assert answer.status == 200, answer.body
    value = answer.json
    assert (value["split"], value["total"], value["shape"]) == ("test", 100, [1, 28, 28])
    result = json.loads((shown / "runs/one/result.json").read_text())
    assert sorted(e["index"] for e in value["errors"]) == result["test"]["misclassified"]
    sure = [error["probabilities"][error["true"]] for error in value["errors"]]
    assert sure == sorted(sure)
    assert all(len(base64.b64decode(error["pixels"])) == 784 for error in value["errors"])
    again = server.get(f"/api/runs/{id}/errors", if_none_match=answer.headers["etag"])
    assert (again.status, again.body) == (304, b"")


def test_the_report(server: Server) -> None:
    pytest.importorskip("matplotlib")
    answer = server.get(f"/runs/{server.runs()['runs/one']['id']}/report")
    assert answer.status == 200, answer.body
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["content-security-policy"] == app.REPORT_POLICY
    assert answer.body.startswith(b"<!DOCTYPE html>")


def test_a_run_without_a_network_has_a_reason(server: Server, shown: Path) -> None:
    rows = server.runs()
    for path, status, said in (
        ("runs/stopped", 409, "did not finish"),
        ("runs/no-weights", 409, "weights.safetensors is missing"),
        ("runs/damaged", 409, "damaged: not a JSON object"),
        ("runs/own-model", 403, "--trust-model-files"),
    ):
        for what in ("network", "errors"):
            answer = server.get(f"/api/runs/{rows[path]['id']}/{what}")
            assert (answer.status, set(answer.json)) == (status, {"error"})
            assert said in answer.json["error"]
    assert server.get(f"/runs/{rows['runs/own-model']['id']}/report").status == 403
    assert server.get(f"/api/runs/{rows['runs/damaged']['id']}").status == 409
    assert not (shown / "canary").exists(), (
        "a user's own model file was executed without --trust-model-files"
    )


def test_a_model_file_is_executed_when_trusted(shelf: Path, put: Put, serve: Serve) -> None:
    recipe = put(shelf / "runs/own") / "recipe.toml"
    (shelf / "mine.py").write_text("print('built')\nNet = 1 / 0\n")
    recipe.write_text(recipe.read_text().replace('name = "plain"', 'name = "mine.py:Net"'))
    reseal(recipe.parent)
    server = serve(shelf, "--trust-model-files")
    assert server.get("/api/runs").json["trust_model_files"] is True
    answer = server.get(f"/api/runs/{server.runs()['runs/own']['id']}/network")
    assert answer.status == 409
    assert "ZeroDivisionError" in answer.json["error"]
    assert server.end()[0] == 130


def test_unchanged_is_304_and_changes_are_seen(shelf: Path, put: Put, serve: Serve) -> None:
    run = put(shelf / "runs/one")
    result = (run / "result.json").read_bytes()
    (run / "result.json").unlink()
    server = serve(shelf)
    first = server.get("/api/runs")
    tag = first.headers["etag"]
    assert server.get("/api/runs", if_none_match=tag).status == 304
    assert server.get("/api/runs", if_none_match=f'"x", W/{tag}').status == 304
    id = first.json["runs"][0]["id"]
    one = server.get(f"/api/runs/{id}")
    assert server.get(f"/api/runs/{id}", if_none_match=one.headers["etag"]).status == 304
    line = (run / "log.jsonl").read_text().splitlines()[-1]
    more = json.dumps({**json.loads(line), "epoch": 3, "images_seen": 1200, "steps": 75})
    with (run / "log.jsonl").open("a") as log:
        log.write(more[:50])  # a line that is being written
        log.flush()
        assert [row["epoch"] for row in server.get(f"/api/runs/{id}").json["log"]] == [1, 2]
        log.write(more[50:] + "\n")
    assert [row["epoch"] for row in server.get(f"/api/runs/{id}").json["log"]] == [1, 2, 3]
    assert server.runs()["runs/one"]["epochs"] == 3
    (run / "log.jsonl").write_text((run / "log.jsonl").read_text().replace(f"{more}\n", ""))
    (run / "result.json").write_bytes(result)
    assert server.runs()["runs/one"]["state"] == "finished"
    assert server.get("/api/runs", if_none_match=tag).status == 200
    put(shelf / "runs/two")
    assert set(server.runs()) == {"runs/one", "runs/two"}
    shutil.rmtree(run)
    for path in (f"/api/runs/{id}", f"/api/runs/{id}/network", f"/runs/{id}/report"):
        answer = server.get(path)
        assert answer.status == 404
        assert answer.json == {"error": "runs/one: deleted since it was listed."}
    assert set(server.runs()) == {"runs/two"}
    assert server.end() == (130, "whit: stopped by SIGINT.\n")


def test_the_lock_holder_of_a_running_run(shelf: Path, put: Put, serve: Serve) -> None:
    from whit.runs.lock import RunLock

    run = put(shelf / "runs/one")
    (run / "result.json").unlink()
    (run / "checkpoint").mkdir()
    server = serve(shelf)
    assert server.runs()["runs/one"]["state"] == "stopped"
    ownership = RunLock(run / "checkpoint")
    row = server.runs()["runs/one"]
    assert row["state"] == "running"
    holder = server.get(f"/api/runs/{row['id']}").json["lock_holder"]
    assert (holder["pid"], holder["alive"]) == (os.getpid(), True)
    ownership.release()
    assert server.runs()["runs/one"]["state"] == "stopped"


def test_hostile_names_and_texts_are_text(shelf: Path, put: Put, serve: Serve) -> None:
    script = "<script>alert(1)</script>"
    names = ["<img src=x onerror=alert(1)>", "a\nb", "\u202e", "'\"&`", "b%2f..", "x" * 255]
    folders = [put(shelf / "runs" / name) for name in names]
    os.rename(put(shelf / "runs" / "raw"), os.fsencode(shelf / "runs") + b"/\xff\xfe")
    result = json.loads((folders[0] / "result.json").read_text())
    result |= {"notes": [script, 3, [[[]]]], "violations": script, "best_epoch": [[script]]}
    reseal(folders[0], result)
    (folders[1] / "result.json").write_text(
        json.dumps(result | {"epochs": float("nan"), "seed": [script], "diverged": {"loss": {}}})
    )
    (folders[2] / "environment.json").write_text(json.dumps({"seed": {}, "code": [[script]] * 999}))
    reseal(folders[2])
    server = serve(shelf)
    answer = server.get("/api/runs")
    assert answer.headers["x-content-type-options"] == "nosniff"
    rows = server.runs()
    assert {f"runs/{name}" for name in names} | {"runs/\\xff\\xfe"} == set(rows)
    for row in rows.values():
        status = 409 if row["state"] == "damaged" else 200  # epochs are not a number
        assert server.get(f"/api/runs/{row['id']}").status == status
    value = server.get(f"/api/runs/{rows[f'runs/{names[0]}']['id']}").json["result"]
    assert (value["violations"], value["best_epoch"], value["notes"][0]) == ([], None, script)


def spoil(file: Path, how: str) -> None:
    file.unlink()
    if how == "pipe":
        os.mkfifo(file)
    elif how == "link":
        file.symlink_to("/dev/zero")
    elif how == "huge":
        with file.open("wb") as stream:
            stream.truncate(10 << 30)  # a hole: it takes no disk
    elif how == "folder":
        file.mkdir()


def test_files_that_block_or_never_end(shelf: Path, put: Put, serve: Serve) -> None:
    """Nothing is waited for, and memory stays; every such run is shown as damaged."""
    files = ("recipe.toml", "environment.json", "log.jsonl", "result.json")
    for file in files:
        for how in ("pipe", "link", "huge", "folder"):
            spoil(put(shelf / "runs" / f"{file}-{how}") / file, how)
    owner = put(shelf / "runs" / "owner")
    (owner / "result.json").unlink()
    (owner / "checkpoint").mkdir()
    os.mkfifo(owner / "checkpoint" / "owner.json")
    for how in ("pipe", "link", "folder"):
        spoil(put(shelf / "runs" / f"weights-{how}") / "weights.safetensors", how)
    (shelf / "runs" / "loop").symlink_to(shelf / "runs")
    server = serve(shelf)
    rows = server.runs()
    assert len(rows) == 20
    for path, row in rows.items():
        if path.startswith("runs/weights"):
            assert server.get(f"/api/runs/{row['id']}").json["network_problem"]
        else:
            assert row["state"] == ("stopped" if path == "runs/owner" else "damaged"), path
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    most = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert most
    assert int(most[1]) < 200_000


def test_a_thousand_runs(shelf: Path, put: Put, monkeypatch: pytest.MonkeyPatch) -> None:
    """The times are those of benchmarks/page.py; here: unchanged runs are not read again."""
    run = put(shelf / "run")
    for number in range(1000):
        folder = shelf / f"studies/easy-{number // 10:08x}/seed-{number % 10}"
        folder.mkdir(parents=True)
        for name in ("recipe.toml", "environment.json", "result.json"):
            os.link(run / name, folder / name)
        shutil.copy(run / "log.jsonl", folder)
    monkeypatch.chdir(shelf)
    read: list[Path] = []
    from whit.runs.reader import read_run

    def counting(path: Path, **options: Any) -> Any:
        read.append(path)
        return read_run(path, **options)

    monkeypatch.setattr("whit.web.run_location.read_run", counting)
    index = RunIndex()
    value = index.refresh()
    assert (len(value["runs"]), len(value["studies"]), len(read)) == (1000, 100, 1000)
    assert len({row["id"] for row in value["runs"]}) == 1000
    assert index.refresh() is value
    os.utime(shelf / "studies/easy-00000007/seed-3/log.jsonl")
    assert index.refresh() is not value
    assert len(read) == 1001


def test_the_server_knows_no_torch() -> None:
    code = (
        "import sys, whit.cli.app, whit.web.server; sys.exit(any(name in sys.modules for name in"
        " ('torch', 'numpy', 'matplotlib', 'whit.verification.restore')))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_column_of_the_page_is_in_the_rows(server: Server) -> None:
    columns = server.get("/page/columns.json").json
    assert [column["heading"] for column in columns] == [
        *("run", "differs in", "seed", "state", "accuracy %", "split", "parameters", "epochs"),
        *("seconds", "date"),
    ]
    keys = {column["key"] for column in columns if column["kind"] != "percent"}
    assert keys < ROW


def test_errors_are_pages_for_a_browser_and_json_for_a_script(server: Server) -> None:
    rows = server.runs()
    requests = {
        f"/runs/{rows['runs/own-model']['id']}/report": (403, "--trust-model-files"),
        f"/runs/{rows['runs/damaged']['id']}/report": (
            409,
            "<p>runs/damaged/result.json: damaged: not a JSON object",
        ),
        "/runs/0123456789abcdef/report": (404, "No run has this id"),
        "/runs/no-id/report": (404, "No run has this id"),
        "/api/nothing": (404, "This address does not exist"),
    }
    browser = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
    for path, (status, message) in requests.items():
        answer = server.get(path, accept=browser)
        assert answer.status == status
        assert answer.headers["content-type"] == "text/html; charset=utf-8"
        text = answer.body.decode()
        assert message in text
        assert f"<h2>{status} " in text
        assert '<a href="/#runs">Runs</a>' in text
        assert set(server.get(path).json) == {"error"}
        assert set(server.get(path, accept="*/*").json) == {"error"}
    refused = server.ask("POST", "/", accept=browser)
    assert (refused.status, refused.headers["allow"]) == (405, "GET, HEAD")
    assert b"<p>POST is not allowed: this server is read-only.</p>" in refused.body


def test_an_error_page_shows_hostile_text_as_text(server: Server) -> None:
    answer = server.get("/", host="<script>alert(1)</script>", accept="text/html")
    assert answer.status == 403
    assert b"<script>" not in answer.body
    assert b"&lt;script&gt;" in answer.body


def test_the_page(server: Server) -> None:
    answer = server.get("/")
    assert answer.status == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert b"http://" not in answer.body.replace(b"http://www.w3.org/", b"")
    assert b"https://" not in answer.body
    for name in app.page_files():
        found = server.get(f"/page/{name}")
        assert found.status == 200
        assert server.get(f"/page/{name}", if_none_match=found.headers["etag"]).status == 304
    head = server.ask("HEAD", "/api/runs", connection="close")
    assert (head.status, head.body) == (200, b"")
