"""HTML and SVG for notebooks: everything is escaped, nothing has a fixed background."""

from __future__ import annotations

import re
from itertools import pairwise
from xml.etree import ElementTree

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from whit.errors import InputError, ModelError
from whit.system.display import records
from whit.system.display.html_tables import (
    html_block,
    html_details,
    html_list,
    html_progress,
    html_table,
    html_text,
)
from whit.system.display.jupyter import in_notebook
from whit.system.display.line_plot import Series, dot_plot, format_tick, line_plot, ticks
from whit.system.display.records import Records

HOSTILE = "<script>alert(1)</script>&\"'"


def test_every_text_is_escaped() -> None:
    page = html_block(
        html_table([HOSTILE], [[HOSTILE]], "L", footer=[HOSTILE], caption=HOSTILE),
        html_text(HOSTILE),
        html_list([HOSTILE]),
        html_details(HOSTILE, html_progress(0.5, HOSTILE)),
        line_plot([Series(HOSTILE, [(0, 1.0), (1, 2.0)])] * 2, HOSTILE, HOSTILE),
        dot_plot([(HOSTILE, [1.0])], HOSTILE),
        title=HOSTILE,
    )
    assert "<script" not in page
    root = ElementTree.fromstring(page)
    texts = [text for text in root.itertext() if "alert" in text]
    # The title, 4 of the table, text, list, two of the details; label, x and names; name and x.
    assert len(texts) == 15
    colors = re.findall(r"(?<![-\w])(?:color|background):([^;\"]*)", page)
    assert set(colors) == {"inherit", "var(--jp-brand-color1, #3b82c4)"}  # the filled bar


def test_numbers_and_their_headings_are_aligned_alike() -> None:
    root = ElementTree.fromstring(html_table(["name", "n"], [["a", "1"]], "lr"))
    sides = [
        [re.search(r"text-align:(\w+)", cell.attrib["style"])[1] for cell in row]  # type: ignore[index]
        for row in root.iter("tr")
    ]
    assert sides == [["left", "right"]] * 2


@given(st.floats(-1e4, 1e4), st.just(0.0) | st.floats(1e-4, 1e4), st.integers(2, 8))
@example(-1e-05, 5001.0, 2)  # the step is larger than all values
def test_ticks_are_few_round_and_around_all_values(low: float, span: float, count: int) -> None:
    high = low + span
    found = ticks(low, high, count)
    tolerance = 1e-9 * max(abs(low), abs(high), 1)
    assert found[0] <= low + tolerance
    assert found[-1] >= high - tolerance
    assert 2 <= len(found) <= count + 3
    steps = {round((b - a) / (found[1] - found[0]), 3) for a, b in pairwise(found)}
    assert steps == {1.0}


def test_ticks_show_what_distinguishes_them() -> None:
    assert [format_tick(value, [0, 20, 40]) for value in (0, 20, 40)] == ["0", "20", "40"]
    assert [format_tick(value, [99.4, 99.45]) for value in (99.4, 99.45)] == ["99.40", "99.45"]
    assert format_tick(-0.0, [0, 1]) == "0"


def test_a_missing_or_infinite_value_interrupts_a_line() -> None:
    points = [(1, 0.5), (2, None), (3, 0.25), (4, float("nan")), (5, float("inf")), (6, 0.1)]
    plot = line_plot([Series("loss", points)], "epoch", "loss")
    assert plot.count("<polyline") == 3
    assert plot.count("<circle") == 3
    assert line_plot([Series("loss", [(1, None)])], "epoch", "loss") == ""
    assert dot_plot([("a", [])], "accuracy") == ""


def test_epochs_have_whole_ticks() -> None:
    plot = line_plot([Series("loss", [(1, 1.0), (2, 0.5), (3, 0.2)])], "epoch", "loss")
    root = ElementTree.fromstring(f"<p>{plot}</p>")
    middle = [t.text for t in root.iter("text") if t.attrib["text-anchor"] == "middle"]
    assert middle == ["1", "2", "3", "epoch"]


def test_rows_are_plain_dicts_and_a_table() -> None:
    rows = Records([{"run": "runs/a", "seed": 0, "accuracy": None}, {"run": "runs/b", "seed": 1,
                    "accuracy": 99.41}])  # fmt: skip
    assert rows[0]["run"] == "runs/a"
    root = ElementTree.fromstring(rows._repr_html_())
    assert [cell.text for cell in root.iter("td")] == ["runs/a", "0", "–", "runs/b", "1", "99.41"]
    assert "No rows" in Records()._repr_html_()


def test_without_pandas_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="pip install pandas"):
        Records().to_pandas()


def test_this_is_no_notebook() -> None:
    assert not in_notebook()


def test_a_notebook_shows_an_error_as_its_message() -> None:
    assert ModelError(["one", "two"])._render_traceback_() == ["ModelError: one\ntwo"]
    error = ModelError("one")
    error.__cause__ = ValueError("the cause is shown in full")
    with pytest.raises(ModelError):
        error._render_traceback_()
