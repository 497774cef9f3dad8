"""Holes: their place, area and randomness, pixel by pixel."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax.methods import _holes

KEY, B = jax.random.key(7), 64
INDEX = jnp.arange(B, dtype=jnp.int32)
DEFAULTS = {"area": 0.25, "overlap": 0, "blocks": 4, "cells": 6}


def draw(kind, size=24, key=KEY, index=INDEX, **options):
    holes = jax.jit(_holes.make(kind, size, **DEFAULTS | options))(key, index)
    assert holes.shape == (len(index), size, size, 1)
    assert holes.dtype == bool
    return np.asarray(holes)[..., 0]


@pytest.mark.parametrize(
    ("size", "overlap", "first", "last"), [(128, 4, 36, 91), (24, 1, 7, 16), (25, 0, 6, 17)]
)
def test_centre_hole_of_the_paper(size, overlap, first, last):
    want = np.zeros((size, size), bool)
    for i in range(first, last + 1):
        for j in range(first, last + 1):
            want[i, j] = True
    for hole in draw("center", size, overlap=overlap, index=INDEX[:2]):
        np.testing.assert_array_equal(hole, want)


def test_blocks_are_squares_that_cover_at_most_the_area():
    holes = draw("blocks", 24, blocks=4)  # squares of 6 pixels a side
    areas = holes.mean((1, 2))
    assert areas.max() == 0.25
    assert areas.min() >= 36 / 576
    assert 0.1 < areas.mean() < 0.25
    one = draw("blocks", 24, blocks=1)
    for hole in one:
        rows, columns = np.nonzero(hole)
        assert (np.ptp(rows), np.ptp(columns), len(rows)) == (11, 11, 144)
    # Every pixel can be hidden: the corners, too.
    many = draw("blocks", 24, blocks=1, index=jnp.arange(2000, dtype=jnp.int32))
    corners = {tuple(np.argwhere(hole)[0]) for hole in many}
    assert corners == {(i, j) for i in range(13) for j in range(13)}


def test_free_forms_have_areas_of_20_to_30_per_cent_and_any_shape():
    holes = draw("free_form", 32)
    areas = holes.mean((1, 2))
    assert 0.2 - 1e-3 <= areas.min() < 0.22
    assert 0.28 < areas.max() <= 0.3 + 1e-3
    # Blobs, not single pixels: most neighbours of a hidden pixel are hidden.
    same = holes[:, 1:-1, 1:-1] & holes[:, :-2, 1:-1]
    assert 0.75 < same.sum() / holes[:, 1:-1, 1:-1].sum() < 0.99
    boxes = [np.ptp(np.nonzero(hole)[0]) + 1 for hole in holes]
    assert np.mean(boxes) > 20  # a square of this area has a side of 16


def test_more_cells_make_smaller_blobs():
    def edges(cells):
        holes = draw("free_form", 32, cells=cells)
        return (holes[:, 1:] != holes[:, :-1]).mean()

    assert edges(4) < 0.75 * edges(8) < 0.75 * edges(16)


@pytest.mark.parametrize("kind", ["blocks", "free_form"])
def test_a_hole_depends_on_the_example_and_the_key_not_on_the_row(kind):
    holes = draw(kind)
    np.testing.assert_array_equal(draw(kind, index=INDEX[::-1])[::-1], holes)
    assert len({hole.tobytes() for hole in holes}) > B - 3
    assert (draw(kind, key=jax.random.key(8)) != holes).any((1, 2)).all()


@pytest.mark.parametrize("width", [0, 1, 3])
def test_border_holds_the_visible_pixels_near_the_hole(width):
    holes = draw("free_form", 12, index=INDEX[:4])
    got = np.asarray(_holes.border(jnp.asarray(holes)[..., None], width))[..., 0]
    for hole, near in zip(holes, got, strict=True):
        hidden = np.argwhere(hole)
        for place in np.ndindex(hole.shape):
            distance = np.abs(hidden - place).max(1).min()
            assert near[place] == (0 < distance <= width)


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("middle", {}, "unknown mask 'middle'; choose one of: center, blocks, free_form"),
        ("center", {"area": 1.5}, r"hole_area must be a fraction .* in \(0, 1\), got 1.5"),
        ("blocks", {"area": 0.0}, "got 0"),
        ("center", {"overlap": 6}, "overlap of 6 pixels .* nothing hidden of a hole of 12 x 12"),
        ("blocks", {"blocks": 0}, "0 blocks"),
        ("blocks", {"blocks": 400}, "400 blocks cannot share .* change method.blocks"),
        ("free_form", {"cells": 1}, "2 to 24 cells"),
        ("free_form", {"cells": 25}, "got 25 cells"),
        ("free_form", {"area": 0.9}, "below 0.83"),
        ("free_form", {"area": 0.001}, "hides a pixel"),
    ],
)
def test_holes_that_do_not_fit_are_refused(kind, options, message):
    with pytest.raises(ValueError, match=message):
        _holes.make(kind, 24, **DEFAULTS | options)
