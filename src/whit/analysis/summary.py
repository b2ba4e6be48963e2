"""The audit as a value: numbers for programs, a table for a terminal or a notebook."""

from __future__ import annotations

import textwrap
from dataclasses import asdict, dataclass
from typing import Any

from whit.analysis.rows import Extent, Layer, to_json_value
from whit.system.display.html_tables import html_block, html_list, html_table, html_text
from whit.system.text_tables import align_columns

HEADINGS = (
    *("layer", "kind", "output", "params", "MACs"),
    *("receptive field", "jump (effective stride)"),
)
ALIGN = "lllrrrr"
MAX_HEADING_WIDTH = 10  # longer headings are wrapped: their columns hold small numbers
MIN_NAME_WIDTH = 12  # a name is cut no shorter than this while a column can be dropped instead
DROP_ORDER = (HEADINGS[6], "MACs", HEADINGS[5], "kind", "output")


@dataclass(frozen=True)
class ParamCounts:
    """Stored numbers. `total` is what a budget counts: trainable + frozen + buffers."""

    total: int
    trainable: int
    frozen: int
    buffers: int  # buffers and constants that inference reads, without running statistics
    unused: int  # of the registered parameters, those that never reach the output

    def to_json(self) -> dict[str, int]:
        """Return the fields by name."""
        return asdict(self)

    def describe(self) -> str:
        """Return the counts as one line of text."""
        return (
            f"parameters: {self.total:,} = {self.trainable:,} trainable + {self.frozen:,} frozen "
            f"+ {self.buffers:,} in buffers; {self.unused:,} never used"
        )


@dataclass(frozen=True)
class Audit:
    """What one model stores, computes and sees. Prints as a table."""

    params: ParamCounts
    macs: int | None  # multiply-adds for one image; None: could not be known
    receptive_field: Extent  # input pixels, the output's
    layers: tuple[Layer, ...]
    kinds: frozenset[str]  # from KINDS, those that take effect
    notes: tuple[str, ...]
    output_shape: tuple[int, ...] | None  # without the batch
    output_problem: str | None  # why the output cannot be trained on, if it cannot
    name: str = ""
    failure: str | None = None  # why the forward pass failed, the user's line first
    kinds_known: bool = True  # false: the pass was not seen completely, absent kinds are unknown
    unverified: tuple[str, ...] = ()  # numbers that inference may read and that are not counted
    batch_dependence: str | None = None  # why the output for an image depends on other images
    expects_logits: str | None = None  # why the output does not suit a loss that takes logits

    @property
    def all_notes(self) -> tuple[str, ...]:
        """The notes, after why the forward pass fails, which tables show above the layers."""
        return (*([f"{self.failure}."] if self.failure else []), *self.notes)

    def to_json(self) -> dict[str, Any]:
        """Return the numbers and the layers; verdict and violations are the budget's to add."""
        return {
            "params": self.params.to_json(),
            "macs": self.macs,
            "receptive_field": to_json_value(self.receptive_field),
            "layers": [layer.to_json() for layer in self.layers],
            **({"unverified": list(self.unverified)} if self.unverified else {}),
            **({"batch_dependence": self.batch_dependence} if self.batch_dependence else {}),
        }

    def rows(self) -> list[tuple[str, ...]]:
        """Return the layers as text, one cell for each of `HEADINGS`."""
        rows: list[tuple[str, ...]] = []
        for layer in self.layers:
            params = _format_count(layer.params)
            if layer.kind in ("unused", "parameter", "constant") and layer.output_shape is None:
                rows.append((layer.name, layer.kind, "", params, "", "", ""))
                continue
            shape, macs = _format_shape(layer.output_shape), _format_count(layer.macs)
            extents = _format_extent(layer.receptive_field), _format_extent(layer.jump)
            rows.append((layer.name, layer.kind, shape, params, macs, *extents))
        return rows

    def total_row(self) -> tuple[str, ...]:
        """Return the cells of the model itself, one for each of `HEADINGS`."""
        shape, params = _format_shape(self.output_shape), _format_count(self.params.total)
        macs, extent = _format_count(self.macs), _format_extent(self.receptive_field)
        return "total", "", shape, params, macs, extent, ""

    def table(self, width: int = 100) -> str:
        """Return the table in at most `width` columns: columns are dropped, rows never wrapped."""
        heads, body = _wrap_headings(), [*self.rows(), self.total_row()]
        name_width, *widths = (max(map(len, column)) for column in zip(*heads, *body, strict=True))
        columns = list(range(1, len(HEADINGS)))
        for dropped in DROP_ORDER:
            if min(MIN_NAME_WIDTH, name_width) + sum(2 + widths[i - 1] for i in columns) <= width:
                break
            columns.remove(HEADINGS.index(dropped))
        room = width - sum(2 + widths[i - 1] for i in columns)
        name_width = min(name_width, max(room, 1))
        heads = [*(row for row in heads[:-1] if any(row[i] for i in columns)), heads[-1]]
        lines = align_columns(
            [
                [_truncate_left(row[0], name_width), *(row[i] for i in columns)]
                for row in (*heads, *body)
            ],
            "".join(ALIGN[i] for i in (0, *columns)),
            [name_width, *(widths[i - 1] for i in columns)],
        )
        rule = "-" * min(max(map(len, lines)), width)
        text = [*_wrap(f"{self.failure}.", width, "  "), ""] if self.failure else []
        text += [_truncate_left(self.name, width)] if self.name else []
        text += [*lines[: len(heads)], rule, *lines[len(heads) : -1], rule, lines[-1]]
        text += _wrap(self.params.describe(), width, "")
        for note in self.notes:
            text += _wrap(f"- {note}", width, "  ")
        return "\n".join(line.rstrip() for line in text)

    def __str__(self) -> str:
        return self.table()

    def _repr_html_(self) -> str:
        return html_block(self.html(), title=self.name)

    def html(self) -> str:
        """Return table, counts and notes as a part of an HTML output."""
        failure = html_text(f"{self.failure}.", bold=True) if self.failure else ""
        layers = html_table(HEADINGS, self.rows(), f"L{ALIGN[1:]}", footer=self.total_row())
        return failure + layers + html_text(self.params.describe()) + html_list(self.notes)


def _wrap_headings() -> list[tuple[str, ...]]:
    """Return the headings as rows of at most MAX_HEADING_WIDTH, aligned at the bottom."""
    columns = [textwrap.wrap(heading, MAX_HEADING_WIDTH) for heading in HEADINGS]
    height = max(map(len, columns))
    return list(zip(*([""] * (height - len(lines)) + lines for lines in columns), strict=True))


def _format_shape(shape: tuple[int, ...] | None) -> str:
    """Return `16×26×26`, `?` for an unknown shape."""
    if shape is None:
        return "?"
    return "×".join(map(str, shape)) or "scalar"


def _format_count(count: int | None) -> str:
    return "?" if count is None else f"{count:,}"


def _format_extent(extent: Extent) -> str:
    if extent is None:
        return "?"
    if isinstance(extent, tuple):
        return "×".join(f"{value:g}" for value in extent)
    return f"{extent:g}"


def _truncate_left(text: str, width: int) -> str:
    """Return `text` cut to `width`: the beginning is dropped, since the end identifies a module."""
    return text if len(text) <= width else "…" + text[len(text) - width + 1 :]


def _wrap(text: str, width: int, indent: str) -> list[str]:
    wrapped = textwrap.wrap(text, max(width, 10), subsequent_indent=indent, break_on_hyphens=False)
    return wrapped or [""]
