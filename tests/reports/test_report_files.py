"""The files that a report writes, and the errors for wrong targets and paths."""

from __future__ import annotations

import os
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
import torch
from report_page import checked
from torch import nn

import whit
from easy_data import easy_split
from whit.errors import InputError, RunFailed
from whit.reports import write_report
from whit.reports.figures.network import select_feature_maps, select_receptive_fields
from whit.reports.figures.thumbnails import encode_png
from whit.reports.report_path import ReportPath
from whit.runs.reader import read_run


def test_markdown_links_to_existing_pictures(runs: Path, tmp_path: Path) -> None:
    written = write_report(runs / "seed-0", tmp_path / "a b" / "easy (1).md", markdown=True)
    text = written.read_text()
    named = re.findall(r"!\[[^\n]+\]\(([^)\s]+)\)", text)
    files = {path.relative_to(written.parent).as_posix() for path in tmp_path.rglob("*.*[gp]")}
    assert {unquote(name) for name in named} == files
    assert len(named) == 5
    assert text.startswith("## easy, seed 0\n")
    again = tmp_path / "again" / "easy (1).md"
    write_report(runs / "seed-0", again, markdown=True)
    assert again.read_text() == text
    study = write_report(runs, tmp_path / "study.md", markdown=True).read_text()
    assert "easy over 3 seeds" in study
    for name in re.findall(r"\]\((study/[^)]+)\)", study):
        assert (tmp_path / name).is_file()


def test_a_report_in_a_run_folder_does_not_change_its_audit(finished: Path) -> None:
    assert whit.report(finished) == finished / "report.html"
    assert whit.report(finished, markdown=True) == finished / "report.md"
    checked((finished / "report.html").read_text())
    first = (finished / "report.html").read_bytes()
    assert whit.audit(finished).verdict == "met"
    assert whit.report(str(finished)).read_bytes() == first


def test_wrong_targets_and_paths(finished: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("x")
    wrong: list[tuple[str, dict[str, Any], str]] = [
        ("nowhere", {}, "no such folder. Give a run folder"),
        ("file", {}, "not a folder"),
        ("empty", {}, "no run folder here or one level below"),
        ("seed-0", {"out": tmp_path}, "is a folder. Give the name"),
        ("seed-0", {"out": tmp_path / "file" / "r.html"}, "is not a folder"),
        ("seed-0", {"out": tmp_path / "r.html", "markdown": True}, "must end in .md"),
    ]
    for name, options, said in wrong:
        with pytest.raises(InputError, match=re.escape(said)):
            whit.report(tmp_path / name, **options)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "file", "seed-0"]


@pytest.mark.parametrize("file", ["result.json", "log.jsonl", "recipe.toml", "weights.safetensors"])
def test_a_damaged_run_gives_one_clear_error(file: str, finished: Path) -> None:
    path = finished / file
    path.write_bytes(path.read_bytes()[:-60])
    with pytest.raises(InputError, match=re.escape(file)):
        whit.report(finished)
    assert not (finished / "report.html").exists()


def test_a_full_disk_is_reported(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(target: Path, content: bytes) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr("whit.reports.writer.atomic_write", full)
    with pytest.raises(RunFailed, match=r"report\.html: cannot be written: No space left.*Free"):
        whit.report(finished)


def test_without_matplotlib_the_error_names_the_extra(
    finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("whit.system.optional_deps.find_spec", lambda name: None)
    with pytest.raises(InputError, match=re.escape("pip install 'whit[report]'")):
        whit.report(finished)


def test_layers_of_any_shape_can_be_drawn(runs: Path) -> None:
    from whit.analysis import audit_model
    from whit.reports.sections import layer_blocks

    odd = nn.Sequential(nn.Conv2d(1, 3, (3, 5), (1, 2)), nn.Flatten(), nn.LazyLinear(10))
    odd(torch.zeros(1, 1, 28, 28))
    audit = audit_model(odd, (1, 28, 28), 10, name="odd")
    assert [layer.output_shape for layer in select_feature_maps(audit)][:2] == [(3, 26, 12), (936,)]
    assert str(select_receptive_fields(audit)[0]) == "3×5"
    recipe = read_run(runs / "seed-0").recipe
    assert len(layer_blocks(audit, recipe, easy_split("test", 1))) >= 4
    assert len(layer_blocks(audit, recipe, None)) >= 4


def test_large_images_leave_the_page_small() -> None:
    """At most 250 tiles stand on a page, each a third larger as text."""
    noise = torch.randint(0, 256, (3, 300, 200), dtype=torch.uint8)
    assert len(encode_png(noise)) * 4 / 3 * 250 < 2_000_000


def test_text_has_contrast_on_every_shade() -> None:
    from whit.reports.renderers.html import _shade_style

    def light(colour: str) -> float:
        parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
        red, green, blue = (
            part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
        )
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    for step in range(101):
        ground, words = re.findall(r"#\w+", _shade_style(step / 100))
        lights = sorted((light(ground), light("#000000" if words == "#000" else "#ffffff")))
        assert (lights[1] + 0.05) / (lights[0] + 0.05) >= 4.5


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    from whit.cli.app import main

    def called(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["whit", *arguments])
        capsys.readouterr()
        code = main()
        said = capsys.readouterr()
        return code, said.out, said.err

    return called


def test_the_command_shows_its_stages(
    finished: Path, call: Callable[..., tuple[int, str, str]]
) -> None:
    written = (0, f"Report: {finished / 'report.html'}\n")
    code, out, err = call("report", str(finished))
    assert (code, out) == written
    assert err.splitlines() == [
        f"Reading {finished} ...",
        f"Evaluating {finished} on its test images ...",
        "Drawing the figures ...",
        f"Writing {finished / 'report.html'} ...",
    ]
    assert call("report", str(finished), "--quiet") == (*written, "")
    code, out, err = call("report", str(finished / "nowhere"), "--quiet")
    assert (code, out) == (2, "")
    assert err.startswith("whit: ")


def test_a_notebook_shows_a_report_as_a_link(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "a <b>"
    folder.mkdir()
    monkeypatch.chdir(folder)
    inside, outside = ReportPath("run 1/report.html"), ReportPath(tmp_path / "report.html")
    assert '<a href="run%201/report.html"' in inside._repr_html_()
    assert f'<a href="file://{tmp_path}/report.html"' in outside._repr_html_()
    assert ">run 1/report.html</a>" in inside._repr_html_()
    assert "<b>" not in ReportPath(folder / "x.html")._repr_html_()
    assert inside == Path("run 1/report.html")
    assert pickle.loads(pickle.dumps(inside)) == inside
