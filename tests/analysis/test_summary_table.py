"""The printed table, against golden files and by its own arithmetic.

Run: pytest tests/analysis/test_summary_table.py; WHIT_OVERWRITE=1 renews the golden files.
"""

import json
import os
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from zoo import PUBLISHED, Written, gap

from whit.analysis import KINDS, Audit, Layer, audit_model

GOLDEN = Path(__file__).parents[1] / "golden" / "audit"
WIDTHS = (60, 80, 100)


def awkward() -> nn.Module:
    """Long names, a second call, a buffer, a frozen and an unused part."""

    def forward(m: Written, x: Tensor) -> Tensor:
        x = m.conv(x)
        x = m.a_rather_long_name_for_a_block["of_layers"](x)
        x = torch.cat([x, m.tall(x)], 1).relu()
        return gap(m.last(m.last(x))) @ m.kept

    block = nn.ModuleDict({"of_layers": nn.Conv2d(4, 4, 3, padding=1, bias=False)})
    block.requires_grad_(False)
    return Written(
        forward,
        a_rather_long_name_for_a_block=block,
        tall=nn.Conv2d(4, 4, (3, 1), padding=(1, 0)),
        last=nn.Conv2d(8, 8, 1),
        kept=nn.Buffer(torch.ones(8, 10)),
    )


def failing() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(4, 10))  # no line of a user's


CASES = {
    "published-16848": lambda: audit_model(PUBLISHED["published-16848"](), name="published-16848"),
    "awkward": lambda: audit_model(awkward(), (1, 12, 12), 10, "awkward"),
    "failing": lambda: audit_model(failing(), (1, 12, 12), 10, "failing"),
}


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("case", CASES)
def test_golden(case: str, width: int) -> None:
    text = CASES[case]().table(width) + "\n"
    file = GOLDEN / f"{case}-{width}.txt"
    if os.environ.get("WHIT_OVERWRITE"):
        file.write_text(text, encoding="utf-8")
    assert text == file.read_text(encoding="utf-8")


@pytest.mark.parametrize("width", [20, 30, 40, 50, *WIDTHS, 200])
@pytest.mark.parametrize("case", CASES)
def test_no_line_is_wider_and_every_row_is_one_line(case: str, width: int) -> None:
    audit = CASES[case]()
    lines = audit.table(width).splitlines()
    assert max(map(len, lines)) <= width
    rules = [at for at, line in enumerate(lines) if set(line) == {"-"}]
    assert len(rules) == 2
    assert rules[1] - rules[0] - 1 == len(audit.layers)


@pytest.mark.parametrize("case", CASES)
def test_the_printed_column_adds_up_to_the_printed_total(case: str) -> None:
    audit = CASES[case]()
    lines = audit.table(200).splitlines()
    first, second = (at for at, line in enumerate(lines) if set(line) == {"-"})
    heading = lines[first - 1]
    end = heading.index("params") + len("params")
    column = [line[:end].split()[-1] for line in lines[first + 1 : second]]
    total = lines[second + 1][:end].split()[-1]
    assert sum(int(cell.replace(",", "")) for cell in column) == int(total.replace(",", ""))
    assert int(total.replace(",", "")) == audit.params.total


@pytest.mark.parametrize("case", CASES)
def test_json_has_the_keys_of_the_design(case: str) -> None:
    audit = CASES[case]()
    value = json.loads(json.dumps(audit.to_json()))
    assert list(value) == ["params", "macs", "receptive_field", "layers"]
    assert list(value["params"]) == ["total", "trainable", "frozen", "buffers", "unused"]
    keys = ["name", "kind", "output_shape", "params", "macs", "receptive_field", "jump"]
    assert all(list(layer) == keys for layer in value["layers"])
    assert all(layer["kind"] in KINDS for layer in value["layers"])
    assert sum(layer["params"] for layer in value["layers"]) == value["params"]["total"]


def test_awkward_counts() -> None:
    audit = CASES["awkward"]()
    params = audit.params
    assert (params.trainable, params.frozen, params.buffers) == (40 + 50 + 52 + 72, 144, 80)
    assert params.total == params.trainable + params.frozen + params.buffers
    assert params.unused == 50
    assert audit.receptive_field == (16, 14)  # 7 rows and 5 columns, and 9 steps more each
    tall = next(layer for layer in audit.layers if layer.name == "tall")
    assert (tall.receptive_field, tall.jump) == ((7, 5), 1)


def test_html_is_escaped() -> None:
    model = nn.Sequential()
    model.add_module("<b>&", nn.Conv2d(1, 1, 3))
    page = audit_model(model, name="<script>")._repr_html_()
    assert "<script>" not in page
    assert "&lt;b&gt;&amp;" in page
    assert page.count("<tr>") == 3


def test_audit_is_a_value() -> None:
    one, other = CASES["awkward"](), CASES["awkward"]()
    assert one == other
    assert isinstance(one, Audit)
    assert all(isinstance(layer, Layer) for layer in one.layers)
    assert str(one) == one.table(100)
    with pytest.raises(AttributeError):
        one.macs = 0  # type: ignore[misc]
