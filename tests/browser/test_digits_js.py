"""A drawing becomes an image as the MNIST digits were made, beside a plain twin in Python."""

from __future__ import annotations

import base64
import math

import numpy as np
import pytest
from numpy.typing import NDArray

from browser.chromium import PROGRAM, Watched, module
from whit.data.datasets import load_dataset

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="Chromium is not installed")
Ink = NDArray[np.float64]


def centred(watched: Watched, ink: Ink, rows: int = 28, columns: int = 28) -> Ink:
    module(watched.page, "digits.js")
    height, width = ink.shape
    found = watched.page.evaluate(
        """([ink, w, h, rows, columns]) => {
          const dots = Uint8Array.from(atob(ink), (c) => c.charCodeAt(0));
          return Array.from(whit.centred(dots, w, h, rows, columns));
        }""",
        [base64.b64encode(ink.astype(np.uint8).tobytes()).decode(), width, height, rows, columns],
    )
    return np.array(found).reshape(rows, columns)


def plain_centred(ink: Ink) -> Ink:
    """The same by the book: overlap of intervals as matrices, then the centre of mass."""
    rows, columns = (np.flatnonzero(ink.any(axis=axis)) for axis in (1, 0))
    top, left = rows[0], columns[0]
    height, width = rows[-1] + 1 - top, columns[-1] + 1 - left
    scale = 20 / max(height, width)
    sizes = [max(1, math.floor(length * scale + 0.5)) for length in (height, width)]

    def shares(cells: int, start: int, length: int, whole: int) -> Ink:
        edges = start + length * np.arange(cells + 1) / cells
        dots = np.arange(whole)
        overlap = np.minimum(edges[1:, None], dots + 1) - np.maximum(edges[:-1, None], dots)
        return np.maximum(overlap, 0) * cells / length

    down = shares(sizes[0], top, height, ink.shape[0])
    across = shares(sizes[1], left, width, ink.shape[1])
    small = down @ ink @ across.T
    y, x = (np.arange(size) for size in sizes)
    centre = (small.sum(1) @ y / small.sum(), small.sum(0) @ x / small.sum())
    out = np.zeros((48, 48))
    at = [math.floor(14 - middle + 0.5) + 10 for middle in centre]
    out[at[0] : at[0] + sizes[0], at[1] : at[1] + sizes[1]] = small
    return out[10:38, 10:38]


def test_drawings_anywhere_come_out_as_the_plain_twin_has_them(watched: Watched) -> None:
    rng = np.random.default_rng(0)
    for _ in range(12):
        ink = np.zeros((280, 280))
        top, left = rng.integers(0, 200, 2)
        height, width = rng.integers(1, 80, 2)
        ink[top : top + height, left : left + width] = rng.integers(0, 256, (height, width))
        ink[top, left] = ink[top + height - 1, left + width - 1] = 255
        assert np.allclose(centred(watched, ink), plain_centred(ink), atol=1e-9)


def test_a_digit_of_mnist_stays_what_it_is(watched: Watched) -> None:
    """Its ink fills a box of 20 and its centre of mass lies where it is put."""
    images = load_dataset("mnist").test.images[:60, 0].double().numpy()
    kept = 0
    for image in images:
        large = np.kron(image, np.ones((10, 10)))
        kept += np.abs(centred(watched, large) - image).max() < 1e-6
    assert kept >= 59


def test_nothing_drawn_is_an_empty_image(watched: Watched) -> None:
    assert not centred(watched, np.zeros((280, 280))).any()


def test_a_single_dot(watched: Watched) -> None:
    ink = np.zeros((280, 280))
    ink[3, 277] = 255
    found = centred(watched, ink)
    assert found.sum() == pytest.approx(255 * 20 * 20)
    assert found[5:25, 5:25].min() == pytest.approx(255)
